//! Reads that are asked for at the same moment go out as one request.
//!
//! The client has a task for each connection, which takes requests one by one and writes each to
//! the socket for itself: where many callers ask at once, that is most of what a hit costs, on both
//! sides. So while reads are under way, who comes next waits for one turn of the scheduler, in
//! which others join. Who comes while none is asks at once: a caller who is alone waits for nobody.
//!
//! Refused: to leave it to the kernel (no `TCP_NODELAY`), which sends together what comes within a
//! round trip, and that is long on a network; and that one of the callers asks for the others, for
//! nobody knows whether it is polled again. Writes go by themselves: there are few.
//!
//! A batch has a task, which ends when nobody waits for it any more.

use std::{marker::PhantomData, sync::Arc};

use parking_lot::Mutex;
use redis::Value;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::yield_now,
};

use super::{Inner, Parts, connection::Request};
use crate::{error::BoxError, resilience::unless};

/// With so many a batch goes out at once: its answers come together, so the first would wait for
/// the last of them.
const MOST: usize = 64;

/// With so many requests under way the next waits until one of them is back. They are back one
/// after the other, so it waits for a fraction of a round trip.
const MOST_UNDER_WAY: usize = 4;

/// What can be asked together with others of its kind.
pub(super) trait Ask: Sized + Send + Sync + 'static {
    /// One request for all.
    fn request<'a>(all: &[&Self], parts: &'a Parts) -> Request<'a>;

    /// Its answers, one for each. [`Value::Nil`]: to be asked again.
    fn answers(answer: Value) -> Vec<Value>;

    fn queue(inner: &Inner) -> &Together<Self>;
}

pub(super) struct Together<A> {
    state: Mutex<State<A>>,
    /// Told when a request is back.
    returned: Notify,
}

struct State<A> {
    /// Requests, whether of one or of many.
    under_way: usize,
    waiting: Vec<Waiting<A>>,
}

struct Waiting<A> {
    what: A,
    told: oneshot::Sender<Told<A>>,
}

enum Told<A> {
    Answer(Value),
    Failed(BoxError),
    /// Nobody asked for it.
    Again(A),
}

impl<A> Default for Together<A> {
    fn default() -> Self {
        let state = Mutex::new(State { under_way: 0, waiting: Vec::new() });
        Self { state, returned: Notify::new() }
    }
}

impl<A> Together<A> {
    fn all_if_there_is_room(&self) -> Option<Vec<Waiting<A>>> {
        let mut state = self.state.lock();
        let has_room = state.under_way < MOST_UNDER_WAY;
        has_room.then(|| std::mem::take(&mut state.waiting))
    }
}

/// A request that is counted as under way.
struct UnderWay<A: Ask>(Arc<Inner>, PhantomData<A>);

impl<A: Ask> Drop for UnderWay<A> {
    fn drop(&mut self) {
        let queue = A::queue(&self.0);
        queue.state.lock().under_way -= 1;
        queue.returned.notify_one();
    }
}

/// Who waits for an answer that somebody else brings. Dropped without one, where the runtime of
/// its task shuts down, it lets them ask for themselves.
struct Batch<A>(Vec<Waiting<A>>);

impl<A> Drop for Batch<A> {
    fn drop(&mut self) {
        for Waiting { what, told } in self.0.drain(..) {
            // Who does not wait any more needs no answer.
            let _ = told.send(Told::Again(what));
        }
    }
}

/// Others may join until it departs. Where the runtime shuts down before, nobody takes them along.
struct Open<A: Ask> {
    inner: Arc<Inner>,
    has_departed: bool,
    of: PhantomData<A>,
}

impl<A: Ask> Open<A> {
    async fn departure(&mut self) -> Batch<A> {
        // Others have their turn.
        yield_now().await;
        let queue = A::queue(&self.inner);
        loop {
            let returned = queue.returned.notified();
            if let Some(all) = queue.all_if_there_is_room() {
                self.has_departed = true;
                return Batch(all);
            }
            returned.await;
        }
    }
}

impl<A: Ask> Drop for Open<A> {
    fn drop(&mut self) {
        if !self.has_departed {
            let left = std::mem::take(&mut A::queue(&self.inner).state.lock().waiting);
            drop(Batch(left));
        }
    }
}

/// How a request goes out.
enum Turn<A: Ask> {
    Alone(A, UnderWay<A>),
    With(oneshot::Receiver<Told<A>>),
}

impl Inner {
    /// The answer, which may be an error of the server's.
    pub(super) async fn read<A: Ask>(self: &Arc<Self>, mut what: A) -> Result<Value, BoxError> {
        // Keys of a Cluster are on different servers.
        let may_join = !self.parts.target.is_cluster();
        loop {
            let runtime = Handle::try_current().ok().filter(|_| may_join);
            match self.join(what, runtime.as_ref()) {
                Turn::Alone(what, _under_way) => {
                    let (answer, _) = self.ask_twice(A::request(&[&what], &self.parts)).await?;
                    return A::answers(answer).pop().ok_or_else(|| "an answer is missing".into());
                }
                Turn::With(others) => match others.await {
                    Ok(Told::Answer(answer)) => return Ok(answer),
                    Ok(Told::Failed(error)) => return Err(error),
                    Ok(Told::Again(own)) => what = own,
                    Err(_) => return Err("the request was given up".into()),
                },
            }
        }
    }

    fn join<A: Ask>(self: &Arc<Self>, what: A, runtime: Option<&Handle>) -> Turn<A> {
        let mut state = A::queue(self).state.lock();
        let is_first = state.under_way == 0 && state.waiting.is_empty();
        let Some(runtime) = runtime.filter(|_| !is_first) else {
            state.under_way += 1;
            drop(state);
            return Turn::Alone(what, UnderWay(Arc::clone(self), PhantomData));
        };
        let (told, others) = oneshot::channel();
        state.waiting.push(Waiting { what, told });
        let count = state.waiting.len();
        let full = (count >= MOST).then(|| Batch(std::mem::take(&mut state.waiting)));
        drop(state);
        if let Some(batch) = full {
            runtime.spawn(Arc::clone(self).ask_for(batch));
        } else if count == 1 {
            let inner = Arc::clone(self);
            let mut open = Open::<A> { inner, has_departed: false, of: PhantomData };
            runtime.spawn(async move {
                let batch = open.departure().await;
                Arc::clone(&open.inner).ask_for(batch).await;
            });
        }
        Turn::With(others)
    }

    async fn ask_for<A: Ask>(self: Arc<Self>, mut batch: Batch<A>) {
        // Some have gone away by now, all of them perhaps.
        batch.0.retain(|waiting| !waiting.told.is_closed());
        if batch.0.is_empty() {
            return;
        }
        A::queue(&self).state.lock().under_way += 1;
        let under_way = UnderWay::<A>(Arc::clone(&self), PhantomData);
        let all: Vec<&A> = batch.0.iter().map(|waiting| &waiting.what).collect();
        let request = A::request(&all, &self.parts);
        let nobody_waits = async {
            for waiting in &mut batch.0 {
                waiting.told.closed().await;
            }
        };
        let Some(answer) = unless(nobody_waits, self.ask_twice(request)).await else { return };
        drop(under_way);
        let all = std::mem::take(&mut batch.0);
        match answer {
            Ok((answer, _)) => {
                let mut answers = A::answers(answer).into_iter();
                for Waiting { what, told } in all {
                    let _ = told.send(match answers.next() {
                        Some(Value::Nil) => Told::Again(what),
                        Some(answer) => Told::Answer(answer),
                        None => Told::Failed("an answer is missing".into()),
                    });
                }
            }
            Err(error) => {
                let error = error.to_string();
                for Waiting { told, .. } in all {
                    let _ = told.send(Told::Failed(error.as_str().into()));
                }
            }
        }
    }
}
