//! Keeps one connection to Redis: a supervisor task makes it, watches it and replaces it.
//!
//! # Alternatives considered
//!
//! The client's own reconnecting: it keeps a connection whose server does not answer, stays with a
//! master that was demoted, and reconnects without a sign, so that nothing can check whether the
//! server came back with values that were deleted before.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use redis::RedisError;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    connection::Connection,
    endpoint::{Connected, Endpoint, client::set_name},
    refusal::is_write_refusal,
    run_id::RunIds,
    store::{context::StoreContext, options::RedisOptions},
    verify::verify,
};
use crate::{
    adapters::{client_name::ClientName, task::timeout_named},
    error::BoxError,
    resilience::{Backoff, DropGuard, run_alongside, run_until},
};

/// What the supervisor task connects to, and how.
struct Server {
    endpoint: Arc<Endpoint>,
    connect_timeout: Duration,
    check_interval: Duration,
    name: ClientName,
}

/// The access of a store, and of its views under other prefixes, to the connection. The supervisor
/// task starts with the first call, and ends when the handle is dropped.
pub(crate) struct ConnectionHandle {
    server: Arc<Server>,
    shared: Arc<Shared>,
    /// `None` until the first call. A receiver without a sender if the runtime of the supervisor
    /// task has shut down.
    state: RwLock<Option<(watch::Receiver<State>, Handle)>>,
}

/// Shared by the handle and the supervisor task. It does not keep the handle alive.
#[derive(Default)]
struct Shared {
    /// Incremented by the supervisor task with each connection, and when a connection whose calls
    /// failed or timed out works again.
    generation: AtomicU64,
    /// Notified by a call after a fault, so that the supervisor task checks at once.
    fault_reported: Notify,
    /// Notified by the first call under a prefix, so that the supervisor task verifies it at once.
    prefix_added: Notify,
    /// Set by a call: the server answers, but accepts no writes.
    is_not_writable: AtomicBool,
    /// Set by a call that failed.
    has_failed: AtomicBool,
    /// Set by a call whose caller stopped waiting for the reply.
    has_timed_out: AtomicBool,
    /// The prefixes in use. A prefix that no call has used yet is not one of them: the supervisor
    /// task writes nothing there.
    prefixes: Mutex<Vec<Weak<StoreContext>>>,
    /// How often prefixes were cleared.
    times_cleared: AtomicU64,
}

impl Shared {
    fn prefixes(&self) -> Vec<Arc<StoreContext>> {
        let mut prefixes = self.prefixes.lock();
        prefixes.retain(|context| context.strong_count() > 0);
        prefixes.iter().filter_map(Weak::upgrade).collect()
    }
}

#[derive(Clone)]
enum State {
    /// Connecting for the first time, or again after a connection that worked: callers wait.
    Connecting,
    /// Connected, with the generation of the connection.
    Up(Connection, u64),
    /// The last attempt failed, or its connection did not last: callers get the error at once.
    Down(Arc<str>),
}

impl ConnectionHandle {
    pub(crate) fn new(context: &StoreContext) -> Self {
        let RedisOptions { connect_timeout, check_interval, .. } = context.options;
        let (endpoint, name) = (Arc::clone(&context.endpoint), ClientName::default());
        let server = Arc::new(Server { endpoint, connect_timeout, check_interval, name });
        Self { server, shared: Arc::default(), state: RwLock::default() }
    }

    pub(crate) fn client_name(&self) -> &ClientName {
        &self.server.name
    }

    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Relaxed)
    }

    /// Returns a guard for one call. If the call is dropped without a reply, because its caller
    /// stopped waiting, the guard reports a timeout.
    pub(crate) fn begin_call(&self) -> DropGuard<impl FnOnce()> {
        DropGuard::new(|| self.shared.has_timed_out.store(true, Ordering::Relaxed))
    }

    /// Records a failed call, and asks the supervisor task to check the connection now.
    pub(crate) fn report_failure(&self) {
        self.shared.has_failed.store(true, Ordering::Relaxed);
        self.shared.fault_reported.notify_one();
    }

    /// Records an error. Asks for a check now if it shows that the connection may be broken, or
    /// that the server is a replica, lost its master, or still loads its data. A write that is
    /// refused is no fault of a server that can be read.
    pub(crate) fn report(&self, error: &RedisError) {
        if is_write_refusal(error) {
            return;
        }
        self.shared.has_failed.store(true, Ordering::Relaxed);
        let is_not_writable = matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"));
        if is_not_writable {
            self.shared.is_not_writable.store(true, Ordering::Relaxed);
        }
        if is_not_writable || error.is_connection_dropped() || error.is_io_error() {
            self.report_failure();
        }
    }

    /// Returns the connection and its generation, for calls under a prefix. Waits while the
    /// supervisor task connects, or verifies the prefix, and for a generation above `newer_than`.
    /// Fails if its last attempt failed.
    pub(crate) async fn get(
        &self,
        context: &Arc<StoreContext>,
        newer_than: u64,
    ) -> Result<(Connection, u64), BoxError> {
        let prefix = &context.prefix_state;
        if prefix.register() {
            self.shared.prefixes.lock().push(Arc::downgrade(context));
            self.shared.prefix_added.notify_one();
        }
        let mut receiver = self.receiver()?;
        let is_settled = |state: &State| match state {
            State::Connecting => false,
            State::Up(_, generation) => {
                *generation > newer_than && (prefix.is_verified() || prefix.failure().is_some())
            }
            State::Down(_) => true,
        };
        let state = receiver.wait_for(is_settled).await;
        match state.as_deref() {
            Ok(State::Up(connection, generation)) if prefix.is_verified() => {
                Ok((connection.clone(), *generation))
            }
            Ok(State::Up(..)) => {
                let reason = prefix.failure().unwrap_or_default();
                Err(format!("Redis does not serve the prefix: {reason}").into())
            }
            Ok(State::Down(reason)) => Err(format!("Redis is unreachable: {reason}").into()),
            Ok(State::Connecting) | Err(_) => Err("the connection to Redis was given up".into()),
        }
    }

    /// Returns the connection if there is one, and the prefix is verified. The fast path: it clones
    /// no receiver.
    pub(crate) fn connected(&self, context: &StoreContext) -> Option<(Connection, u64)> {
        let state = self.state.read();
        let (receiver, _) = state.as_ref().filter(|(it, _)| it.has_changed().is_ok())?;
        match &*receiver.borrow() {
            // In this order: a prefix that was verified on an earlier connection counts as not
            // verified from before the next one is here.
            // mutant late-prefix: s/context.prefix_state.is_verified()/true/
            State::Up(connection, generation) if context.prefix_state.is_verified() => {
                Some((connection.clone(), *generation))
            }
            State::Up(..) | State::Connecting | State::Down(_) => None,
        }
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.state.read().as_ref().map(|(_, runtime)| runtime.clone())
    }

    /// Starts the supervisor task if there is none, or if its runtime has shut down.
    fn receiver(&self) -> Result<watch::Receiver<State>, BoxError> {
        let mut state = self.state.write();
        if let Some((receiver, _)) = state.as_ref().filter(|(it, _)| it.has_changed().is_ok()) {
            return Ok(receiver.clone());
        }
        let runtime = Handle::try_current().map_err(|_| "Redis needs a tokio runtime")?;
        let (sender, receiver) = watch::channel(State::Connecting);
        let (server, shared) = (Arc::clone(&self.server), Arc::clone(&self.shared));
        let supervisor = Supervisor { server, shared, sender: sender.clone() };
        runtime.spawn(async move { run_until(Box::pin(supervisor.run()), sender.closed()).await });
        *state = Some((receiver.clone(), runtime));
        Ok(receiver)
    }
}

/// A connection that lasted longer than this was a good one: the supervisor task replaces it
/// without a pause.
const PROVEN: Duration = Duration::from_secs(5);

/// The supervisor task. It ends once no receiver of the connection state is left.
struct Supervisor {
    server: Arc<Server>,
    shared: Arc<Shared>,
    sender: watch::Sender<State>,
}

impl Supervisor {
    async fn run(self) {
        let backoff = || Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        let mut pauses = backoff();
        let mut ids = RunIds::default();
        loop {
            let error = match self.connect(&mut ids).await {
                Ok(connected) => {
                    let begun = Instant::now();
                    self.shared.is_not_writable.store(false, Ordering::Relaxed);
                    let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed) + 1;
                    self.sender.send_replace(State::Up(connected.0.clone(), generation));
                    let reason = self.watch(&connected, &mut ids).await;
                    if begun.elapsed() > PROVEN {
                        pauses = backoff();
                        self.sender.send_replace(State::Connecting);
                        continue;
                    }
                    reason
                }
                Err(error) => error,
            };
            self.sender.send_replace(State::Down(error.to_string().into()));
            sleep(pauses.next(fastrand::f64())).await;
        }
    }

    async fn connect(&self, ids: &mut RunIds) -> Result<Connected, BoxError> {
        let limit = self.server.connect_timeout;
        // Up to three steps in sequence: a sentinel and the server that it names, or the nodes of
        // a Cluster.
        let in_all = limit.saturating_mul(3);
        let connecting = self.server.endpoint.connect(limit);
        let (connection, master) = timeout_named(in_all, "connect", connecting).await?;
        let greeting = async {
            if let Connection::Server(connection) = &connection {
                set_name(&mut connection.clone(), &self.server.name, "store").await;
            }
            ids.begin(&connection).await
        };
        timeout_named(limit, "answer", greeting).await?;
        let may_be_old = ids.have_changed();
        let prefixes = self.shared.prefixes();
        prefixes.iter().for_each(|context| context.prefix_state.on_connected(may_be_old));
        ids.trust_current();
        self.verify_prefixes(&connection, ids).await?;
        Ok((connection, master))
    }

    /// Verifies the prefixes in use that are not verified yet. Fails if none of those in use can be
    /// served, or if the server stops to answer.
    async fn verify_prefixes(&self, connection: &Connection, ids: &RunIds) -> Result<(), BoxError> {
        let prefixes = self.shared.prefixes();
        // Wakes the callers that wait for their prefixes.
        let on_good = || self.sender.send_modify(|_| ());
        let verify = verify(connection, ids, &prefixes, on_good, &self.shared.times_cleared);
        // Scanning every key has no limit of its own, as long as the servers answer.
        run_until(verify, self.watch_liveness(connection))
            .await
            .unwrap_or_else(|| Err("the server does not answer any more".into()))
    }

    /// Verifies the prefixes whose first call came after the connection was made, and again those
    /// that failed, until it is dropped.
    async fn verify_late_prefixes(&self, connection: &Connection, ids: &RunIds) {
        loop {
            let added = self.shared.prefix_added.notified();
            let _ = timeout(self.server.check_interval, added).await;
            self.verify_again(connection, ids).await;
        }
    }

    async fn verify_again(&self, connection: &Connection, ids: &RunIds) {
        let late = self.shared.prefixes();
        if late.iter().all(|context| context.prefix_state.is_verified()) {
            return;
        }
        let failed: Vec<_> = late.iter().filter(|it| it.prefix_state.failure().is_some()).collect();
        // If the server does not answer, the next check finds out.
        let _ = self.verify_prefixes(connection, ids).await;
        if failed.iter().any(|it| it.prefix_state.is_verified()) {
            // Counts as a new connection, so that the circuit breaker retries at once.
            self.shared.generation.fetch_add(1, Ordering::Relaxed);
        }
        // Wakes the callers that wait for their prefixes.
        self.sender.send_modify(|_| ());
    }

    /// Returns after two consecutive pings without a reply. An error is a reply: callers that use
    /// the connection get it too.
    async fn watch_liveness(&self, connection: &Connection) {
        let interval = self.server.check_interval;
        let ping = redis::cmd("PING");
        let mut unanswered = 0;
        while unanswered < 2 {
            sleep(interval).await;
            match timeout(interval, connection.run_everywhere(&ping)).await {
                Ok(_) => unanswered = 0,
                Err(_) => unanswered += 1,
            }
        }
    }

    /// Checks the connection, and verifies late prefixes beside that: to clear one may take
    /// minutes. Returns the reason once the connection must be replaced.
    async fn watch(&self, connected: &Connected, ids: &mut RunIds) -> BoxError {
        // The checks end once they find other run ids.
        let known = ids.clone();
        let late = Box::pin(self.verify_late_prefixes(&connected.0, &known));
        run_alongside(late, Box::pin(self.check(connected, ids))).await
    }

    /// Checks the connection at each interval, and at once when a call reports a fault. Returns
    /// the reason once the connection must be replaced.
    ///
    /// Only the application can replace its own connection, so with an external one this returns
    /// only after a restart of a server, or with another master, to verify the data.
    async fn check(&self, (connection, master): &Connected, ids: &mut RunIds) -> BoxError {
        let interval = self.server.check_interval;
        let endpoint = &self.server.endpoint;
        let mut unanswered = 0;
        loop {
            let _ = timeout(interval, self.shared.fault_reported.notified()).await;
            if self.shared.is_not_writable.load(Ordering::Relaxed) && !endpoint.is_external() {
                return "the server accepts no writes".into();
            }
            if endpoint.has_moved(master.as_ref(), interval).await {
                return "the sentinels name another master".into();
            }
            let asked = Instant::now();
            match timeout(interval, ids.check(connection, &self.shared.prefixes())).await {
                Ok(Ok(())) if ids.have_changed() => return "the server was restarted".into(),
                Ok(Ok(())) if ids.have_new_master() => {
                    return "the Cluster has another master".into();
                }
                Ok(Ok(())) => {
                    unanswered = 0;
                    // Counts as a new connection, so that the circuit breaker retries at once.
                    if self.has_recovered(connection, asked.elapsed()).await {
                        self.shared.generation.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(_)) if endpoint.is_external() => {}
                Ok(Err(error)) => return error,
                Err(_) if unanswered >= 1 && !endpoint.is_external() => {
                    return "the server does not answer".into();
                }
                Err(_) => unanswered += 1,
            }
        }
    }

    /// Returns true if calls failed or timed out since this function last returned true, and calls
    /// may succeed again: the servers have just answered a check, within `took`, and serve keys.
    ///
    /// After a timeout the answer must have come quickly.
    async fn has_recovered(&self, connection: &Connection, took: Duration) -> bool {
        let Shared { has_failed, has_timed_out, .. } = &*self.shared;
        let interval = self.server.check_interval;
        let is_quick = took < interval / 4;
        let is_due = has_failed.swap(false, Ordering::Relaxed)
            | (is_quick && has_timed_out.swap(false, Ordering::Relaxed));
        if !is_due {
            return false;
        }
        let has_recovered = matches!(timeout(interval, connection.serves_keys()).await, Ok(true));
        if !has_recovered {
            has_failed.store(true, Ordering::Relaxed);
        }
        has_recovered
    }
}
