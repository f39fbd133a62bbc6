//! The main path, top to bottom: memory, a flight, the loader, memory again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::shared::Shared;
use crate::{
    entry::Entry,
    error::{Error, ErrorKind},
    flight::{self, Follower, Join, Node, Waiting, within},
    load::{IntoLoaded, Loaded, Loader, contained},
    observe::{Counter, Event, Level, StaleReason, in_span},
    options::{CallOptions, Timeouts},
};

/// What a call gave, and how it came by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What awaiting the request itself would have given.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// How long ago it was loaded or set; zero for what was loaded now.
    pub age: Duration,
    /// Why a stale copy was served; `None` if the value is fresh.
    pub stale: Option<StaleReason>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The memory of this instance.
    L1,
    /// This call's own loader.
    Loader,
    /// The loader of another call that was running already.
    Joined,
}

/// An [`Outcome`] before it is known what the caller's loader can say.
pub(super) struct Found<V> {
    value: Option<Arc<V>>,
    source: Source,
    age: Duration,
    stale: Option<StaleReason>,
    key: Arc<str>,
}

/// What a flight knows from its start.
pub(super) struct About<V> {
    node: Node,
    /// The copy that may serve if the load fails or is slow, and since when callers wait.
    stale: Option<(Entry<V>, Instant)>,
    /// Whether the soft timeout was reported. Set by the first caller to run into it.
    reported_slow: AtomicBool,
}

/// What a flight lands with.
pub(super) type Landing<V> = Result<Option<Arc<V>>, Failure<V>>;

pub(super) struct Failure<V> {
    error: Error,
    /// The copy to serve instead, if no delete has come in between.
    stale: Option<Entry<V>>,
}

impl<V> Clone for Failure<V> {
    fn clone(&self) -> Self {
        Self { error: self.error.clone(), stale: self.stale.clone() }
    }
}

type Flight<V> = flight::Flight<About<V>, Landing<V>>;
type Ticket<V> = flight::Ticket<About<V>, Landing<V>>;

/// An answer found by the last look before a load.
enum Look<V> {
    Fresh(Entry<V>),
    Throttled(Entry<V>),
    Missing,
    /// Nothing is begun any more. Asked under the lock, so that a load either sees this or is
    /// seen by `close`.
    Closed,
}

/// A caller whose loader cannot say "none" and who joins loads that do gives up after this many.
const MOST_ABSENT_JOINS: usize = 3;

impl<V: Send + Sync + 'static> Shared<V> {
    /// The hottest path: a fresh value from memory.
    #[inline]
    pub(super) fn hit(&self, key: &str) -> Option<Arc<V>> {
        let value = self.l1.fresh(key, self.now())?;
        self.observer.count(Counter::L1Hits);
        self.observer.emit(|| Event::Hit { key, level: Level::L1, negative: false });
        Some(value)
    }

    /// What memory can say at once: a fresh value, or `Some(None)`, that the key does not exist.
    #[inline]
    pub(super) fn answer(&self, key: &str) -> Option<Option<Arc<V>>> {
        if let Some(value) = self.hit(key) {
            return Some(Some(value));
        }
        if self.l1.remembers_missing() && self.l1.is_known_missing(key, self.now()) {
            self.report_negative_hit(key);
            return Some(None);
        }
        None
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<V>> {
        self.answer(key).unwrap_or_else(|| {
            self.report_miss(key);
            None
        })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        let now = self.now();
        self.l1.peek(key).is_some_and(|entry| entry.is_fresh(now))
    }

    /// Gets a value that memory does not have, or not fresh.
    pub(super) async fn fetch<L: Loader<V>>(
        self: Arc<Self>,
        key: Arc<str>,
        loader: L,
        call: Option<Box<CallOptions>>,
    ) -> Result<Found<V>, Error> {
        let refresh = call.as_ref().is_some_and(|call| call.refresh);
        let accepts_none = L::Loaded::output(None).is_some();
        let timeouts = self.options.timeouts(call.as_deref()).clone();
        let mut loader = Some(loader);
        for _ in 0..MOST_ABSENT_JOINS {
            let look = || self.last_look(&key, refresh, accepts_none);
            let ticket = match self.flights.join(&key, self.now(), look) {
                Join::Found(look) => return self.found(key, look),
                Join::Follow(follower) => {
                    self.observer.count(Counter::Joined);
                    self.observer.emit(|| Event::InflightReuse { key: &key });
                    match self.follow(&key, &follower, &timeouts).await {
                        Ok(Found { value: None, .. }) if !accepts_none => continue,
                        result => return result,
                    }
                }
                Join::Lead(ticket) => ticket,
                Join::Bypass(ticket) => {
                    self.observer.count(Counter::Bypassed);
                    self.observer.emit(|| Event::InflightBypass { key: &key });
                    ticket
                }
            };
            let Some(loader) = loader.take() else { break };
            self.report_miss(&key);
            let flight = Arc::clone(ticket.flight());
            Arc::clone(&self).begin(Arc::clone(&self).load(ticket, loader, call));
            return self.wait(&key, &flight, Source::Loader, timeouts.soft, None).await;
        }
        Err(Error::absent(&key))
    }

    /// Under the lock under which fills are made. Reads the clock itself: an entry filled just
    /// now must not look as if it came from the future.
    fn last_look(&self, key: &str, refresh: bool, accepts_none: bool) -> Result<About<V>, Look<V>> {
        if self.check_open().is_err() {
            return Err(Look::Closed);
        }
        let now = self.now();
        let mut stale = None;
        if self.sweeps.cover(key) {
            // Whatever is held is about to go.
        } else if let Some(entry) = self.l1.peek(key).filter(|entry| entry.is_usable(now)) {
            if !refresh && entry.is_fresh(now) {
                return Err(Look::Fresh(entry));
            }
            if !refresh && entry.is_throttled(now) {
                return Err(Look::Throttled(entry));
            }
            stale = Some((entry, Instant::now()));
        } else if !refresh && accepts_none && self.l1.is_known_missing(key, now) {
            return Err(Look::Missing);
        }
        Ok(About { node: Node::new(), stale, reported_slow: AtomicBool::new(false) })
    }

    fn found(&self, key: Arc<str>, look: Look<V>) -> Result<Found<V>, Error> {
        let now = self.now();
        Ok(match look {
            Look::Fresh(entry) => {
                self.observer.count(Counter::L1Hits);
                self.observer.emit(|| Event::Hit { key: &key, level: Level::L1, negative: false });
                Found { age: entry.age(now), stale: None, ..Found::new(key, entry) }
            }
            Look::Throttled(entry) => self.serve_stale(key, entry, StaleReason::Throttled),
            Look::Missing => {
                self.report_negative_hit(&key);
                Found { value: None, source: Source::L1, age: Duration::ZERO, stale: None, key }
            }
            Look::Closed => return Err(Error::closed()),
        })
    }

    fn serve_stale(&self, key: Arc<str>, entry: Entry<V>, reason: StaleReason) -> Found<V> {
        let age = entry.age(self.now());
        self.observer.count(Counter::StaleHits);
        self.observer.emit(|| Event::StaleHit { key: &key, reason, age });
        Found { age, stale: Some(reason), ..Found::new(key, entry) }
    }

    /// Starts a load: polled once here, and if it has to wait, on in a task of its own.
    ///
    /// So a loader that is ready at once costs no task. The waker of this first poll is never
    /// used: a spawned task is polled in any case.
    fn begin(self: Arc<Self>, load: impl Future<Output = ()> + Send + 'static) {
        let mut load = Box::pin(load);
        if load.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && let Ok(runtime) = Handle::try_current()
        {
            let stop = self.stop.clone();
            self.tasks.spawn_on(
                async move {
                    stop.run_until_cancelled_owned(load).await;
                },
                &runtime,
            );
        }
    }

    /// One load, from the call of the loader to the landing of its flight.
    async fn load<L: Loader<V>>(
        self: Arc<Self>,
        ticket: Ticket<V>,
        loader: L,
        call: Option<Box<CallOptions>>,
    ) {
        let key = Arc::clone(ticket.key());
        let node = ticket.flight().about.node;
        let hard = self.options.timeouts(call.as_deref()).hard;
        self.observer.count(Counter::Loads);
        self.observer.emit(|| Event::LoaderStart { key: &key });
        let began = self.now();
        let result = in_span(&key, within(node, contained(&key, loader, hard))).await;
        let now = self.now();
        self.observer.origin_answered(&key, result.as_ref().err(), now);
        match result {
            Ok(loaded) => {
                let took = Duration::from_millis(now.saturating_sub(began));
                self.observer.emit(|| Event::LoaderSuccess { key: &key, took });
                self.publish(ticket, loaded, call.as_deref());
            }
            Err(error) => self.fail(ticket, error, hard),
        }
    }

    fn publish(&self, mut ticket: Ticket<V>, loaded: Loaded<V>, call: Option<&CallOptions>) {
        let key = Arc::clone(ticket.key());
        let Loaded { value, ttl, stale_for } = loaded;
        let own = CallOptions { ttl, stale_for, ..CallOptions::default() };
        let published = if let Some(value) = &value {
            let lifetime = self.options.l1_lifetime(&own, call, fastrand::f64);
            let entry = self.entry(&key, value, lifetime);
            let kept = entry.is_worth_keeping();
            let write = || if kept { self.l1.insert(&key, entry) } else { self.l1.remove(&key) };
            ticket.publish(write).map(|displaced| {
                self.let_go(displaced);
                if kept {
                    self.observer.emit(|| Event::Set { key: &key, ttl: lifetime.ttl });
                }
            })
        } else {
            let ttl = own.ttl.unwrap_or(self.options.negative_cache.ttl);
            let until = self.now().saturating_add(crate::time::millis(ttl));
            ticket.publish(|| self.l1.insert_missing(&key, until)).map(|displaced| {
                self.let_go(displaced);
                if self.l1.remembers_missing() {
                    self.observer.emit(|| Event::NegativeSet { key: &key, ttl });
                }
            })
        };
        if published.is_none() {
            self.observer.count(Counter::Superseded);
            self.observer.emit(|| Event::LoadSuperseded { key: &key });
        }
        ticket.land(Ok(value));
    }

    fn fail(&self, mut ticket: Ticket<V>, error: Error, hard: Option<Duration>) {
        let key = Arc::clone(ticket.key());
        self.observer.count(Counter::LoadFailures);
        if error.kind() == ErrorKind::HardTimeout {
            let limit = hard.unwrap_or_default();
            self.observer.emit(|| Event::LoaderTimeout { key: &key, limit, hard: true });
        } else {
            self.observer.emit(|| Event::LoaderError { key: &key, error: &error });
        }
        let copy = ticket.flight().about.stale.as_ref().map(|(entry, _)| entry.clone());
        let stale = copy.and_then(|copy| self.keep_stale(&mut ticket, copy));
        ticket.land(Err(Failure { error, stale }));
    }

    /// Keeps the copy, and the key from being loaded for a while. `None` if there is nothing that
    /// may be served.
    fn keep_stale(&self, ticket: &mut Ticket<V>, copy: Entry<V>) -> Option<Entry<V>> {
        let key = Arc::clone(ticket.key());
        let now = self.now();
        let (stale, displaced) = ticket.amend(|| {
            // What another load has filled meanwhile is better, and stays.
            if let Some(current) = self.l1.peek(&key).filter(|current| current.is_fresh(now)) {
                return (current, None);
            }
            let throttled = copy.throttled(now, self.options.fail_safe.throttle);
            let displaced = copy.is_usable(now).then(|| self.l1.insert(&key, throttled));
            (copy, displaced)
        })?;
        if let Some(displaced) = displaced {
            self.let_go(displaced);
        }
        stale.is_usable(now).then_some(stale)
    }

    async fn follow(
        &self,
        key: &Arc<str>,
        follower: &Follower<About<V>, Landing<V>>,
        timeouts: &Timeouts,
    ) -> Result<Found<V>, Error> {
        self.wait(key, &follower.flight, Source::Joined, timeouts.soft, timeouts.hard).await
    }

    /// Waits for a flight, no longer than `soft` from its start if there is a stale copy, and no
    /// longer than `hard` from now. (The leader needs no `hard` here: its load has it.)
    async fn wait(
        &self,
        key: &Arc<str>,
        flight: &Flight<V>,
        source: Source,
        soft: Option<Duration>,
        hard: Option<Duration>,
    ) -> Result<Found<V>, Error> {
        if let Some(landed) = flight.landed() {
            return self.landed(key, source, landed);
        }
        let Some(_waiting) = Waiting::on(flight.about.node) else {
            return Err(Error::recursion(key));
        };
        // Timers need a runtime; without one, callers wait for the load itself.
        let timed = Handle::try_current().is_ok();
        let stale = flight.about.stale.as_ref().filter(|_| timed);
        let hard_at = hard.filter(|_| timed).and_then(|hard| Instant::now().checked_add(hard));
        if let Some((limit, (copy, began))) = soft.zip(stale)
            && let Some(soft_at) = began.checked_add(limit)
            && hard_at.is_none_or(|hard_at| soft_at < hard_at)
        {
            if let Ok(landed) = tokio::time::timeout_at(soft_at, flight.wait()).await {
                return self.landed(key, source, landed);
            }
            if !flight.about.reported_slow.swap(true, Ordering::Relaxed) {
                self.observer.emit(|| Event::LoaderTimeout { key, limit, hard: false });
            }
            if self.may_serve(key, flight, copy) {
                return Ok(self.serve_stale(
                    Arc::clone(key),
                    copy.clone(),
                    StaleReason::SoftTimeout,
                ));
            }
        }
        let Some((hard_at, limit)) = hard_at.zip(hard) else {
            return self.landed(key, source, flight.wait().await);
        };
        if let Ok(landed) = tokio::time::timeout_at(hard_at, flight.wait()).await {
            return self.landed(key, source, landed);
        }
        match stale {
            Some((copy, _)) if self.may_serve(key, flight, copy) => {
                Ok(self.serve_stale(Arc::clone(key), copy.clone(), StaleReason::HardTimeout))
            }
            _ => Err(Error::hard_timeout(key, limit)),
        }
    }

    /// Whether a flight's copy may be served while it flies: not expired, and not deleted since.
    fn may_serve(&self, key: &str, flight: &Flight<V>, copy: &Entry<V>) -> bool {
        copy.is_usable(self.now()) && self.flights.is_current(key, flight)
    }

    fn landed(
        &self,
        key: &Arc<str>,
        source: Source,
        landed: Option<Landing<V>>,
    ) -> Result<Found<V>, Error> {
        let key = Arc::clone(key);
        match landed {
            Some(Ok(value)) => Ok(Found { value, source, age: Duration::ZERO, stale: None, key }),
            Some(Err(Failure { error, stale: Some(copy) })) => {
                let reason = if error.kind() == ErrorKind::HardTimeout {
                    StaleReason::HardTimeout
                } else {
                    StaleReason::LoaderError
                };
                Ok(self.serve_stale(key, copy, reason))
            }
            Some(Err(Failure { error, stale: None })) => Err(error),
            None => Err(Error::abandoned(&key)),
        }
    }

    fn report_miss(&self, key: &str) {
        self.observer.count(Counter::Misses);
        self.observer.emit(|| Event::Miss { key });
    }

    fn report_negative_hit(&self, key: &str) {
        self.observer.count(Counter::NegativeHits);
        self.observer.emit(|| Event::Hit { key, level: Level::L1, negative: true });
    }
}

impl<V> Found<V> {
    fn new(key: Arc<str>, entry: Entry<V>) -> Self {
        Self {
            value: Some(entry.into_value()),
            source: Source::L1,
            age: Duration::ZERO,
            stale: None,
            key,
        }
    }

    pub(super) fn into_output<L: IntoLoaded<V>>(self) -> Result<L::Output, Error> {
        L::output(self.value).ok_or_else(|| Error::absent(&self.key))
    }

    pub(super) fn into_outcome<L: IntoLoaded<V>>(self) -> Result<Outcome<L::Output>, Error> {
        let Self { source, age, stale, .. } = self;
        Ok(Outcome { value: self.into_output::<L>()?, source, age, stale })
    }
}
