//! What the flight table keeps of each key: running loads, watermarks, and the number of tickets.

use std::hash::BuildHasher;

use hashbrown::{HashTable, hash_table::Entry};

use super::shared_flight::{Flight, NextFlight};
use crate::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering};

/// The states of all keys with issued tickets, in shards.
pub(super) struct KeyStates<C, T> {
    shards: Box<[Mutex<Shard<C, T>>]>,
    hasher: foldhash::fast::RandomState,
    /// Number of flights that late callers can join.
    open: AtomicUsize,
    /// Number of issued tickets.
    pub(super) tickets: AtomicUsize,
}

pub(super) struct Shard<C, T> {
    pub(super) keys: StatesByKey<C, T>,
    /// The number of the next ticket. Later tickets have higher numbers.
    pub(super) next_ticket: u64,
}

/// The hash of a key. A ticket keeps it: it serves to find the shard and the place in it.
#[derive(Clone, Copy)]
pub(super) struct KeyHash(u64);

pub(super) struct StatesByKey<C, T>(HashTable<KeyState<C, T>>);

pub(super) struct KeyState<C, T> {
    key: Arc<str>,
    hash: KeyHash,
    /// The loads that run, without those that exceeded `max_age` and were displaced by a newer one.
    pub(super) newest: Option<Arc<Flight<C, T>>>,
    pub(super) older: Option<Arc<Flight<C, T>>>,
    /// Whether callers that began after `newest` may join it.
    pub(super) is_open: bool,
    pub(super) next: Option<Arc<NextFlight<C, T>>>,
    /// A ticket below this may not publish: the key was deleted or `set`, or a later load has
    /// published.
    pub(super) publish_watermark: u64,
    /// A ticket below this may not overwrite: the key was deleted or `set`.
    pub(super) delete_watermark: u64,
    /// A flight whose ticket is below this may not serve its stale value: a value was published
    /// or deleted since.
    pub(super) stale_watermark: u64,
    /// A flight whose ticket is below this was superseded by a peer.
    pub(super) peer_watermark: u64,
    /// Number of issued tickets of this key. At 0 the table drops the state, unless callers wait
    /// for the next flight.
    pub(super) tickets: usize,
}

/// Whose change of a key it is that revokes its tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Of this instance: no caller that begins after it joins a load from before it.
    Local,
    /// Of a peer: its caller may have got its answer before this instance learnt of the change. So
    /// a caller that began after it may have joined a load from before it.
    Peer,
}

/// The rest of a change, which its caller makes where no lock is held: it runs foreign code.
#[must_use]
pub(super) struct AfterUnlock<C, T> {
    was_open: bool,
    ended: Option<Arc<Flight<C, T>>>,
    next: Option<Arc<NextFlight<C, T>>>,
}

impl<C, T> KeyStates<C, T> {
    pub(super) fn new(shards: usize) -> Self {
        let shard = || Mutex::new(Shard { keys: StatesByKey(HashTable::new()), next_ticket: 0 });
        Self {
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            open: AtomicUsize::new(0),
            tickets: AtomicUsize::new(0),
        }
    }

    #[inline]
    pub(super) fn hash(&self, key: &str) -> KeyHash {
        KeyHash(self.hasher.hash_one(key))
    }

    /// Locks the shard of a key.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a remainder is below the length")]
    pub(super) fn lock(&self, KeyHash(hash): KeyHash) -> MutexGuard<'_, Shard<C, T>> {
        self.shards[usize::try_from(hash >> 32).unwrap_or(0) % self.shards.len()].lock()
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<C, T>>> {
        self.shards.iter().map(Mutex::lock)
    }

    /// Takes one of `max` places for open flights.
    pub(super) fn acquire_place(&self, max: usize) -> bool {
        let is_free = self.open.fetch_add(1, Ordering::Relaxed) < max;
        if !is_free {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        is_free
    }

    /// To be called where no lock is held.
    #[inline]
    pub(super) fn finish(&self, after: AfterUnlock<C, T>) {
        let AfterUnlock { was_open, ended, next } = after;
        if was_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        drop(ended);
        if let Some(next) = next {
            next.take_turn();
        }
    }
}

impl<C, T> StatesByKey<C, T> {
    #[inline]
    pub(super) fn get(&self, KeyHash(hash): KeyHash, key: &str) -> Option<&KeyState<C, T>> {
        self.0.find(hash, |state| *state.key == *key)
    }

    #[inline]
    pub(super) fn get_mut(
        &mut self,
        KeyHash(hash): KeyHash,
        key: &str,
    ) -> Option<&mut KeyState<C, T>> {
        self.0.find_mut(hash, |state| *state.key == *key)
    }

    /// Changes the state of a key, and removes it if nothing needs it any more: the caller drops
    /// what this returns where no lock is held.
    #[inline]
    pub(super) fn release<R>(
        &mut self,
        KeyHash(hash): KeyHash,
        key: &str,
        change: impl FnOnce(&mut KeyState<C, T>) -> R,
    ) -> Option<(R, Option<KeyState<C, T>>)> {
        let mut found = self.0.find_entry(hash, |state| *state.key == *key).ok()?;
        let changed = change(found.get_mut());
        let is_unused = found.get().is_unused();
        Some((changed, is_unused.then(|| found.remove().0)))
    }

    pub(super) fn matching(
        &mut self,
        matches: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &mut KeyState<C, T>> {
        self.0.iter_mut().filter(move |state| matches(&state.key))
    }
}

impl<C, T> Shard<C, T> {
    /// Registers the next ticket of a key and returns its number.
    #[inline]
    pub(super) fn register(&mut self, hash: KeyHash, key: &Arc<str>) -> (u64, &mut KeyState<C, T>) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let place = self.keys.0.entry(hash.0, |state| state.key == *key, |state| state.hash.0);
        let state = match place {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(free) => free.insert(KeyState::new(hash, key, number)).into_mut(),
        };
        state.tickets += 1;
        (number, state)
    }
}

impl<C, T> KeyState<C, T> {
    /// Without state there is no record of earlier writes, so no earlier stale value is valid.
    fn new(hash: KeyHash, key: &Arc<str>, number: u64) -> Self {
        Self {
            key: Arc::clone(key),
            hash,
            newest: None,
            older: None,
            is_open: false,
            next: None,
            publish_watermark: 0,
            delete_watermark: 0,
            stale_watermark: number,
            peer_watermark: 0,
            tickets: 0,
        }
    }

    /// Whether nothing needs the state any more.
    fn is_unused(&self) -> bool {
        self.tickets == 0 && self.next.is_none()
    }

    /// Adds a flight. Returns a displaced one, to be dropped where no lock is held: it is too old
    /// to count.
    pub(super) fn add(
        &mut self,
        flight: &Arc<Flight<C, T>>,
        max_age: u64,
    ) -> Option<Arc<Flight<C, T>>> {
        let previous = self.newest.replace(Arc::clone(flight))?;
        if previous.age(flight.began) > max_age {
            return Some(previous);
        }
        self.older.replace(previous)
    }

    /// The running loads of at most this age.
    pub(super) fn young(&self, now: u64, max_age: u64) -> impl Iterator<Item = &Arc<Flight<C, T>>> {
        let all = self.older.iter().chain(&self.newest);
        all.filter(move |flight| flight.age(now) <= max_age)
    }

    /// Revokes every issued ticket: callers that begin later cannot join the running loads.
    pub(super) fn revoke_all(&mut self, next_ticket: u64, by: Origin) -> AfterUnlock<C, T> {
        self.publish_watermark = next_ticket;
        self.delete_watermark = next_ticket;
        self.stale_watermark = next_ticket;
        // mutant peer-watermark: remove
        if by == Origin::Peer {
            self.peer_watermark = next_ticket;
        }
        // mutant detach: => false
        let was_open = std::mem::replace(&mut self.is_open, false);
        AfterUnlock { was_open, ended: None, next: None }
    }

    /// The load of this ticket has ended, if the ticket has one: it cannot be joined any more, and
    /// does not count.
    pub(super) fn end_load(&mut self, number: u64) -> AfterUnlock<C, T> {
        let is_it = |flight: &mut Arc<Flight<C, T>>| flight.ticket == number;
        let mut was_open = false;
        let mut ended = self.newest.take_if(is_it);
        if ended.is_some() {
            was_open = std::mem::replace(&mut self.is_open, false);
        } else {
            ended = self.older.take_if(is_it);
        }
        let next = self.next.as_ref().filter(|_| ended.is_some()).map(Arc::clone);
        AfterUnlock { was_open, ended, next }
    }
}
