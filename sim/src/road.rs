//! An instance's way to the shared level: what is asked takes its time, fails, hangs, and goes on
//! at the other side whether anybody still waits for the answer or not.
//!
//! A level that was restarted may be back with old data, and every connection to it is gone. The
//! next one is made as the library's own store for Redis makes it: looked which run it is, what it
//! holds removed if nobody has noted that run, then noted, and only then used. Each step takes its
//! time, and others do the same meanwhile.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use lazy_layers_cache::{
    BoxError, Codec, Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue,
    testing::SharedStore,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use crate::{history::History, plan::LevelWeather};

/// Clones are the same one.
#[derive(Clone)]
pub(crate) struct Road {
    store: SharedStore,
    history: History,
    state: Arc<Mutex<State>>,
    seed: u64,
    /// Told when it goes on, and when the weather changes. Not `watch`, which wakes in any order.
    goes_on: Arc<Notify>,
    weathers: Arc<Notify>,
}

struct State {
    weather: LevelWeather,
    /// When something was asked last, and how often since then.
    asked: (u64, u64),
    stands: bool,
    /// The run of the level that it is connected to.
    run: Option<u64>,
    /// Whether it is being connected; how often it was.
    connects: bool,
    connection: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    Fails,
    FailsAfterwards,
    Hangs,
    HappensLate,
}

/// By how much later what was asked may happen when nobody waits for it any more.
const LATER: u64 = 3_000;

impl Road {
    pub(crate) fn new(store: SharedStore, history: &History, seed: u64) -> Self {
        let state = State {
            weather: LevelWeather::default(),
            asked: (0, 0),
            stands: false,
            run: store.is_verified().then(|| store.run_id()),
            connects: false,
            connection: 0,
        };
        let (history, state) = (history.clone(), Arc::new(Mutex::new(state)));
        Self { store, history, state, seed, goes_on: Arc::default(), weathers: Arc::default() }
    }

    pub(crate) fn set(&self, weather: LevelWeather) {
        self.state.lock().weather = weather;
        self.weathers.notify_waiters();
    }

    /// Nothing gets through from now on, in either direction.
    pub(crate) fn stand_still(&self, standing: bool) {
        self.state.lock().stands = standing;
        self.goes_on.notify_waiters();
    }

    /// Ends when the instance does not stand still.
    pub(crate) async fn passes(&self) {
        loop {
            let told = self.goes_on.notified();
            if !self.state.lock().stands {
                return;
            }
            told.await;
        }
    }

    /// The run of the level that is asked, if there is a connection to it. Else one is made.
    fn connected(&self) -> Option<u64> {
        let state = &mut *self.state.lock();
        if state.run != Some(self.store.run_id()) {
            state.run = None;
            if !std::mem::replace(&mut state.connects, true) {
                let road = self.clone();
                tokio::spawn(async move { road.connect().await });
            }
        }
        state.run
    }

    async fn connect(self) {
        let run = self.look().await;
        let state = &mut *self.state.lock();
        state.run = run;
        state.connects = false;
        state.connection += u64::from(run.is_some());
    }

    /// Sees to it that nothing old is there. `None` if that comes to nothing: by the weather, or
    /// because the level was restarted meanwhile. Who asks for something then tries again.
    async fn look(&self) -> Option<u64> {
        let run = self.store.run_id();
        self.step(run).await?;
        let is_noted = self.store.is_verified();
        self.step(run).await?;
        if !is_noted {
            self.store.delete_matching("*").await.ok()?;
            self.step(run).await?;
        }
        self.store.mark_verified();
        Some(run)
    }

    /// The time of a request of the connection that is being made.
    async fn step(&self, run: u64) -> Option<()> {
        let weather = self.state.lock().weather;
        let seed = self.seed ^ self.history.now().rotate_left(32);
        let takes = fastrand::Rng::with_seed(seed).u64(0..=2 * weather.slowest);
        sleep(Duration::from_millis(takes)).await;
        self.passes().await;
        let is_through = weather.fails < 1.0 && weather.hangs < 1.0 && self.store.run_id() == run;
        is_through.then_some(())
    }

    fn roll(&self) -> (Fate, Duration, Duration, Duration) {
        let now = self.history.now();
        let State { weather, asked, .. } = &mut *self.state.lock();
        *asked = if asked.0 == now { (now, asked.1 + 1) } else { (now, 0) };
        // By when it is asked and not by what was asked before: so that a history of which a part
        // is left out stays what it is.
        let random = &mut fastrand::Rng::with_seed(self.seed ^ (now << 8 | asked.1));
        random.u64(..);
        let mut at = random.f64();
        let mut is = |chance: f64| {
            at -= chance;
            at < 0.0
        };
        let fate = if is(weather.fails) {
            Fate::Fails
        } else if is(weather.fails_afterwards) {
            Fate::FailsAfterwards
        } else if is(weather.hangs) {
            Fate::Hangs
        } else if is(weather.happens_late) {
            Fate::HappensLate
        } else {
            Fate::Well
        };
        let mut span = |most| Duration::from_millis(random.u64(0..=most));
        (fate, span(weather.slowest), span(weather.slowest), span(LATER))
    }

    /// To be called when the level has this write under these keys, or nothing.
    fn noted(&self, keys: Vec<usize>, write: Option<usize>) -> impl FnOnce() + Send + 'static {
        let history = self.history.clone();
        move || history.level_holds(&keys, write)
    }

    /// Asks the store something, under these conditions.
    fn ask<T, F, A>(&self, act: A) -> StoreFuture<'static, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send,
        A: FnOnce(SharedStore) -> F + Send + 'static,
    {
        let road = self.clone();
        Box::pin(async move {
            let Some(run) = road.connected() else { return Err("no connection yet".into()) };
            let (fate, there, back, later) = road.roll();
            let weather_changes = road.weathers.notified();
            let (tell, told) = oneshot::channel();
            let (store, way) = (road.store.clone(), road.clone());
            // On its own: what was sent is not taken back by who does not wait.
            let work = async move {
                if !there.is_zero() {
                    sleep(there).await;
                }
                way.passes().await;
                if fate == Fate::HappensLate {
                    sleep(later).await;
                }
                let mut acting = pin!(act(store.clone()));
                // What was sent on a connection goes with it, at the last moment too.
                let acting = poll_fn(|context| match store.run_id() == run {
                    true => acting.as_mut().poll(context).map(Some),
                    false => Poll::Ready(None),
                });
                match fate {
                    Fate::Fails | Fate::Hangs => {}
                    Fate::HappensLate => drop(acting.await),
                    Fate::Well | Fate::FailsAfterwards => {
                        if let Some(answer) = acting.await {
                            drop(tell.send(answer));
                        }
                    }
                }
            };
            tokio::spawn(work);
            let answer = told.await;
            if !back.is_zero() {
                sleep(back).await;
            }
            road.passes().await;
            match (fate, answer) {
                (Fate::Well, Ok(answer)) => answer,
                // Until the connection is found to be dead.
                (Fate::Hangs | Fate::HappensLate, _) => {
                    weather_changes.await;
                    Err(BoxError::from("the connection was reset"))
                }
                _ => Err(BoxError::from("bad weather")),
            }
        })
    }
}

impl Store for Road {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<StoredValue>> {
        let key = key.to_owned();
        self.ask(move |store| async move { store.get(&key).await })
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        let key = key.to_owned();
        self.ask(move |store| async move { store.get_or_lease(&key, begin).await })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        ttl: Duration,
    ) -> StoreFuture<'a, bool> {
        let (key, lease) = (key.to_owned(), lease.clone());
        let write =
            <[u8; 8]>::try_from(&*value).ok().map(|value| parts(u64::from_le_bytes(value)).1);
        let noted = self.noted(self.history.key_of(&key).into_iter().collect(), write);
        self.ask(move |store| async move {
            let is_there = store.publish(&key, &lease, value, ttl).await;
            if matches!(is_there, Ok(true)) {
                noted();
            }
            is_there
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        let key = key.to_owned();
        let noted = self.noted(self.history.key_of(&key).into_iter().collect(), None);
        self.ask(move |store| async move {
            store.acquire_write_lease(&key, lease_for).await.inspect(|_| noted())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        let key = key.to_owned();
        let noted = self.noted(self.history.key_of(&key).into_iter().collect(), None);
        self.ask(move |store| async move { store.delete(&key).await.inspect(|()| noted()) })
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        let pattern = pattern.to_owned();
        let noted = self.noted(self.history.keys_of(&pattern), None);
        self.ask(
            move |store| async move { store.delete_matching(&pattern).await.inspect(|()| noted()) },
        )
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.ask(move |store| async move { store.delete_if_equals(&key, &value).await })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.ask(move |store| async move { store.size().await })
    }

    fn lock<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.ask(move |store| async move { store.lock(&key, &owner, ttl).await })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.ask(move |store| async move { store.extend(&key, &owner, ttl).await })
    }

    fn unlock<'a>(&'a self, key: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        self.ask(move |store| async move { store.unlock(&key, &owner).await })
    }

    fn connection_generation(&self) -> u64 {
        self.store.connection_generation() + self.state.lock().connection
    }
}

/// A value says which version it is, and which write brought it.
pub(crate) fn value(version: u32, write: usize) -> u64 {
    u64::from(version) << 32 | u64::try_from(write).expect("few writes")
}

/// See [`value`].
pub(crate) fn parts(value: u64) -> (u32, usize) {
    let write = usize::try_from(value & u64::from(u32::MAX)).expect("32 bits");
    (u32::try_from(value >> 32).expect("32 bits"), write)
}

/// Values as eight bytes, which can be looked into on their way.
pub(crate) struct Plain;

impl Codec<u64> for Plain {
    fn encode(&self, value: &u64) -> Result<Vec<u8>, BoxError> {
        Ok(value.to_le_bytes().to_vec())
    }

    fn decode(&self, bytes: &[u8]) -> Result<u64, BoxError> {
        Ok(u64::from_le_bytes(bytes.try_into()?))
    }
}
