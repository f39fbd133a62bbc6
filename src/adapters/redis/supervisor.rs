//! The connection that lives: made, watched and made anew by one task, for as long as there is a
//! store.
//!
//! The client's own reconnecting was refused: it keeps a connection whose server does not answer,
//! stays with a master that was demoted, tells nobody that it reconnected, and so nobody can look
//! whether the server has come back with what was deleted before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    connection::{Connection, Doubt},
    run_id::Runs,
    store::context::StoreContext,
};
use crate::{
    error::BoxError,
    resilience::{Backoff, run_until},
};

#[derive(Default)]
pub(crate) struct Link {
    /// `None` until the first call, or after the runtime has shut down that the task was on.
    state: RwLock<Option<(watch::Receiver<State>, Handle)>>,
    /// How many connections there have been, and how often one came to life again.
    number: Arc<AtomicU64>,
    suspicion: Arc<Suspicion>,
}

/// What calls found wrong with the connection.
#[derive(Default)]
struct Suspicion {
    told: Notify,
    /// The server answers, but is not one to talk to.
    is_unfit: AtomicBool,
    /// Somebody gave up waiting for an answer.
    is_unanswered: AtomicBool,
}

/// A call on its way. Dropped before its answer, it was given up.
pub(crate) struct Unanswered<'a>(&'a Suspicion);

impl Unanswered<'_> {
    pub(crate) fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.is_unanswered.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
enum State {
    /// For the first time, or after a connection that worked: worth waiting for.
    Connecting,
    /// And its number.
    Up(Connection, u64),
    Down(Arc<str>),
}

impl Link {
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(crate) fn unanswered(&self) -> Unanswered<'_> {
        Unanswered(&self.suspicion)
    }

    pub(crate) fn suspect(&self, doubt: Doubt) {
        if doubt == Doubt::Unfit {
            self.suspicion.is_unfit.store(true, Ordering::Relaxed);
        }
        self.suspicion.told.notify_one();
    }

    /// A connection, with its number: the one there is, or the one that is being made. An error if
    /// the last attempt failed.
    pub(crate) async fn get(
        &self,
        context: &Arc<StoreContext>,
    ) -> Result<(Connection, u64), BoxError> {
        self.get_if(context, |_| true).await
    }

    /// Waits for a connection later than `number`.
    pub(crate) async fn get_later(
        &self,
        context: &Arc<StoreContext>,
        number: u64,
    ) -> Result<(Connection, u64), BoxError> {
        self.get_if(context, |own| own > number).await
    }

    async fn get_if(
        &self,
        context: &Arc<StoreContext>,
        will_do: impl Fn(u64) -> bool,
    ) -> Result<(Connection, u64), BoxError> {
        let mut receiver = self.receiver(context)?;
        let is_settled = |state: &State| match state {
            State::Connecting => false,
            State::Up(_, number) => will_do(*number),
            State::Down(_) => true,
        };
        let state = receiver.wait_for(is_settled).await;
        match state.as_deref() {
            Ok(State::Up(connection, number)) => Ok((connection.clone(), *number)),
            Ok(State::Down(reason)) => Err(format!("Redis is not there: {reason}").into()),
            Ok(State::Connecting) | Err(_) => Err("the connection to Redis was given up".into()),
        }
    }

    /// What nearly every call needs: no receiver of its own, and no wait.
    pub(crate) fn connected(&self) -> Option<(Connection, u64)> {
        let state = self.state.read();
        let (receiver, _) = state.as_ref().filter(|(it, _)| it.has_changed().is_ok())?;
        match &*receiver.borrow() {
            State::Up(connection, number) => Some((connection.clone(), *number)),
            State::Connecting | State::Down(_) => None,
        }
    }

    /// The runtime that the connection is on.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.state.read().as_ref().map(|(_, runtime)| runtime.clone())
    }

    fn receiver(&self, context: &Arc<StoreContext>) -> Result<watch::Receiver<State>, BoxError> {
        let mut state = self.state.write();
        if let Some((receiver, _)) = state.as_ref().filter(|(it, _)| it.has_changed().is_ok()) {
            return Ok(receiver.clone());
        }
        let runtime = Handle::try_current().map_err(|_| "Redis needs a tokio runtime")?;
        let (sender, receiver) = watch::channel(State::Connecting);
        let keeper = Keeper {
            context: Arc::clone(context),
            number: Arc::clone(&self.number),
            suspicion: Arc::clone(&self.suspicion),
            sender,
        };
        runtime.spawn(keeper.keep());
        *state = Some((receiver.clone(), runtime));
        Ok(receiver)
    }
}

/// A connection that lasted for this long was a good one.
const PROVEN: Duration = Duration::from_secs(5);

/// The task. It has what it needs of the store and not the store, so it ends with it: when nobody
/// is left to be told.
struct Keeper {
    context: Arc<StoreContext>,
    number: Arc<AtomicU64>,
    suspicion: Arc<Suspicion>,
    sender: watch::Sender<State>,
}

impl Keeper {
    async fn keep(self) {
        let sender = self.sender.clone();
        run_until(self.run(), sender.closed()).await;
    }

    async fn run(self) {
        let backoff = || Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let mut pauses = backoff();
        let mut runs = Runs::default();
        loop {
            match self.connect(&mut runs).await {
                Ok(connection) => {
                    let begun = Instant::now();
                    self.suspicion.is_unfit.store(false, Ordering::Relaxed);
                    let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
                    self.sender.send_replace(State::Up(connection.clone(), number));
                    let reason = self.watch(&connection, &mut runs).await;
                    if begun.elapsed() > PROVEN {
                        pauses = backoff();
                        self.sender.send_replace(State::Connecting);
                    } else {
                        // One that fails as soon as it is there is not made in a hurry.
                        self.sender.send_replace(State::Down(reason.to_string().into()));
                        sleep(pauses.next(fastrand::f64())).await;
                    }
                }
                Err(error) => {
                    self.sender.send_replace(State::Down(error.to_string().into()));
                    sleep(pauses.next(fastrand::f64())).await;
                }
            }
        }
    }

    async fn connect(&self, runs: &mut Runs) -> Result<Connection, BoxError> {
        let limit = self.context.options.connect_timeout;
        let connecting = self.context.target.connect(limit);
        // A sentinel and the server that it names, or the nodes of a Cluster: one after the other.
        let connection = timeout(limit.saturating_mul(3), connecting)
            .await
            .map_err(|_| format!("no connection within {:?}", limit.saturating_mul(3)))??;
        timeout(limit, runs.read(&connection))
            .await
            .map_err(|_| format!("the server does not answer within {limit:?}"))??;
        // It may take as long as it takes to look at every key, while the servers answer.
        let vetting = runs.vet(&connection, &self.context);
        run_until(vetting, self.silence(&connection))
            .await
            .unwrap_or_else(|| Err("the server does not answer any more".into()))?;
        Ok(connection)
    }

    /// Ends when the servers have not answered twice.
    async fn silence(&self, connection: &Connection) {
        let interval = self.context.options.check_interval;
        let ping = redis::cmd("PING");
        let mut silent = 0;
        while silent < 2 {
            sleep(interval).await;
            // An error is an answer: whoever works with the connection gets one too.
            match timeout(interval, connection.run_everywhere(&ping)).await {
                Ok(_) => silent = 0,
                Err(_) => silent += 1,
            }
        }
    }

    /// Returns when the connection is given up.
    async fn watch(&self, connection: &Connection, runs: &mut Runs) -> BoxError {
        let interval = self.context.options.check_interval;
        let mut silent = 0;
        loop {
            // A call that failed asks for a check at once.
            let _ = timeout(interval, self.suspicion.told.notified()).await;
            if self.suspicion.is_unfit.load(Ordering::Relaxed) && !self.context.target.is_given() {
                return "the server takes no writes".into();
            }
            if self.context.target.has_another(interval).await {
                return "a sentinel names another master".into();
            }
            let asked = Instant::now();
            match timeout(interval, runs.read(connection)).await {
                Ok(Ok(())) if runs.have_changed() => return "the server was restarted".into(),
                Ok(Ok(())) => {
                    silent = 0;
                    // It is as quick as ever, though calls went unanswered: as good as a new one.
                    if asked.elapsed() < interval / 10
                        && self.suspicion.is_unanswered.swap(false, Ordering::Relaxed)
                    {
                        self.number.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(error)) if self.context.target.is_given() => drop(error),
                Ok(Err(error)) => return error.into(),
                Err(_) if silent >= 1 && !self.context.target.is_given() => {
                    return "the server does not answer".into();
                }
                Err(_) => silent += 1,
            }
        }
    }
}
