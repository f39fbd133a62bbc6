//! The read path: L1, then a single flight to join or to lead, then its result.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    flight_context::{Flight, FlightContext, Follower, Lead, Waiter, Wanted},
    follow::{Patience, Resolved, Waited, Waits},
    load::{L2Rights, Load, start_load},
    outcome::{ReadResult, Source},
    state::CacheState,
};
use crate::{
    contain::QuietDrop,
    entry::Entry,
    error::{Cause, Error},
    flight::{Attempt, Join, LoadChain},
    load::{IntoLoaded, Loader},
    observe::{CallerSpan, Counter, Event, Level, StaleReason},
    options::CallOptions,
    resilience::task_tracker::TaskToken,
};

/// After this many joined flights whose result the caller's type or options exclude, the caller
/// bypasses the single flight and loads for itself. From the first one on it joins only flights
/// that cannot end so again.
const MAX_UNSUITABLE: usize = 3;

/// An answer that a caller finds in L1 just before it would load.
enum L1Answer<V> {
    Fresh(Entry<V>),
    /// Stale, and its last load failed a moment ago.
    Throttled(Entry<V>),
    /// The key is known not to exist.
    Missing,
}

/// The end of the attempts to join.
enum Joined<V> {
    Done(ReadResult<V>),
    /// The caller must run the load.
    Lead(Led<V>),
}

/// A flight that the caller leads.
struct Led<V> {
    lead: Lead<V>,
    token: Option<TaskToken>,
    /// The caller has waited for other flights before.
    has_waited: bool,
}

/// The end of one attempt to join.
enum Step<V> {
    Found(ReadResult<V>),
    Lead(Led<V>),
    /// The caller waits for this flight alone.
    Follow(Follower<V>),
    /// The caller waits for all of its flights, or for the next one.
    Wait(Option<Waiter<V>>),
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// The slow path of `get`: reads L2, and fills L1 with the value.
    pub(super) async fn get_slow(self: &Arc<Self>, key: Arc<str>) -> Option<Arc<V>> {
        self.ensure_bus_tasks();
        let value = self.get_l2(&key).await;
        if value.is_none() {
            self.report_miss(&key);
        }
        value
    }

    async fn get_l2(self: &Arc<Self>, key: &Arc<str>) -> Option<Arc<V>> {
        let l2 = self.l2.as_ref()?;
        // Issued before the read, so that a delete during the read revokes it; and before the cache
        // is seen to be open, so that `close` revokes it.
        let mut ticket = self.flights.ticket(key);
        self.check_open().ok()?;
        let fresh = l2.get(key).await?;
        let value = fresh.value.clone();
        self.promote(&mut ticket, fresh);
        Some(value.into_inner())
    }

    pub(super) async fn has(self: &Arc<Self>, key: &str) -> bool {
        let now = self.now();
        if self.l1.peek(key).is_some_and(|entry| self.is_served(&entry, now)) {
            return true;
        }
        let l2 = self.l2.as_ref().filter(|_| !self.is_known_missing(key, now));
        let Some(l2) = l2.filter(|_| self.check_open().is_ok()) else { return false };
        l2.get(key).await.is_some()
    }

    /// The slow path of `get_or_set`: joins the key's flight, or leads one and loads.
    pub(super) async fn get_or_load_slow<L: Loader<V>>(
        self: Arc<Self>,
        key: Arc<str>,
        loader: L,
        call: Option<Box<CallOptions>>,
    ) -> Result<ReadResult<V>, Error> {
        // A caller that joins drops its loader here.
        let loader = QuietDrop::new(loader);
        let wanted = Wanted {
            refresh: call.as_ref().is_some_and(|call| call.refresh),
            accepts_none: L::Loaded::output(None).is_some(),
        };
        let timeouts = self.options.load_timeouts(call.as_deref()).clone();
        let chain = LoadChain::extend(self.flights.id(), &key);
        let chain = chain.ok_or_else(|| Error::of_key(&key, Cause::Recursion))?;
        self.ensure_bus_tasks();
        let deadline = end_of(timeouts.hard);
        let mut waits = Waits::new();
        let mut patience = Patience { wanted, timeouts: &timeouts, deadline };
        let Led { lead, token, has_waited } =
            match self.join_loop(&key, &chain, &mut waits, patience).await? {
                Joined::Done(result) => return Ok(result),
                Joined::Lead(led) => led,
            };
        let flight = Arc::clone(lead.flight());
        let (depth, span) = (chain.depth, CallerSpan::current());
        let state = Arc::clone(&self);
        let load = Load { lead, loader, call, chain };
        let is_started = if self.l2.is_some() {
            start_load(span.around(state.load_via_l2(load)), token, depth)
        } else {
            self.report_miss(&key);
            let rights = L2Rights { lease: None, has_value: false, lock: None };
            start_load(span.around(state.run_loader(load, rights)), token, depth)
        };
        if !is_started {
            return Err(Error::of_key(&key, Cause::NoRuntime));
        }
        if let Some(result) = flight.try_result()
            && let Resolved::Answer(answer) = self.resolve(&key, result, None, wanted)
        {
            return answer;
        }
        // The loader enforces the hard timeout itself; L2 and the earlier flights do not.
        if self.l2.is_none() && !has_waited {
            patience.deadline = None;
        }
        if waits.is_empty()
            && patience.is_unlimited()
            && let Some(result) = self.await_led(&key, &flight).await?
            && let Resolved::Answer(answer) = self.resolve(&key, result, None, wanted)
        {
            return answer;
        }
        // Boxed, as the waits of followers are: the future of a miss that needs none stays small.
        Box::pin(self.await_own_flight(&key, flight, waits, patience)).await
    }

    async fn await_own_flight(
        &self,
        key: &Arc<str>,
        flight: Arc<Flight<V>>,
        mut waits: Waits<V>,
        patience: Patience<'_>,
    ) -> Result<ReadResult<V>, Error> {
        waits.lead(key, flight)?;
        loop {
            match self.await_flights(key, &mut waits, None, patience).await? {
                Waited::Answer(answer) => return Ok(answer),
                // Cannot be: the result of the flight that the caller leads is an answer.
                _ if waits.is_empty() => return Err(Error::of_key(key, Cause::Abandoned)),
                _ => {}
            }
        }
    }

    /// Joins flights until one has a result that the caller can use, or the caller has to lead.
    async fn join_loop(
        &self,
        key: &Arc<str>,
        chain: &Arc<LoadChain>,
        waits: &mut Waits<V>,
        patience: Patience<'_>,
    ) -> Result<Joined<V>, Error> {
        let mut attempt = Attempt::default();
        let mut has_waited = false;
        loop {
            let waiter = match self.join_once(key, chain, waits, patience, &mut attempt)? {
                Step::Found(answer) => return Ok(Joined::Done(answer)),
                Step::Lead(mut led) => {
                    led.has_waited = has_waited;
                    return Ok(Joined::Lead(led));
                }
                Step::Follow(follower) => {
                    has_waited = true;
                    match self.await_flight(key, &follower, patience.wanted, attempt.now).await? {
                        Some(Resolved::Answer(answer)) => return answer.map(Joined::Done),
                        Some(Resolved::Superseded) => continue,
                        Some(Resolved::Unsuitable) => {
                            waits.unsuitable += 1;
                            continue;
                        }
                        None => waits.follow(key, follower)?,
                    }
                    None
                }
                Step::Wait(waiter) => waiter,
            };
            has_waited = true;
            // mutant hard-timeout: => let deadline = end_of(patience.timeouts.hard);
            let deadline = patience.deadline;
            let patience = Patience { deadline, ..patience };
            match Box::pin(self.await_flights(key, waits, waiter.as_ref(), patience)).await? {
                Waited::Answer(answer) => return Ok(Joined::Done(answer)),
                Waited::Begun(follower) => self.follow(key, waits, follower)?,
                Waited::AskAgain => continue,
            }
            drop(waiter);
            if let Waited::Answer(answer) =
                Box::pin(self.await_flights(key, waits, None, patience)).await?
            {
                return Ok(Joined::Done(answer));
            }
        }
    }

    /// Joins a flight, adds one to `waits`, or finds that the caller has to lead one.
    #[inline]
    fn join_once(
        &self,
        key: &Arc<str>,
        chain: &Arc<LoadChain>,
        waits: &mut Waits<V>,
        patience: Patience<'_>,
        attempt: &mut Attempt,
    ) -> Result<Step<V>, Error> {
        let wanted = patience.wanted;
        let (mut token, mut unusable) = (None, None);
        let recheck = || {
            let context = self.recheck(key, chain, wanted, &mut unusable);
            // Under the lock too: `close` waits for every load that has started.
            token = context.is_ok().then(|| self.running.token());
            context
        };
        attempt.now = self.now();
        // A flight of the millisecond of a gap began after the gap, or was detached by it.
        attempt.floor = self.min_stored_at(attempt.now).saturating_sub(1);
        attempt.bypass = waits.unsuitable >= MAX_UNSUITABLE;
        let suits = |context: &FlightContext<V>| waits.unsuitable == 0 || context.suits(wanted);
        let joined = self.flights.join(key, attempt, suits, recheck);
        drop(unusable);
        Ok(match joined {
            Join::Found(answer) => Step::Found(self.serve_l1(key, answer?)),
            Join::Lead(lead) => Step::Lead(Led { lead, token, has_waited: false }),
            Join::Bypass(lead) => {
                self.observer.count(Counter::Bypassed);
                self.observer.emit(|| Event::InflightBypass { key });
                Step::Lead(Led { lead, token, has_waited: false })
            }
            Join::Follow(follower) if waits.is_empty() && patience.is_unlimited() => {
                self.report_joined(key);
                Step::Follow(follower)
            }
            Join::Follow(follower) => {
                self.follow(key, waits, follower)?;
                Step::Wait(None)
            }
            Join::Wait(next) => Step::Wait(Some(next)),
        })
    }

    fn follow(
        &self,
        key: &Arc<str>,
        waits: &mut Waits<V>,
        follower: Follower<V>,
    ) -> Result<(), Error> {
        self.report_joined(key);
        waits.follow(key, follower)
    }

    fn report_joined(&self, key: &str) {
        self.observer.count(Counter::Joined);
        self.observer.emit(|| Event::InflightReuse { key });
    }

    /// Reads L1 a last time before a load, under the lock under which L1 is filled. An error is the
    /// answer of the call, so that no flight starts.
    ///
    /// Reads the clock itself, so that an entry filled a moment ago is not from the future.
    fn recheck(
        &self,
        key: &str,
        chain: &LoadChain,
        wanted: Wanted,
        unusable: &mut Option<Entry<V>>,
    ) -> Result<FlightContext<V>, Result<L1Answer<V>, Error>> {
        // Under the lock, so that a load either sees the close or is revoked by it.
        self.check_open().map_err(Err)?;
        let now = self.now();
        match self.usable(key, now, unusable) {
            Some(entry) if !wanted.refresh && self.is_served(&entry, now) => {
                Err(Ok(L1Answer::Fresh(entry)))
            }
            Some(entry) if !wanted.refresh && entry.is_throttled(now) => {
                Err(Ok(L1Answer::Throttled(entry)))
            }
            None if !wanted.refresh && wanted.accepts_none && self.is_known_missing(key, now) => {
                Err(Ok(L1Answer::Missing))
            }
            stale => Ok(FlightContext::new(chain.id, wanted, stale)),
        }
    }

    fn serve_l1(&self, key: &Arc<str>, answer: L1Answer<V>) -> ReadResult<V> {
        match answer {
            L1Answer::Fresh(entry) => {
                self.report_hit(key, Level::L1, false);
                ReadResult::from_l1(Arc::clone(key), entry, self.now(), None)
            }
            L1Answer::Throttled(entry) => self.serve_stale(key, entry, StaleReason::Throttled),
            L1Answer::Missing => {
                self.report_hit(key, Level::L1, true);
                ReadResult::from_flight(Arc::clone(key), None, Source::L1)
            }
        }
    }
}

/// The end of a hard timeout that begins now.
fn end_of(hard: Option<Duration>) -> Option<Instant> {
    hard.and_then(|hard| Instant::now().checked_add(hard))
}
