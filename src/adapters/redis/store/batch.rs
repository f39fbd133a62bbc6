//! What is asked for at the same moment goes out as one request with others of its kind.
//!
//! The client has a task for each connection, which takes requests one by one and writes each to
//! the socket for itself: where many callers ask at once, that is most of what a hit costs, on both
//! sides. So while others of a kind are under way, who comes next waits for one turn of the
//! scheduler, in which more join. Who comes while none is asks at once: a caller who is alone waits
//! for nobody.
//!
//! Refused: to leave it to the kernel (no `TCP_NODELAY`), which sends together what comes within a
//! round trip, and that is long on a network; and that one of the callers asks for the others, for
//! nobody knows whether it is polled again.
//!
//! A batch has a task, which ends when nobody waits for it any more. It is on the runtime of the
//! connection, whatever runtime its callers are on: where that one stands still, so does all that
//! goes over the connection.

use std::{marker::PhantomData, sync::Arc};

use parking_lot::Mutex;
use redis::{RedisError, RedisResult, Value};
use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use super::{Inner, context::StoreContext};
use crate::adapters::redis::connection::{Request, classify};
use crate::{error::BoxError, resilience::run_until};

/// With so many a batch is full: its answers come together, so the first waits for the last.
const MOST: usize = 64;

/// With so many bytes too: those that it takes along, and as far as can be told from those that came
/// last, those that it brings. A script sends no more after so many, but at least one value: its
/// answer is made as a whole, and nothing else is done meanwhile.
pub(crate) const MOST_BYTES: usize = 256 * 1024;

/// A value of no more bytes is small.
const SMALL: usize = 4 * 1024;

/// With so many requests under way a batch that is not full waits until one of them is back. They
/// are back one after the other, so it waits for a fraction of a round trip.
const MOST_UNDER_WAY: usize = 4;

const MISSING: &str = "an answer is missing";

/// What can be asked together with others of its kind.
pub(crate) trait Ask: Sized + Send + Sync + 'static {
    /// What the server says to one of them: any part may be an error of the server's.
    type Answer: Send;

    /// One request for all; with whether those that came last were small.
    fn request<'a>(all: &[&Self], context: &'a StoreContext, are_small: bool) -> Request<'a>;

    /// The answer to each of so many, from what the server said; perhaps to the second of two
    /// requests, of which the first may have been heard.
    fn answers(
        said: Vec<Value>,
        count: usize,
        is_second: bool,
    ) -> RedisResult<impl Iterator<Item = Self::Answer>>;

    /// Whether there was no room for it, and it is to be asked again.
    fn is_unasked(_: &Self::Answer) -> bool {
        false
    }

    /// Bytes that it brings.
    fn bytes(_: &Self::Answer) -> usize {
        0
    }

    /// Bytes that it takes along.
    fn weight(&self) -> usize {
        0
    }

    fn queue(inner: &Inner) -> &Together<Self>;
}

pub(crate) struct Together<A: Ask> {
    state: Mutex<State<A>>,
    /// Told when a request is back, or a batch is full.
    moved: Notify,
}

struct State<A: Ask> {
    /// Requests, whether of one or of many.
    under_way: usize,
    waiting: Vec<Waiting<A>>,
    /// What those who wait take along, or more: some may have gone away.
    bytes: usize,
    /// Whether there is a task that sees to those who wait.
    has_guide: bool,
    /// With how many a batch is full.
    full: usize,
    /// Whether the values that came last were.
    are_small: bool,
}

struct Waiting<A: Ask> {
    what: A,
    told: oneshot::Sender<Told<A>>,
}

impl<A: Ask> State<A> {
    fn weigh(&mut self) {
        self.bytes = self.waiting.iter().map(|waiting| waiting.what.weight()).sum();
    }

    /// Whether those who wait are as many as go together.
    fn is_full(&self) -> bool {
        self.waiting.len() >= self.full || self.bytes >= MOST_BYTES
    }
}

enum Told<A: Ask> {
    Answer(A::Answer),
    Failed(BoxError),
    /// It is to be asked by itself. Says whether it may have been heard all the same.
    Again(A, bool),
}

impl<A: Ask> Together<A> {
    /// Whether others of the kind are under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.lock().under_way > 0
    }
}

impl<A: Ask> Default for Together<A> {
    fn default() -> Self {
        let (waiting, full) = (Vec::new(), MOST);
        let state =
            State { under_way: 0, waiting, bytes: 0, has_guide: false, full, are_small: false };
        Self { state: Mutex::new(state), moved: Notify::new() }
    }
}

/// A request that is counted as under way.
struct UnderWay<A: Ask>(Arc<Inner>, PhantomData<A>);

impl<A: Ask> Drop for UnderWay<A> {
    fn drop(&mut self) {
        let queue = A::queue(&self.0);
        queue.state.lock().under_way -= 1;
        queue.moved.notify_one();
    }
}

/// Who waits for an answer that somebody else brings. Dropped without one, where the runtime of
/// its task shuts down, it lets them ask for themselves.
struct Batch<A: Ask> {
    all: Vec<Waiting<A>>,
    was_asked: bool,
}

impl<A: Ask> Drop for Batch<A> {
    fn drop(&mut self) {
        for Waiting { what, told } in self.all.drain(..) {
            // Who does not wait any more needs no answer.
            let _ = told.send(Told::Again(what, self.was_asked));
        }
    }
}

/// The task that sees to those who wait: one at a time. Where its runtime shuts down, nobody does.
struct Guide<A: Ask> {
    inner: Arc<Inner>,
    is_done: bool,
    of: PhantomData<A>,
}

impl<A: Ask> Guide<A> {
    async fn run(mut self) {
        // Others have their turn.
        yield_now().await;
        while !self.is_done {
            let (batch, under_way) = self.departure().await;
            let inner = Arc::clone(&self.inner);
            let asking = inner.ask_for(batch, under_way);
            if self.is_done {
                asking.await;
            } else {
                tokio::spawn(asking);
            }
        }
    }

    async fn departure(&mut self) -> (Batch<A>, UnderWay<A>) {
        let inner = Arc::clone(&self.inner);
        loop {
            let moved = A::queue(&inner).moved.notified();
            if let Some(batch) = self.batch() {
                return (batch, UnderWay(Arc::clone(&inner), PhantomData));
            }
            moved.await;
        }
    }

    /// Those who are next, if they may go; counted as under way.
    fn batch(&mut self) -> Option<Batch<A>> {
        let mut state = A::queue(&self.inner).state.lock();
        // Some have gone away by now.
        state.waiting.retain(|waiting| !waiting.told.is_closed());
        state.weigh();
        let may_wait = !state.is_full() && !state.waiting.is_empty();
        if may_wait && state.under_way >= MOST_UNDER_WAY {
            return None;
        }
        state.under_way += 1;
        let mut bytes = 0;
        let fits = |(at, waiting): &(usize, &Waiting<A>)| {
            bytes += waiting.what.weight();
            *at == 0 || bytes <= MOST_BYTES
        };
        let count = state.waiting.iter().enumerate().take(state.full).take_while(fits).count();
        let all: Vec<_> = state.waiting.drain(..count).collect();
        state.weigh();
        self.is_done = state.waiting.is_empty();
        state.has_guide = !self.is_done;
        Some(Batch { all, was_asked: false })
    }
}

impl<A: Ask> Drop for Guide<A> {
    fn drop(&mut self) {
        if !self.is_done {
            let mut state = A::queue(&self.inner).state.lock();
            state.has_guide = false;
            let left = Batch { all: std::mem::take(&mut state.waiting), was_asked: false };
            drop(state);
            drop(left);
        }
    }
}

/// How a request goes out.
enum Turn<A: Ask> {
    Alone(A, Option<UnderWay<A>>),
    With(oneshot::Receiver<Told<A>>),
}

impl Inner {
    pub(crate) async fn together<A: Ask>(self: &Arc<Self>, what: A) -> Result<A::Answer, BoxError> {
        // Keys of a Cluster are on different servers. (Boxed, so that who goes with others need not
        // have room for what it takes to go alone: callers of whom there are many are to be small.)
        if self.context.endpoint.is_cluster() {
            return Box::pin(self.alone(what, false)).await;
        }
        match self.join(what) {
            Turn::Alone(what, _under_way) => Box::pin(self.alone(what, false)).await,
            Turn::With(others) => match others.await {
                Ok(Told::Answer(answer)) => Ok(answer),
                Ok(Told::Failed(error)) => Err(error),
                // There was too much for one answer, or nobody to bring it.
                Ok(Told::Again(what, was_heard)) => Box::pin(self.alone(what, was_heard)).await,
                Err(_) => Err("the request was given up".into()),
            },
        }
    }

    async fn alone<A: Ask>(
        self: &Arc<Self>,
        what: A,
        was_heard: bool,
    ) -> Result<A::Answer, BoxError> {
        let request = A::request(&[&what], &self.context, false);
        let (answer, is_second) = self.ask_twice(request).await;
        let mut answers = self.answers::<A>(answer?, 1, is_second || was_heard)?;
        answers.pop().ok_or_else(|| MISSING.into())
    }

    /// The answers to so many, or fewer if some are missing.
    fn answers<A: Ask>(
        &self,
        said: Value,
        count: usize,
        is_second: bool,
    ) -> Result<Vec<A::Answer>, BoxError> {
        let said = match said {
            Value::Array(all) => all,
            // One for all.
            one => vec![self.accept(one)?; count],
        };
        let answers = A::answers(said, count, is_second).inspect_err(|error| {
            if let Some(fault) = classify(error) {
                self.link.report(fault);
            }
        });
        Ok(answers?.take(count).collect())
    }

    fn join<A: Ask>(self: &Arc<Self>, what: A) -> Turn<A> {
        let queue = A::queue(self);
        let mut state = queue.state.lock();
        // One at a time: it may be one that is not polled any more.
        if state.under_way == 0 && state.waiting.is_empty() {
            state.under_way = 1;
            drop(state);
            return Turn::Alone(what, Some(UnderWay(Arc::clone(self), PhantomData)));
        }
        // There is no connection yet.
        let Some(runtime) = self.link.runtime() else { return Turn::Alone(what, None) };
        let (told, others) = oneshot::channel();
        state.bytes += what.weight();
        state.waiting.push(Waiting { what, told });
        let is_full = state.is_full();
        let had_guide = std::mem::replace(&mut state.has_guide, true);
        drop(state);
        if !had_guide {
            let guide = Guide::<A> { inner: Arc::clone(self), is_done: false, of: PhantomData };
            runtime.spawn(guide.run());
        } else if is_full {
            queue.moved.notify_one();
        }
        Turn::With(others)
    }

    async fn ask_for<A: Ask>(self: Arc<Self>, mut batch: Batch<A>, under_way: UnderWay<A>) {
        if batch.all.is_empty() {
            return;
        }
        batch.was_asked = true;
        let all: Vec<&A> = batch.all.iter().map(|waiting| &waiting.what).collect();
        let are_small = A::queue(&self).state.lock().are_small;
        let request = A::request(&all, &self.context, are_small);
        let nobody_waits = async {
            for waiting in &mut batch.all {
                waiting.told.closed().await;
            }
        };
        let asking = run_until(self.ask_twice(request), nobody_waits);
        let Some((answer, is_second)) = asking.await else { return };
        drop(under_way);
        let all = std::mem::take(&mut batch.all);
        let answers = answer.and_then(|said| self.answers::<A>(said, all.len(), is_second));
        match answers {
            Ok(answers) => {
                self.learn::<A>(&answers);
                let mut answers = answers.into_iter();
                for Waiting { what, told } in all {
                    let _ = told.send(match answers.next() {
                        Some(answer) if A::is_unasked(&answer) => Told::Again(what, false),
                        Some(answer) => Told::Answer(answer),
                        None => Told::Failed(MISSING.into()),
                    });
                }
            }
            // Each by itself: a script that fails has used up no token.
            Err(error) if all.len() > 1 && may_be_of_one(&error) => {
                drop(Batch { all, was_asked: is_second });
            }
            Err(error) => {
                for Waiting { told, .. } in all {
                    let _ = told.send(Told::Failed(another(&error)));
                }
            }
        }
    }

    /// Before anybody is told: who is asks next.
    fn learn<A: Ask>(self: &Arc<Self>, answers: &[A::Answer]) {
        let (mut sum, mut largest) = (0, 0);
        for bytes in answers.iter().map(A::bytes) {
            (sum, largest) = (sum + bytes, largest.max(bytes));
        }
        let mut state = A::queue(self).state.lock();
        state.full = (MOST_BYTES / (sum / answers.len().max(1)).max(1)).clamp(1, MOST);
        state.are_small = largest <= SMALL;
    }
}

/// Whether what the server has against a request may be only one of those in it: a key that its
/// user may not touch, a name that holds something else. (`ERR` is what old servers make of any
/// error in a script.) What is wrong with the server itself is so for all.
fn may_be_of_one(error: &BoxError) -> bool {
    let code = error.downcast_ref::<RedisError>().and_then(RedisError::code);
    matches!(code, Some("NOPERM" | "WRONGTYPE" | "ERR"))
}

fn another(error: &BoxError) -> BoxError {
    match error.downcast_ref::<RedisError>() {
        Some(error) => error.clone().into(),
        None => error.to_string().into(),
    }
}
