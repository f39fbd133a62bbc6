//! An instance's connection to the simulated L2 store: requests take time, fail or hang, and happen
//! in the store whether a caller still waits for the answer or not.
//!
//! After a restart, the store may have old data, and every connection to it is gone. A new
//! connection is made as the library's Redis store makes it:
//!
//! 1. read the run id of the store;
//! 2. if no client has marked this run as verified, remove all keys;
//! 3. mark the run as verified;
//! 4. send requests.
//!
//! Each step takes time, and other instances take the same steps meanwhile.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use lazy_layers_cache::{
    BoxError, Codec, Lease, PatternCursor, Publication, Store, StoreFuture, WireCodec,
    testing::{ForwardStore, SharedStore},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use crate::{plan::StoreFaults, recorder::Recorder};

/// Clones are the same connection.
#[derive(Clone)]
pub(crate) struct FaultyStore {
    store: SharedStore,
    recorder: Recorder,
    state: Arc<Mutex<State>>,
    seed: u64,
    /// The simulation notifies when the instance is thawed; requests and loaders wait. (A `watch`
    /// channel would wake them in any order.)
    thawed: Arc<Notify>,
    /// The simulation notifies when the faults change; requests that hang wait.
    faults_changed: Arc<Notify>,
}

struct State {
    faults: StoreFaults,
    /// The time of the last request, and the number of requests before it at the same time.
    last_request: (u64, u64),
    is_frozen: bool,
    /// The run of the store that the connection belongs to; `None`: no connection.
    run: Option<u64>,
    is_connecting: bool,
    connection_generation: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Succeeds,
    Fails,
    FailsAfterwards,
    Hangs,
    HappensLate,
}

/// A request that happens late is delayed by at most this, in milliseconds.
const MAX_LATE: u64 = 3_000;

impl FaultyStore {
    pub(crate) fn new(store: SharedStore, recorder: &Recorder, seed: u64) -> Self {
        let state = State {
            faults: StoreFaults::default(),
            last_request: (0, 0),
            is_frozen: false,
            run: store.is_verified().then(|| store.run_id()),
            is_connecting: false,
            connection_generation: 0,
        };
        let (recorder, state) = (recorder.clone(), Arc::new(Mutex::new(state)));
        let (thawed, faults_changed) = Default::default();
        Self { store, recorder, state, seed, thawed, faults_changed }
    }

    pub(crate) fn set_faults(&self, faults: StoreFaults) {
        self.state.lock().faults = faults;
        self.faults_changed.notify_waiters();
    }

    /// While the instance is frozen, no request and no answer gets through.
    pub(crate) fn set_frozen(&self, is_frozen: bool) {
        self.state.lock().is_frozen = is_frozen;
        self.thawed.notify_waiters();
    }

    pub(crate) async fn wait_while_frozen(&self) {
        loop {
            let thawed = self.thawed.notified();
            if !self.state.lock().is_frozen {
                return;
            }
            thawed.await;
        }
    }

    /// Returns the run of the store that the connection belongs to. Without a connection, returns
    /// `None` and starts to connect.
    fn connected(&self) -> Option<u64> {
        let state = &mut *self.state.lock();
        if state.run != Some(self.store.run_id()) {
            state.run = None;
            if !std::mem::replace(&mut state.is_connecting, true) {
                let this = self.clone();
                tokio::spawn(async move { this.connect().await });
            }
        }
        state.run
    }

    async fn connect(self) {
        let run = self.verify_run().await;
        let state = &mut *self.state.lock();
        state.run = run;
        state.is_connecting = false;
        state.connection_generation += u64::from(run.is_some());
    }

    /// Makes sure that the store holds no old data, and returns its run. `None` if a fault prevents
    /// that, or the store restarts meanwhile: the next request then connects again.
    async fn verify_run(&self) -> Option<u64> {
        let run = self.store.run_id();
        self.connecting_step(run).await?;
        let is_verified = self.store.is_verified();
        self.connecting_step(run).await?;
        if !is_verified {
            self.store.delete_matching("*").await.ok()?;
            self.connecting_step(run).await?;
        }
        self.store.mark_verified();
        Some(run)
    }

    /// Takes the time of one request of the connection that is being made.
    async fn connecting_step(&self, run: u64) -> Option<()> {
        let faults = self.state.lock().faults;
        let seed = self.seed ^ self.recorder.now().rotate_left(32);
        let takes = fastrand::Rng::with_seed(seed).u64(0..=2 * faults.slowest);
        sleep(Duration::from_millis(takes)).await;
        self.wait_while_frozen().await;
        let is_through = faults.fails < 1.0 && faults.hangs < 1.0 && self.store.run_id() == run;
        is_through.then_some(())
    }

    /// Returns the fate of a request and three delays: of the request, of the answer, and of a
    /// request that happens late.
    fn roll(&self) -> (Fate, Duration, Duration, Duration) {
        let now = self.recorder.now();
        let State { faults, last_request: last, .. } = &mut *self.state.lock();
        *last = if last.0 == now { (now, last.1 + 1) } else { (now, 0) };
        // The seed depends on the time of the request and not on the requests before it, so that a
        // history stays the same when steps of its plan are left out.
        let random = &mut fastrand::Rng::with_seed(self.seed ^ (now << 8 | last.1));
        random.u64(..);
        let mut at = random.f64();
        let mut is = |chance: f64| {
            at -= chance;
            at < 0.0
        };
        let fate = if is(faults.fails) {
            Fate::Fails
        } else if is(faults.fails_afterwards) {
            Fate::FailsAfterwards
        } else if is(faults.hangs) {
            Fate::Hangs
        } else if is(faults.happens_late) {
            Fate::HappensLate
        } else {
            Fate::Succeeds
        };
        let mut span = |max| Duration::from_millis(random.u64(0..=max));
        (fate, span(faults.slowest), span(faults.slowest), span(MAX_LATE))
    }

    /// Returns a function to call when the store has changed these keys: it holds this write now,
    /// or nothing.
    fn recording(&self, keys: Vec<usize>, write: Option<usize>) -> impl FnOnce() + Send + 'static {
        let recorder = self.recorder.clone();
        move || recorder.store_holds(&keys, write)
    }

    /// Sends a request to the store, with the faults of now.
    fn request<T, F, A>(&self, request: A) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send,
        A: FnOnce(SharedStore) -> F + Send + 'static,
    {
        let this = self.clone();
        Box::pin(async move {
            let Some(run) = this.connected() else { return Err("no connection yet".into()) };
            let (fate, there, back, late) = this.roll();
            let faults_change = this.faults_changed.notified();
            let (sender, answer) = oneshot::channel();
            let (store, connection) = (this.store.clone(), this.clone());
            // A task of its own: a caller that drops its future does not take the request back.
            let work = async move {
                if !there.is_zero() {
                    sleep(there).await;
                }
                connection.wait_while_frozen().await;
                if fate == Fate::HappensLate {
                    sleep(late).await;
                }
                let mut handling = pin!(request(store.clone()));
                // A request ends with its connection, even at the last moment.
                let handling = poll_fn(|context| match store.run_id() == run {
                    true => handling.as_mut().poll(context).map(Some),
                    false => Poll::Ready(None),
                });
                match fate {
                    Fate::Fails | Fate::Hangs => {}
                    Fate::HappensLate => drop(handling.await),
                    Fate::Succeeds | Fate::FailsAfterwards => {
                        if let Some(answer) = handling.await {
                            drop(sender.send(answer));
                        }
                    }
                }
            };
            tokio::spawn(work);
            let answer = answer.await;
            if !back.is_zero() {
                sleep(back).await;
            }
            this.wait_while_frozen().await;
            match (fate, answer) {
                (Fate::Succeeds, Ok(answer)) => answer,
                // Until the client finds that the connection is dead.
                (Fate::Hangs | Fate::HappensLate, _) => {
                    faults_change.await;
                    Err(BoxError::from("the connection was reset"))
                }
                _ => Err(BoxError::from("a simulated fault")),
            }
        })
    }
}

impl ForwardStore for FaultyStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn forward<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        self.request(|store| call(Arc::new(store)))
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        let (key, lease) = (key.to_owned(), lease.clone());
        let write = match &result {
            Publication::Value { value, .. } => WireCodec::new().decode(value).ok(),
            Publication::Missing { .. } => None,
        };
        let write = write.map(|value| parts(value).1);
        let record = self.recording(self.recorder.key_of(&key).into_iter().collect(), write);
        self.request(move |store| async move {
            let published = store.publish(&key, &lease, result).await;
            if matches!(published, Ok(true)) {
                record();
            }
            published
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        let key = key.to_owned();
        let record = self.recording(self.recorder.key_of(&key).into_iter().collect(), None);
        self.request(move |store| async move {
            store.acquire_write_lease(&key, lease_for).await.inspect(|_| record())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        let key = key.to_owned();
        let record = self.recording(self.recorder.key_of(&key).into_iter().collect(), None);
        self.request(move |store| async move { store.delete(&key).await.inspect(|()| record()) })
    }

    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        cursor: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        let (pattern, cursor) = (pattern.to_owned(), cursor.clone());
        let keys = if sidecars_only { Vec::new() } else { self.recorder.keys_of(&pattern) };
        let record = self.recording(keys, None);
        self.request(move |store| async move {
            let deleted = store.delete_matching_from(&pattern, sidecars_only, &cursor).await;
            deleted.inspect(|()| record())
        })
    }

    fn connection_generation(&self) -> u64 {
        self.store.connection_generation() + self.state.lock().connection_generation
    }
}

/// Makes a value that names its version and the write that brought it.
pub(crate) fn value(version: u32, write: usize) -> u64 {
    u64::from(version) << 32 | u64::try_from(write).expect("few writes")
}

/// Returns the version and the write that a [`value`] names.
pub(crate) fn parts(value: u64) -> (u32, usize) {
    let write = usize::try_from(value & u64::from(u32::MAX)).expect("32 bits");
    (u32::try_from(value >> 32).expect("32 bits"), write)
}
