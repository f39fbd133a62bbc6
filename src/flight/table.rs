//! Single flight with fencing tokens: the flights and the issued tickets of each key.

use std::{collections::HashMap, hash::BuildHasher};

use super::shared_result::Flight;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

/// Limits on joining. Above a limit a caller does not join: it loads for itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Callers do not join a flight older than this, in milliseconds.
    pub(crate) max_age: u64,
    /// Maximum number of joinable flights at a time; 0 turns joining off.
    pub(crate) max_flights: usize,
    /// Maximum number of followers of one flight.
    pub(crate) max_followers: usize,
}

/// All joinable flights and issued tickets, by key. `C` is the context of a flight, known from its
/// start; `T` is its result.
pub(crate) struct FlightTable<C, T> {
    shards: Box<[Mutex<Shard<C, T>>]>,
    hasher: foldhash::fast::RandomState,
    limits: Limits,
    /// Number of joinable flights.
    joinable: AtomicUsize,
    /// Number of issued tickets.
    tickets: AtomicUsize,
}

struct Shard<C, T> {
    keys: HashMap<Arc<str>, KeyState<C, T>, foldhash::fast::RandomState>,
    /// The number of the next ticket. Later tickets have higher numbers.
    next_ticket: u64,
}

struct KeyState<C, T> {
    /// The flight that callers join.
    joinable: Option<Arc<Flight<C, T>>>,
    /// A ticket below this may not publish: the key was deleted or `set`, or a later load has
    /// published.
    publish_watermark: u64,
    /// A ticket below this may not overwrite: the key was deleted or `set`.
    delete_watermark: u64,
    /// A flight whose ticket is below this may not serve its stale value: a value was published
    /// or deleted since.
    stale_watermark: u64,
    /// Number of issued tickets of this key. At 0 the table drops the state.
    tickets: usize,
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
}

/// A fencing token: the right to write the value of one key, held from before the value is read or
/// loaded until after it is written. A later delete revokes it.
pub(crate) struct Ticket<C, T> {
    table: Arc<FlightTable<C, T>>,
    key: Arc<str>,
    number: u64,
}

/// The leader's part of a flight: its ticket, and the duty to complete the flight. A dropped `Lead`
/// completes the flight without a result.
pub(crate) struct Lead<C, T> {
    /// Dropped before `flight` is completed, so that a follower that then loads for itself does not
    /// find the ended flight in the table.
    pub(crate) ticket: Ticket<C, T>,
    flight: CompleteOnDrop<C, T>,
}

struct CompleteOnDrop<C, T>(Arc<Flight<C, T>>);

/// The rights that a load has left after it failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TicketValidity {
    /// Since the ticket was issued, the key was not deleted or `set`, and no later load has
    /// published.
    pub(crate) may_write: bool,
    /// Since the ticket was issued, no value was published or deleted at all.
    pub(crate) stale_valid: bool,
}

/// A caller's place on the flight of another caller.
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

    /// Joins the key's flight or starts one. Without `may_join` the caller loads for itself.
    ///
    /// `recheck` reads L1 a last time before a load, under the lock under which L1 is filled. So it
    /// finds a value that a flight filled just before it ended, and the stale value that it returns
    /// for the new flight was not deleted before the flight started.
    pub(crate) fn join<H>(
        self: &Arc<Self>,
        key: &Arc<str>,
        now: u64,
        may_join: bool,
        recheck: impl FnOnce() -> Result<C, H>,
    ) -> Join<C, T, H> {
        let mut bypass = !may_join || self.limits.max_flights == 0;
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        let open = shard.keys.get_mut(key).and_then(|state| state.joinable.as_ref());
        let has_slot = open.is_some();
        // mutant coalescing: remove
        if let Some(open) = open
            && !bypass
            && now.saturating_sub(open.began) <= self.limits.max_age
        {
            if open.followers.load(Ordering::Relaxed) < self.limits.max_followers {
                open.followers.fetch_add(1, Ordering::Relaxed);
                return Join::Follow(Follower { flight: Arc::clone(open) });
            }
            bypass = true;
        }
        let context = match recheck() {
            Ok(context) => context,
            Err(found) => return Join::Found(found),
        };
        // A flight that is too old to be joined leaves its slot to the new one.
        bypass = bypass || !(has_slot || self.acquire_slot());
        let (number, state) = shard.register(key);
        let flight = Arc::new(Flight::new(context, number, now));
        let displaced = if bypass { None } else { state.joinable.replace(Arc::clone(&flight)) };
        drop(guard);
        drop(displaced);
        let ticket = self.issue(key, number);
        let lead = Lead { ticket, flight: CompleteOnDrop(flight) };
        if bypass { Join::Bypass(lead) } else { Join::Lead(lead) }
    }

    /// Issues the right to write a value that is not loaded: read from L2, received from a peer or
    /// passed to `set`.
    pub(crate) fn ticket(self: &Arc<Self>, key: &Arc<str>) -> Ticket<C, T> {
        let (number, _) = self.shard(key).lock().register(key);
        self.issue(key, number)
    }

    /// Revokes every issued ticket of the key, and runs `write` before a later ticket can publish.
    ///
    /// `write` runs under the lock and must not run user code; it returns the displaced values.
    pub(crate) fn invalidate<R>(&self, key: &str, write: impl FnOnce() -> R) -> R {
        let mut guard = self.shard(key).lock();
        let shard = &mut *guard;
        let ended = shard.keys.get_mut(key).and_then(|state| state.revoke_all(shard.next_ticket));
        let written = write();
        drop(guard);
        self.release_slot(ended);
        written
    }

    /// Revokes every issued ticket of every key that `matches`.
    pub(crate) fn invalidate_matching(&self, matches: impl Fn(&str) -> bool) {
        for shard in &self.shards {
            let mut ended = Vec::new();
            let mut guard = shard.lock();
            let shard = &mut *guard;
            for (key, state) in &mut shard.keys {
                if matches(key) {
                    ended.push(state.revoke_all(shard.next_ticket));
                }
            }
            drop(guard);
            ended.into_iter().for_each(|joinable| self.release_slot(joinable));
        }
    }

    /// Whether the stale value of a flight is still the latest value: no value was published or
    /// deleted since the flight started.
    pub(crate) fn is_stale_valid(&self, key: &str, flight: &Flight<C, T>) -> bool {
        let shard = self.shard(key).lock();
        shard.keys.get(key).is_some_and(|state| flight.ticket >= state.stale_watermark)
    }

    /// Identifies the table while it lives.
    pub(crate) fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// A barrier over all shards: returns once every caller that is between its recheck and its
    /// ticket has the ticket.
    pub(crate) fn barrier(&self) {
        for shard in &self.shards {
            drop(shard.lock());
        }
    }

    /// The number of running loads, and of writes that hold a ticket.
    pub(crate) fn running(&self) -> usize {
        self.tickets.load(Ordering::Relaxed)
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder is below the length")]
    fn shard(&self, key: &str) -> &Mutex<Shard<C, T>> {
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[usize::try_from(hash).unwrap_or(0) % self.shards.len()]
    }

    fn issue(self: &Arc<Self>, key: &Arc<str>, number: u64) -> Ticket<C, T> {
        self.tickets.fetch_add(1, Ordering::Relaxed);
        Ticket { table: Arc::clone(self), key: Arc::clone(key), number }
    }

    fn acquire_slot(&self) -> bool {
        let is_free = self.joinable.fetch_add(1, Ordering::Relaxed) < self.limits.max_flights;
        if !is_free {
            self.joinable.fetch_sub(1, Ordering::Relaxed);
        }
        is_free
    }

    /// Frees the slot of a closed flight. Must not run under a lock: it may drop user values.
    fn release_slot(&self, joinable: Option<Arc<Flight<C, T>>>) {
        if let Some(ended) = joinable {
            self.joinable.fetch_sub(1, Ordering::Relaxed);
            drop(ended);
        }
    }
}

impl<C, T> Shard<C, T> {
    /// Registers the next ticket of a key and returns its number.
    fn register(&mut self, key: &Arc<str>) -> (u64, &mut KeyState<C, T>) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        // Without state there is no record of earlier writes, so no earlier stale value is valid.
        let none = KeyState {
            joinable: None,
            publish_watermark: 0,
            delete_watermark: 0,
            stale_watermark: number,
            tickets: 0,
        };
        let state = self.keys.entry(Arc::clone(key)).or_insert(none);
        state.tickets += 1;
        (number, state)
    }
}

impl<C, T> KeyState<C, T> {
    /// Revokes every issued ticket. Returns the flight that callers now cannot join any more.
    fn revoke_all(&mut self, next_ticket: u64) -> Option<Arc<Flight<C, T>>> {
        self.publish_watermark = next_ticket;
        self.delete_watermark = next_ticket;
        self.stale_watermark = next_ticket;
        // mutant detach: => None
        self.joinable.take()
    }

    /// Closes the flight of this ticket to joiners, if the ticket has one.
    fn close_flight(&mut self, number: u64) -> Option<Arc<Flight<C, T>>> {
        self.joinable.take_if(|open| open.ticket == number)
    }
}

impl<C, T> Ticket<C, T> {
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Writes the result of a load, unless the key was deleted or a later load has published.
    /// Closes the flight to joiners under the same lock, so that every caller finds either the
    /// flight or the value.
    ///
    /// `write` runs under the lock and must not run user code; it returns the displaced values.
    pub(crate) fn publish<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        let mut guard = self.table.shard(&self.key).lock();
        let shard = &mut *guard;
        let state = shard.keys.get_mut(&self.key)?;
        // mutant fence-publish: remove
        if self.number < state.publish_watermark {
            return None;
        }
        state.publish_watermark = self.number + 1;
        state.stale_watermark = shard.next_ticket;
        let ended = state.close_flight(self.number);
        let written = write();
        drop(guard);
        self.table.release_slot(ended);
        Some(written)
    }

    /// Writes a value that was read from L2, unless a value was published or deleted since the
    /// ticket was issued: then the read value may be older. A running load may publish over it.
    /// Closes the flight to joiners.
    pub(crate) fn promote<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        // mutant fence-promote: s/(validity/(true || validity/
        self.with_validity(|validity| (validity.may_write && validity.stale_valid).then(write))
    }

    /// Runs `write` under the lock with the rights that the ticket has left. The written value is
    /// no result: an earlier load may still publish over it. Closes the flight to joiners.
    pub(crate) fn with_validity<R>(&mut self, write: impl FnOnce(TicketValidity) -> R) -> R {
        let mut guard = self.table.shard(&self.key).lock();
        let mut validity = TicketValidity { may_write: false, stale_valid: false };
        let mut ended = None;
        if let Some(state) = guard.keys.get_mut(&self.key) {
            validity.may_write = self.number >= state.publish_watermark;
            validity.stale_valid = self.number >= state.stale_watermark;
            ended = state.close_flight(self.number);
        }
        let written = write(validity);
        drop(guard);
        self.table.release_slot(ended);
        written
    }

    /// Writes a value that was passed to `set`, unless the key was deleted or `set` since the
    /// ticket was issued. Writes also over the result of a later load, and revokes all running
    /// loads.
    pub(crate) fn overwrite<R>(&mut self, write: impl FnOnce() -> R) -> Option<R> {
        let mut guard = self.table.shard(&self.key).lock();
        let shard = &mut *guard;
        let state = shard.keys.get_mut(&self.key)?;
        // mutant fence-overwrite: remove
        if self.number < state.delete_watermark {
            return None;
        }
        let ended = state.revoke_all(shard.next_ticket);
        let written = write();
        drop(guard);
        self.table.release_slot(ended);
        Some(written)
    }

    /// Closes the flight to joiners: later callers read L1 and L2 themselves. The leader calls it
    /// before it publishes the result in L2, where a peer can delete it. Returns whether the load
    /// may still publish.
    pub(crate) fn seal(&mut self) -> bool {
        self.with_validity(|validity| validity.may_write)
    }
}

impl<C, T> Drop for Ticket<C, T> {
    fn drop(&mut self) {
        let mut guard = self.table.shard(&self.key).lock();
        let mut ended = None;
        if let Some(state) = guard.keys.get_mut(&self.key) {
            ended = state.close_flight(self.number);
            state.tickets -= 1;
            if state.tickets == 0 {
                guard.keys.remove(&self.key);
            }
        }
        drop(guard);
        self.table.release_slot(ended);
        self.table.tickets.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C, T> Lead<C, T> {
    pub(crate) fn flight(&self) -> &Arc<Flight<C, T>> {
        &self.flight.0
    }

    /// Returns the ticket and hands the result to all waiting callers.
    pub(crate) fn complete(self, result: T) {
        let Self { ticket, flight } = self;
        drop(ticket);
        flight.0.complete(Some(result));
    }
}

impl<C, T> Drop for CompleteOnDrop<C, T> {
    fn drop(&mut self) {
        self.0.complete(None);
    }
}
