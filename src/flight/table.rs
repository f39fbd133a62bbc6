//! Single flight with fencing tokens: lets a caller load a key, join a load, or wait for the next.
//!
//! At most two loads of a key that are younger than `max_age` run at a time. A caller that can join
//! neither waits for the next flight, which begins when one of the two ends and serves all that
//! wait. The two exceptions are callers above a [limit](Limits), which load for themselves.
//!
//! | the caller finds | it joins, if the load is not too old |
//! | --- | --- |
//! | a load that began after its call | in any case |
//! | a load that began before its call | unless the key was changed since, the load has ended, or what it read may be too old to be trusted |
//!
//! Alternatives considered: a load for each caller that finds no flight to join. Deletes that come
//! faster than a load takes then make every caller load at once. Or a follower that is handed the
//! lead: its task may not be polled for a while, and all others would wait for it. So every waiter
//! is woken, and the first that asks again leads.

use super::{
    key_states::{KeyState, KeyStates, Origin},
    shared_flight::{Flight, Follower, NextFlight},
    ticket::{Lead, Ticket},
};
use crate::sync::{Arc, Ordering};

/// Limits on joining. Above the last two a caller does not join: it loads for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Callers do not join a flight older than this, in milliseconds, and it does not count.
    pub(crate) max_age: u64,
    /// Maximum number of flights at a time that late callers can join; 0 turns joining off.
    pub(crate) max_flights: usize,
    /// Maximum number of followers of one flight, and of callers that wait for the next one.
    pub(crate) max_followers: usize,
}

/// All flights and issued tickets, by key. `C` is the context of a flight, known from its start;
/// `T` is its result.
pub(crate) struct FlightTable<C, T> {
    states: Arc<KeyStates<C, T>>,
    limits: Limits,
}

/// A caller's attempts to join a flight, from its first to its last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attempt {
    /// Flights with this ticket or a later one began after the call; set by the first attempt.
    since: Option<u64>,
    /// The time in milliseconds.
    pub(crate) now: u64,
    /// A flight that began before this time may have read values that are too old for the caller.
    pub(crate) floor: u64,
    /// The caller loads for itself.
    pub(crate) bypass: bool,
}

/// The role of a caller that has found no fresh value.
pub(crate) enum Join<C, T, H> {
    /// The recheck of L1 found an answer.
    Found(H),
    /// The caller leads a flight that others can join.
    Lead(Lead<C, T>),
    /// The caller loads for itself: joining is off or at a limit.
    Bypass(Lead<C, T>),
    /// The caller waits for the flight of another caller.
    Follow(Follower<C, T>),
    /// The caller waits for the next flight.
    Wait(Waiter<C, T>),
}

/// The loads of a key, and the role that a caller would have that begins now.
pub(crate) struct Survey {
    /// The age in milliseconds and the number of followers of each running load, in the order in
    /// which the loads began.
    pub(crate) loads: Vec<(u64, usize)>,
    /// Number of callers that wait for the next flight.
    pub(crate) waiting: usize,
    pub(crate) role: Role,
}

/// The role of a caller that finds nothing in L1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Follow,
    Wait,
    /// The caller leads a flight, or loads for itself.
    Lead,
}

/// A caller's place among those that wait for the next flight of a key.
pub(crate) struct Waiter<C, T> {
    states: Arc<KeyStates<C, T>>,
    key: Arc<str>,
    next: Arc<NextFlight<C, T>>,
    turns: usize,
    /// In milliseconds: then one of the running loads is too old to count, and the caller asks
    /// again.
    pub(crate) at_most: u64,
}

impl<C, T> FlightTable<C, T> {
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        Self { states: Arc::new(KeyStates::new(shards)), limits }
    }

    /// Joins a flight of the key, starts one, or waits for the next one. A flight that does not
    /// suit the caller is not joined.
    ///
    /// `recheck` reads L1 a last time before a load, under the lock under which L1 is filled. So it
    /// finds a value that a flight filled just before it ended, and the stale value that it returns
    /// for the new flight was not deleted before the flight started.
    pub(crate) fn join<H>(
        &self,
        key: &Arc<str>,
        attempt: &mut Attempt,
        suits: impl Fn(&C) -> bool,
        recheck: impl FnOnce() -> Result<C, H>,
    ) -> Join<C, T, H> {
        let Limits { max_age, max_flights, max_followers } = self.limits;
        let now = attempt.now;
        let mut bypass = attempt.bypass || max_flights == 0;
        let hash = self.states.hash(key);
        let mut guard = self.states.lock(hash);
        let shard = &mut *guard;
        let since = *attempt.since.get_or_insert(shard.next_ticket);
        let state = shard.keys.get_mut(hash, key);
        let found = state.as_ref().and_then(|state| self.find(state, since, attempt, suits));
        // mutant coalescing: remove
        if let Some((flight, is_late)) = found
            && !bypass
        {
            if let Some(follower) = Follower::join(flight, is_late, max_followers) {
                return Join::Follow(follower);
            }
            bypass = true;
        }
        let context = match recheck() {
            Ok(context) => context,
            Err(found) => return Join::Found(found),
        };
        let mut was_open = false;
        if let Some(state) = state {
            // mutant two-loads: s/>= 2/>= usize::MAX/
            if !bypass && state.young(now, max_age).count() >= 2 {
                if let Some(waiter) = self.wait(key, state, now) {
                    drop(guard);
                    // It may be the last owner of a user value.
                    drop(context);
                    return Join::Wait(waiter);
                }
                bypass = true;
            }
            was_open = state.is_open;
        }
        // The new flight takes the place of an open flight that is too old or does not suit.
        let is_open = !bypass && (was_open || self.states.acquire_place(max_flights));
        let (number, state) = shard.register(hash, key);
        let flight = Arc::new(Flight::new(context, number, now));
        let (mut displaced, next) = (None, state.next.take_if(|_| !bypass));
        if is_open || next.is_some() {
            displaced = state.add(&flight, max_age);
            state.is_open = is_open;
        }
        drop(guard);
        // Before foreign code runs: if that panics, the flight ends.
        let lead = Lead::new(Ticket::new(&self.states, hash, key, number), flight);
        // mutant later-load: remove
        if let Some(displaced) = &displaced {
            // Its leader may wait for a later load.
            displaced.wake_waiters();
        }
        drop(displaced);
        if let Some(next) = next {
            next.begin(Arc::clone(lead.flight()));
        }
        if is_open { Join::Lead(lead) } else { Join::Bypass(lead) }
    }

    /// Joins a flight that began after the one that the caller leads, and that would suit it: its
    /// own load has exceeded `max_age`.
    pub(crate) fn join_later(
        &self,
        key: &str,
        own: &Flight<C, T>,
        now: u64,
        suits: impl Fn(&C) -> bool,
    ) -> Option<Follower<C, T>> {
        let hash = self.states.hash(key);
        let shard = self.states.lock(hash);
        let attempt = Attempt { now, ..Attempt::default() };
        let (flight, _) = self.find(shard.keys.get(hash, key)?, own.ticket + 1, &attempt, suits)?;
        Follower::join(flight, false, self.limits.max_followers)
    }

    /// The flight to join, and whether the caller is late for it: it then has to hear whether the
    /// load was superseded. Of two, the one that a late caller may take for sure, or ends first.
    fn find<'a>(
        &self,
        state: &'a KeyState<C, T>,
        since: u64,
        attempt: &Attempt,
        suits: impl Fn(&C) -> bool,
    ) -> Option<(&'a Arc<Flight<C, T>>, bool)> {
        let mut young = state.young(attempt.now, self.limits.max_age);
        let timely = young.find(|flight| flight.ticket >= since && suits(&flight.context));
        if let Some(timely) = timely {
            return Some((timely, false));
        }
        let newest = state.newest.as_ref().filter(|_| state.is_open)?;
        // mutant flight-floor: s/>= attempt.floor/>= 0/
        let is_current = newest.began >= attempt.floor;
        let is_young = newest.age(attempt.now) <= self.limits.max_age;
        (is_current && is_young && suits(&newest.context)).then_some((newest, true))
    }

    /// Says what [`join`](Self::join) would do for a caller that begins now. Changes nothing.
    pub(crate) fn survey(&self, key: &str, now: u64, floor: u64) -> Survey {
        let Limits { max_age, max_flights, max_followers } = self.limits;
        let hash = self.states.hash(key);
        let shard = self.states.lock(hash);
        let mut survey = Survey { loads: Vec::new(), waiting: 0, role: Role::Lead };
        let Some(state) = shard.keys.get(hash, key) else { return survey };
        let loads = state.older.iter().chain(&state.newest);
        survey.loads = loads.map(|flight| (flight.age(now), flight.followers())).collect();
        let waiters = |next: &Arc<NextFlight<C, T>>| next.waiters.load(Ordering::Relaxed);
        survey.waiting = state.next.as_ref().map_or(0, waiters);
        let attempt = Attempt { now, floor, ..Attempt::default() };
        survey.role = match self.find(state, shard.next_ticket, &attempt, |_| true) {
            _ if max_flights == 0 => Role::Lead,
            Some((flight, _)) if flight.followers() < max_followers => Role::Follow,
            None if state.young(now, max_age).count() >= 2 && survey.waiting < max_followers => {
                Role::Wait
            }
            _ => Role::Lead,
        };
        survey
    }

    fn wait(&self, key: &Arc<str>, state: &mut KeyState<C, T>, now: u64) -> Option<Waiter<C, T>> {
        let Limits { max_age, max_followers, .. } = self.limits;
        let oldest = state.young(now, max_age).map(|flight| flight.age(now)).max().unwrap_or(0);
        let next = state.next.get_or_insert_with(|| Arc::new(NextFlight::new()));
        if next.waiters.load(Ordering::Relaxed) >= max_followers {
            return None;
        }
        next.waiters.fetch_add(1, Ordering::Relaxed);
        Some(Waiter {
            states: Arc::clone(&self.states),
            key: Arc::clone(key),
            next: Arc::clone(next),
            turns: next.turns(),
            at_most: (max_age - oldest).saturating_add(1),
        })
    }

    /// Issues the right to write a value that is not loaded: read from L2, received from a peer or
    /// passed to `set`.
    pub(crate) fn ticket(&self, key: &Arc<str>) -> Ticket<C, T> {
        let hash = self.states.hash(key);
        let (number, _) = self.states.lock(hash).register(hash, key);
        Ticket::new(&self.states, hash, key, number)
    }

    /// Revokes every issued ticket of the key, and runs `write` before a later ticket can publish.
    ///
    /// `write` runs under the lock and must not run user code; it returns the displaced values.
    pub(crate) fn invalidate<R>(&self, key: &str, by: Origin, write: impl FnOnce() -> R) -> R {
        let hash = self.states.hash(key);
        let mut guard = self.states.lock(hash);
        let shard = &mut *guard;
        let state = shard.keys.get_mut(hash, key);
        let revoked = state.map(|state| state.revoke_all(shard.next_ticket, by));
        let written = write();
        drop(guard);
        if let Some(revoked) = revoked {
            self.states.finish(revoked);
        }
        written
    }

    /// Revokes every issued ticket of every key that `matches`.
    pub(crate) fn invalidate_matching(&self, by: Origin, matches: impl Fn(&str) -> bool) {
        for mut guard in self.states.shards() {
            let mut revoked = Vec::new();
            let shard = &mut *guard;
            for state in shard.keys.matching(&matches) {
                revoked.push(state.revoke_all(shard.next_ticket, by));
            }
            drop(guard);
            revoked.into_iter().for_each(|revoked| self.states.finish(revoked));
        }
    }

    /// Whether the stale value of a flight is still the latest value: no value was published or
    /// deleted since the flight started.
    pub(crate) fn is_stale_valid(&self, key: &str, flight: &Flight<C, T>) -> bool {
        let hash = self.states.hash(key);
        let shard = self.states.lock(hash);
        shard.keys.get(hash, key).is_some_and(|state| flight.ticket >= state.stale_watermark)
    }

    /// Whether another load of the key runs beside this flight, which must be one that counts.
    pub(crate) fn is_one_of_two(&self, key: &str, flight: &Arc<Flight<C, T>>) -> bool {
        let hash = self.states.hash(key);
        let shard = self.states.lock(hash);
        let state = shard.keys.get(hash, key);
        state.and_then(|state| state.older.as_ref().zip(state.newest.as_ref())).is_some_and(
            |(older, newest)| Arc::ptr_eq(older, flight) || Arc::ptr_eq(newest, flight),
        )
    }

    /// The time in milliseconds until the flight is too old to be joined; `None` if it is so
    /// already.
    pub(crate) fn joinable_for(&self, flight: &Flight<C, T>, now: u64) -> Option<u64> {
        let left = self.limits.max_age.checked_sub(flight.age(now))?;
        Some(left.saturating_add(1))
    }

    /// The time in milliseconds until the flight has exceeded `max_age` twice over; `None` if it
    /// has done so already.
    pub(crate) fn doubly_joinable_for(&self, flight: &Flight<C, T>, now: u64) -> Option<u64> {
        let left = self.limits.max_age.saturating_mul(2).checked_sub(flight.age(now))?;
        Some(left.saturating_add(1))
    }

    /// Identifies the table while it lives.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.states).addr()
    }

    /// A barrier over all shards: returns once every caller that is between its recheck and its
    /// ticket has the ticket.
    pub(crate) fn barrier(&self) {
        self.states.shards().for_each(drop);
    }

    /// The number of running loads, and of writes that hold a ticket.
    pub(crate) fn running(&self) -> usize {
        self.states.tickets.load(Ordering::Relaxed)
    }
}

impl<C, T> Waiter<C, T> {
    /// Waits for the next flight; `None`: the caller has to ask again.
    pub(crate) async fn wait(&self) -> Option<Follower<C, T>> {
        self.next.wait(self.turns).await
    }
}

impl<C, T> Drop for Waiter<C, T> {
    fn drop(&mut self) {
        let hash = self.states.hash(&self.key);
        let mut guard = self.states.lock(hash);
        let is_last = self.next.waiters.fetch_sub(1, Ordering::Relaxed) == 1;
        let unused = guard.keys.release(hash, &self.key, |state| {
            let is_its = |next: &mut Arc<NextFlight<C, T>>| Arc::ptr_eq(next, &self.next);
            if is_last {
                state.next.take_if(is_its);
            }
        });
        drop(guard);
        drop(unused);
    }
}
