//! The flights and the tickets that are out, per key.

use std::{collections::HashMap, hash::BuildHasher};

use super::shared_result::Flight;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

/// Bounds on joining. A load that exceeds them is not refused; it just cannot be joined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A flight older than this, in milliseconds, is not joined any more.
    pub(crate) max_age: u64,
    /// The most flights that can be joined at a time; 0 turns joining off.
    pub(crate) max_flights: usize,
    /// The most followers of one flight.
    pub(crate) max_followers: usize,
}

/// `C` is what a flight knows from its start, `T` what it lands with.
pub(crate) struct FlightTable<C, T> {
    shards: Box<[Mutex<Shard<C, T>>]>,
    hasher: foldhash::fast::RandomState,
    limits: Limits,
    /// Flights that can be joined.
    joinable: AtomicUsize,
    /// Tickets that are out: loads that are running.
    tickets: AtomicUsize,
}

struct Shard<C, T> {
    keys: HashMap<Arc<str>, KeyState<C, T>, foldhash::fast::RandomState>,
    /// The number of the next ticket. Later tickets have higher numbers.
    next_ticket: u64,
}

struct KeyState<C, T> {
    /// The flight that callers join.
    joinable: Option<Joinable<C, T>>,
    /// Tickets below this have lost the right to publish, to a delete or to a later load.
    valid_from: u64,
    /// Tickets below this have lost it to a delete.
    deleted_below: u64,
    /// What loads below this took along as a copy is old: something was published or deleted.
    copies_from: u64,
    /// Tickets that are out for this key. The state is kept while there are any.
    tickets: usize,
}

struct Joinable<C, T> {
    flight: Arc<Flight<C, T>>,
    began: u64,
}

/// What became of a caller that has to wait for a value.
pub(crate) enum Join<C, T, H> {
    /// Its last look found what it needs after all.
    Found(H),
    /// It leads: others join its flight.
    Lead(Ticket<C, T>),
    /// It loads for itself, unseen by others: joining is off or full.
    Bypass(Ticket<C, T>),
    /// Another leads.
    Follow(Follower<C, T>),
}

/// The right to write one key's result, from a load's start on. Lost to any delete in between;
/// given back by dropping it, which also ends the flight for all who wait.
pub(crate) struct Ticket<C, T> {
    table: Arc<FlightTable<C, T>>,
    key: Arc<str>,
    flight: Arc<Flight<C, T>>,
    registered: bool,
}

/// What a load may still do when it has failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// No delete and no result of a later load has come.
    pub(crate) may_write: bool,
    /// Nor any result at all, since it took its copy along.
    pub(crate) copy_is_good: bool,
}

/// A caller's seat on the flight of another.
pub(crate) struct Follower<C, T> {
    pub(crate) flight: Arc<Flight<C, T>>,
}

impl<C, T> Drop for Follower<C, T> {
    fn drop(&mut self) {
        self.flight.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C, T> FlightTable<C, T> {
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        let shard =
            || Mutex::new(Shard { keys: HashMap::with_hasher(hasher.clone()), next_ticket: 0 });
        Self {
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
            hasher: hasher.clone(),
            limits,
            joinable: AtomicUsize::new(0),
            tickets: AtomicUsize::new(0),
        }
    }

    /// Joins the key's flight or begins one.
    ///
    /// `look` is the last look at the cache before a load: made under the lock under which fills
    /// are made, so that a value filled by a flight that has just ended is found, and a stale
    /// copy taken along by the new flight is one that no delete has removed.
    ///
    /// Without `may_join` the caller loads for itself.
    pub(crate) fn join<H>(
        self: &Arc<Self>,
        key: &Arc<str>,
        now: u64,
        may_join: bool,
        look: impl FnOnce() -> Result<C, H>,
    ) -> Join<C, T, H> {
        let mut bypass = !may_join || self.limits.max_flights == 0;
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        let open = shard.keys.get_mut(key).and_then(|state| state.joinable.as_ref());
        let has_place = open.is_some();
        if let Some(open) = open
            && !bypass
            && now.saturating_sub(open.began) <= self.limits.max_age
        {
            // mutant coalescing: if false
            if open.flight.follower_count() < self.limits.max_followers {
                open.flight.followers.fetch_add(1, Ordering::Relaxed);
                return Join::Follow(Follower { flight: Arc::clone(&open.flight) });
            }
            bypass = true;
        }
        let flight = match look() {
            Ok(about) => Arc::new(Flight::new(about, shard.next_ticket)),
            Err(found) => return Join::Found(found),
        };
        // A flight too old to be joined leaves its place to the one that takes over.
        bypass = bypass || !(has_place || self.take_place());
        let state = shard.register(key);
        let displaced = if bypass {
            None
        } else {
            let new = Joinable { flight: Arc::clone(&flight), began: now };
            state.joinable.replace(new)
        };
        drop(guard);
        drop(displaced);
        let ticket = self.issue(key, flight);
        if bypass { Join::Bypass(ticket) } else { Join::Lead(ticket) }
    }

    /// The right to write a key's value that is neither loaded nor to be joined: read from another
    /// level, or given.
    pub(crate) fn ticket(self: &Arc<Self>, key: &Arc<str>, about: C) -> Ticket<C, T> {
        let mut shard = self.shard(key).lock();
        let flight = Arc::new(Flight::new(about, shard.next_ticket));
        shard.register(key);
        drop(shard);
        self.issue(key, flight)
    }

    /// Takes the right to publish from every ticket that is out for the key, and runs `write`
    /// before any later ticket can publish.
    ///
    /// `write` runs under the lock and must not run user code; it returns what it displaced.
    pub(crate) fn invalidate<R>(&self, key: &str, write: impl FnOnce() -> R) -> R {
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        let ended = shard.keys.get_mut(key).and_then(|state| state.void_all(shard.next_ticket));
        let written = write();
        drop(guard);
        self.gave_up(ended);
        written
    }

    /// The same for every key that `matches`.
    pub(crate) fn invalidate_matching(&self, matches: impl Fn(&str) -> bool) {
        for shard in &self.shards {
            let mut ended = Vec::new();
            let mut guard = shard.lock();
            let shard = &mut *guard;
            for (key, state) in &mut shard.keys {
                if matches(key) {
                    ended.push(state.void_all(shard.next_ticket));
                }
            }
            drop(guard);
            ended.into_iter().for_each(|joinable| self.gave_up(joinable));
        }
    }

    /// Whether the copy that a flight took along is still the latest there is: nothing published,
    /// nothing deleted since.
    pub(crate) fn copy_is_good(&self, key: &str, flight: &Flight<C, T>) -> bool {
        let shard = self.shard(key).lock();
        shard.keys.get(key).is_some_and(|state| flight.ticket >= state.copies_from)
    }

    /// Which table this is, for as long as it lives.
    pub(crate) fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Returns once every caller that is between its last look and its ticket has the ticket.
    pub(crate) fn settle(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    /// Loads that are running.
    pub(crate) fn running(&self) -> usize {
        self.tickets.load(Ordering::Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below the length")]
    fn shard(&self, key: &str) -> &Mutex<Shard<C, T>> {
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[usize::try_from(hash).unwrap_or(0) % self.shards.len()]
    }

    fn issue(self: &Arc<Self>, key: &Arc<str>, flight: Arc<Flight<C, T>>) -> Ticket<C, T> {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        Ticket { table: Arc::clone(self), key: Arc::clone(key), flight, registered: true }
    }

    fn take_place(&self) -> bool {
        let before = self.joinable.fetch_add(1, Ordering::Relaxed);
        if before >= self.limits.max_flights {
            self.joinable.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Frees the place of a flight that nobody can join any more. Not to be called under a lock:
    /// the flight may die here, and with it values of the user.
    fn gave_up(&self, joinable: Option<Joinable<C, T>>) {
        if let Some(ended) = joinable {
            self.joinable.fetch_sub(1, Ordering::Relaxed);
            drop(ended);
        }
    }
}

impl<C, T> Shard<C, T> {
    /// Notes that the next ticket is out.
    fn register(&mut self, key: &Arc<str>) -> &mut KeyState<C, T> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        // What was taken along before there was this state is not known to be the latest.
        let none = KeyState {
            joinable: None,
            valid_from: 0,
            deleted_below: 0,
            copies_from: ticket,
            tickets: 0,
        };
        let state = self.keys.entry(Arc::clone(key)).or_insert(none);
        state.tickets += 1;
        state
    }
}

impl<C, T> KeyState<C, T> {
    /// Takes the right from every ticket that is out. Gives the flight that nobody joins now.
    fn void_all(&mut self, next_ticket: u64) -> Option<Joinable<C, T>> {
        self.valid_from = next_ticket;
        self.deleted_below = next_ticket;
        self.copies_from = next_ticket;
        // mutant detach: => None
        self.joinable.take()
    }
}

impl<C, T> Ticket<C, T> {
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(crate) fn flight(&self) -> &Arc<Flight<C, T>> {
        &self.flight
    }

    /// Writes a result, unless a delete or the result of a later load came before. Closes the
    /// flight to joiners in the same step, so that no caller finds neither flight nor value.
    ///
    /// `write` runs under the lock and must not run user code; it returns what it displaced.
    pub(crate) fn publish<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        let mut guard = self.table.shard(&self.key).lock();
        let shard = &mut *guard;
        let state = shard.keys.get_mut(&self.key)?;
        // mutant fence-publish: remove
        if self.flight.ticket < state.valid_from {
            return None;
        }
        state.valid_from = self.flight.ticket + 1;
        state.copies_from = shard.next_ticket;
        let ended = state.joinable.take_if(|open| open.flight.ticket == self.flight.ticket);
        let written = write();
        drop(guard);
        self.table.gave_up(ended);
        Some(written)
    }

    /// Writes what another level had: unless a delete came, or anything was published since this
    /// ticket was taken, for what is read is older than that. A load may still publish over it.
    /// Closes the flight to joiners.
    pub(crate) fn promote<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        // mutant fence-promote: s/(standing/(true || standing/
        self.amend(|standing| (standing.may_write && standing.copy_is_good).then(write))
    }

    /// Runs `write` in any case and tells it what this load may still do. What it writes is no
    /// result: a load begun earlier may still publish after it. Closes the flight to joiners.
    pub(crate) fn amend<R>(&mut self, write: impl FnOnce(Standing) -> R) -> R {
        let mut guard = self.table.shard(&self.key).lock();
        let mut standing = Standing { may_write: false, copy_is_good: false };
        let mut ended = None;
        if let Some(state) = guard.keys.get_mut(&self.key) {
            standing.may_write = self.flight.ticket >= state.valid_from;
            standing.copy_is_good = self.flight.ticket >= state.copies_from;
            ended = state.joinable.take_if(|open| open.flight.ticket == self.flight.ticket);
        }
        let written = write(standing);
        drop(guard);
        self.table.gave_up(ended);
        written
    }

    /// Writes what was not loaded but given: unless a delete came before, over any load, also one
    /// that began later, and takes the right from all that are running.
    pub(crate) fn overwrite<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        let mut guard = self.table.shard(&self.key).lock();
        let shard = &mut *guard;
        let state = shard.keys.get_mut(&self.key)?;
        // mutant fence-overwrite: remove
        if self.flight.ticket < state.deleted_below {
            return None;
        }
        let ended = state.void_all(shard.next_ticket);
        let written = write();
        drop(guard);
        self.table.gave_up(ended);
        Some(written)
    }

    /// Closes the flight to joiners. Those who come from now on look for themselves: to be called
    /// before the result is published where others can delete it. Says whether this load may
    /// still publish.
    pub(crate) fn seal(&mut self) -> bool {
        self.amend(|standing| standing.may_write)
    }

    /// Hands the result to all who wait.
    pub(crate) fn land(mut self, result: T) {
        self.give_back();
        self.flight.land(Some(result));
    }

    fn give_back(&mut self) {
        if !std::mem::take(&mut self.registered) {
            return;
        }
        let mut guard = self.table.shard(&self.key).lock();
        let mut ended = None;
        if let Some(state) = guard.keys.get_mut(&self.key) {
            ended = state.joinable.take_if(|open| open.flight.ticket == self.flight.ticket);
            state.tickets -= 1;
            if state.tickets == 0 {
                guard.keys.remove(&self.key);
            }
        }
        drop(guard);
        self.table.gave_up(ended);
        self.table.tickets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C, T> Drop for Ticket<C, T> {
    fn drop(&mut self) {
        self.give_back();
        self.flight.land(None);
    }
}
