//! Waiting for flights: callers wait for a result, or until a timeout and a stale entry to serve
//! instead.
//!
//! Most callers wait for one flight, without a timeout (`flight_watch.rs`). The others wait here.
//!
//! If the load of a flight exceeds `inflight.ttl`, the caller waits for a later one beside it, and
//! takes the first result that it can use: so no caller waits for ever for a load that hangs. A
//! follower begins that later load, if no other caller does. The leader cannot, for its loader is
//! used up; it gives its own load twice that time, and is woken when another caller begins one.
//!
//! The soft timeout counts from the start of the newest of these flights, and applies while a stale
//! entry is at hand; the hard timeout counts from the start of the call. One timer is armed at a
//! time, for the earliest of these moments.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{
    flight_context::{
        Flight, FlightContext, FlightResult, Follower, LoadErr, LoadOk, Waiter, Wanted,
    },
    outcome::{ReadResult, Source},
    state::CacheState,
};
use crate::{
    entry::Entry,
    error::{Cause, Error, ErrorKind},
    flight::{Wait, WaitEdge},
    observe::{Event, StaleReason},
    options::Timeouts,
    resilience::timeout,
};

/// How often a leader whose load has exceeded `inflight.ttl` twice over looks for a later load, in
/// milliseconds.
const LATER_LOAD_CHECK: u64 = 1_000;

/// How a caller waits.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    pub(super) wanted: Wanted,
    pub(super) timeouts: &'a Timeouts,
    /// The end of the hard timeout, if it is to be enforced here.
    pub(super) deadline: Option<Instant>,
}

impl Patience<'_> {
    /// Whether the caller waits for as long as a load may take.
    pub(super) fn is_unlimited(&self) -> bool {
        self.timeouts.soft.is_none() && self.deadline.is_none()
    }
}

/// The end of a wait.
pub(super) enum Waited<V> {
    Answer(ReadResult<V>),
    /// The next flight has begun.
    Begun(Follower<V>),
    /// The caller has to join another flight, or to lead one.
    AskAgain,
}

/// The flights that a caller waits for, in the order in which they began: usually one, which costs
/// no allocation.
pub(super) struct Waits<V> {
    first: Option<Awaited<V>>,
    later: Vec<Awaited<V>>,
    /// Since when the caller waits.
    since: Option<Instant>,
    /// How many results the caller could not use, because of the type or the option of its call.
    pub(super) unsuitable: usize,
}

struct Awaited<V> {
    flight: Arc<Flight<V>>,
    /// `None`: the caller leads the flight.
    follower: Option<Follower<V>>,
    result: Wait<Flight<V>, FlightResult<V>>,
    _edge: WaitEdge,
}

/// Records that the caller waits for a flight.
///
/// # Errors
///
/// The caller is a loader for which the flight's own loader waits.
pub(super) fn wait_edge<V>(key: &Arc<str>, flight: &Flight<V>) -> Result<WaitEdge, Error> {
    WaitEdge::add(flight.context.id).ok_or_else(|| Error::of_key(key, Cause::Recursion))
}

impl<V> Waits<V> {
    pub(super) fn new() -> Self {
        Self { first: None, later: Vec::new(), since: None, unsuitable: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.later.is_empty()
    }

    pub(super) fn follow(&mut self, key: &Arc<str>, follower: Follower<V>) -> Result<(), Error> {
        self.add(key, Arc::clone(&follower.flight), Some(follower))
    }

    /// Waits for the flight that the caller leads.
    pub(super) fn lead(&mut self, key: &Arc<str>, flight: Arc<Flight<V>>) -> Result<(), Error> {
        self.add(key, flight, None)
    }

    fn add(
        &mut self,
        key: &Arc<str>,
        flight: Arc<Flight<V>>,
        follower: Option<Follower<V>>,
    ) -> Result<(), Error> {
        let edge = wait_edge(key, &flight)?;
        let result = Arc::clone(&flight).wait();
        let awaited = Awaited { flight, follower, result, _edge: edge };
        match self.is_empty() {
            true => self.first = Some(awaited),
            false => self.later.push(awaited),
        }
        Ok(())
    }

    /// The flight that the caller leads, and whose loader it has used up.
    fn own(&self) -> Option<Arc<Flight<V>>> {
        let own = self.first.iter().chain(&self.later).find(|it| it.follower.is_none());
        own.map(|it| Arc::clone(&it.flight))
    }

    fn newest(&self) -> Option<&Arc<Flight<V>>> {
        self.later.last().or(self.first.as_ref()).map(|it| &it.flight)
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Waits for a result that the caller can use; or, with a `waiter`, until the next flight has
    /// begun.
    pub(super) async fn await_flights(
        &self,
        key: &Arc<str>,
        waits: &mut Waits<V>,
        waiter: Option<&Waiter<V>>,
        patience: Patience<'_>,
    ) -> Result<Waited<V>, Error> {
        let Patience { wanted, timeouts, deadline } = patience;
        let since = *waits.since.get_or_insert_with(Instant::now);
        let mut begun = pin!(async {
            match waiter {
                Some(waiter) => waiter.wait().await,
                None => std::future::pending().await,
            }
        });
        loop {
            let now = self.now();
            if waiter.is_none()
                && let Some(waited) = self.look_for_later(key, waits, wanted, now)?
            {
                return Ok(waited);
            }
            let newest = waits.newest().cloned();
            let age = newest.as_ref().map(|it| Duration::from_millis(it.age(now)));
            let age = age.unwrap_or_else(|| since.elapsed());
            let soft = timeouts.soft.map(|soft| soft.saturating_sub(age));
            let hard = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let slow = timeouts.soft.filter(|_| soft.is_some_and(|left| left.is_zero()));
            let too_old = match (waiter, &newest) {
                (Some(waiter), _) => Some(waiter.at_most),
                (None, Some(newest)) => {
                    let own_is_late = || self.flights.doubly_joinable_for(newest, now);
                    let joinable = self.flights.joinable_for(newest, now);
                    joinable.or_else(own_is_late)
                }
                (None, None) => return Ok(Waited::AskAgain),
            };
            let soft = soft.filter(|left| !left.is_zero());
            let check = Duration::from_millis(too_old.unwrap_or(LATER_LOAD_CHECK));
            let limits = [soft, hard, Some(check)];
            let mut is_woken = false;
            let poll = poll_fn(|context| {
                let answer = self.poll_waits(key, waits, wanted, waiter.is_some(), context);
                if answer.is_ready() {
                    return answer.map(Some);
                }
                if let Poll::Ready(begun) = begun.as_mut().poll(context) {
                    return Poll::Ready(Some(Ok(begun.map_or(Waited::AskAgain, Waited::Begun))));
                }
                let stale = slow.and_then(|limit| self.soft_answer(key, newest.as_deref(), limit));
                if let Some(stale) = stale {
                    return Poll::Ready(Some(Ok(Waited::Answer(stale))));
                }
                // A later load may have begun.
                let looks = std::mem::replace(&mut is_woken, true) && too_old.is_none();
                if looks { Poll::Ready(None) } else { Poll::Pending }
            });
            let waited = timeout(limits.into_iter().flatten().min(), poll).await;
            if let Ok(Some(waited)) = waited {
                return waited;
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                // The result and the timeout may come at the same moment.
                let last = poll_fn(|context| {
                    Poll::Ready(self.poll_waits(key, waits, wanted, waiter.is_some(), context))
                });
                if let Poll::Ready(answer @ (Ok(Waited::Answer(_)) | Err(_))) = last.await {
                    return answer;
                }
                let limit = timeouts.hard.unwrap_or_default();
                let entry = self.stale_now(key, newest.as_deref());
                let entry = entry.ok_or_else(|| Error::of_key(key, Cause::HardTimeout(limit)))?;
                let stale = self.serve_stale(key, entry, StaleReason::HardTimeout);
                return Ok(Waited::Answer(stale));
            }
            if waiter.is_some() {
                // Its time is over, or the soft timeout: a caller that asks again loses nothing.
                return Ok(Waited::AskAgain);
            }
        }
    }

    /// Looks for a later flight if the newest of the caller's is too old to be joined. A follower
    /// asks again, and may lead it.
    fn look_for_later(
        &self,
        key: &Arc<str>,
        waits: &mut Waits<V>,
        wanted: Wanted,
        now: u64,
    ) -> Result<Option<Waited<V>>, Error> {
        let newest = waits.newest().filter(|it| self.flights.joinable_for(it, now).is_none());
        let Some(newest) = newest.cloned() else { return Ok(None) };
        let Some(own) = waits.own() else { return Ok(Some(Waited::AskAgain)) };
        if self.flights.doubly_joinable_for(&newest, now).is_some() {
            return Ok(None);
        }
        Ok(self.join_later(key, &own, waits, wanted)?.map(Waited::Answer))
    }

    /// The caller leads a load that has exceeded `inflight.ttl` twice over, and has no other
    /// loader: a later load serves it, if there is one.
    fn join_later(
        &self,
        key: &Arc<str>,
        own: &Flight<V>,
        waits: &mut Waits<V>,
        wanted: Wanted,
    ) -> Result<Option<ReadResult<V>>, Error> {
        let cached = if wanted.refresh { None } else { self.l1_result(key, wanted.accepts_none) };
        if cached.is_none() {
            let suits = |context: &FlightContext<V>| context.suits(wanted);
            let later = self.flights.join_later(key, own, self.now(), suits);
            if let Some(later) = later {
                waits.follow(key, later)?;
            }
        }
        Ok(cached)
    }

    /// Returns the first result that the caller can use, and forgets those that it cannot use. If
    /// the newest flight is one of these, the caller has to ask again, unless it is `waiting` for
    /// the next: the flights left, if any, are too old.
    fn poll_waits(
        &self,
        key: &Arc<str>,
        waits: &mut Waits<V>,
        wanted: Wanted,
        waiting: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Waited<V>, Error>> {
        let newest = waits.newest().map(|it| it.ticket);
        let mut answer = None;
        let mut unsuitable = 0;
        let mut is_kept = |awaited: &mut Awaited<V>| {
            if answer.is_some() {
                return true;
            }
            let Poll::Ready(result) = Pin::new(&mut awaited.result).poll(context) else {
                return true;
            };
            let is_late = awaited.follower.as_ref().map(|follower| follower.is_late);
            match self.resolve(key, result, is_late, wanted) {
                Resolved::Answer(it) => answer = Some(it),
                Resolved::Unsuitable => unsuitable += 1,
                Resolved::Superseded => {}
            }
            false
        };
        drop(waits.first.take_if(|it| !is_kept(it)));
        waits.later.retain_mut(is_kept);
        waits.unsuitable += unsuitable;
        match answer {
            Some(answer) => Poll::Ready(answer.map(Waited::Answer)),
            None if !waiting && waits.newest().map(|it| it.ticket) != newest => {
                Poll::Ready(Ok(Waited::AskAgain))
            }
            None => Poll::Pending,
        }
    }

    fn stale_now(&self, key: &str, flight: Option<&Flight<V>>) -> Option<Entry<V>> {
        match flight {
            Some(flight) => self.stale_candidate(key, flight),
            None => self.usable(key, self.now(), &mut None),
        }
    }

    /// The answer of a caller that is past its soft timeout, if there is a stale entry: the leader
    /// may attach one later, and then wakes the callers.
    fn soft_answer(
        &self,
        key: &Arc<str>,
        flight: Option<&Flight<V>>,
        limit: Duration,
    ) -> Option<ReadResult<V>> {
        let entry = self.stale_now(key, flight)?;
        let reported = flight.map(|flight| &flight.context.reported_slow);
        if reported.is_none_or(|reported| !reported.swap(true, Ordering::Relaxed)) {
            self.observer.emit(|| Event::LoaderTimeout { key, limit, hard: false });
        }
        Some(self.serve_stale(key, entry, StaleReason::SoftTimeout))
    }

    /// Turns the result of a flight into the answer of one caller. `is_late`: see
    /// [`Follower`](crate::flight::Follower); `None`: the caller is the leader.
    pub(super) fn resolve(
        &self,
        key: &Arc<str>,
        result: Option<FlightResult<V>>,
        is_late: Option<bool>,
        wanted: Wanted,
    ) -> Resolved<V> {
        let is_superseded = match &result {
            Some(Ok(loaded)) => loaded.is_superseded,
            Some(Err(failed)) => failed.is_superseded,
            // The load was dropped, for example with its runtime.
            None => true,
        };
        // mutant refused-followers: s/is_late == Some(true)/false/
        if is_superseded && (is_late == Some(true) || is_late.is_some() && result.is_none()) {
            return Resolved::Superseded;
        }
        Resolved::Answer(match result {
            Some(Ok(LoadOk { value, from_l2, .. })) => {
                let is_usable =
                    (value.is_some() || wanted.accepts_none) && !(from_l2 && wanted.refresh);
                if is_late.is_some() && !is_usable {
                    return Resolved::Unsuitable;
                }
                let source = match is_late {
                    _ if from_l2 => Source::L2,
                    None => Source::Loader,
                    Some(_) => Source::Joined,
                };
                Ok(ReadResult::from_flight(Arc::clone(key), value, source))
            }
            Some(Err(LoadErr { error, fallback, .. })) => {
                // The caller may poll late, when the stale window of the entry has passed.
                match fallback.filter(|entry| entry.is_usable(self.now())) {
                    None => Err(error),
                    Some(entry) => {
                        let reason = match error.kind() {
                            ErrorKind::HardTimeout => StaleReason::HardTimeout,
                            ErrorKind::LockTimeout => StaleReason::LockTimeout,
                            _ => StaleReason::LoaderError,
                        };
                        Ok(self.serve_stale(key, entry, reason))
                    }
                }
            }
            None => Err(match Handle::try_current() {
                Ok(_) => Error::of_key(key, Cause::Abandoned),
                Err(_) => Error::of_key(key, Cause::NoRuntime),
            }),
        })
    }
}

/// What the result of a flight is for one caller.
pub(super) enum Resolved<V> {
    Answer(Result<ReadResult<V>, Error>),
    /// The caller's type or its options exclude the result.
    Unsuitable,
    /// The caller needs the result of a load that began later.
    Superseded,
}
