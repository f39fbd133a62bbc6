//! The outbox: changes that wait to be published, and the message that is not confirmed yet.
//!
//! Changes are queued per key, not per call: a key that is deleted a thousand times while the bus
//! is unreachable is published once. The queue is bounded by count and bytes. A full queue never
//! drops a change: it replaces the queued ones by one that covers more keys, at worst all of them.
//! One message is in flight at a time, and repeated until it is confirmed. Deletes collect behind
//! it, and the next message takes all of them that fit.
//!
//! The [session](super::session) numbers the messages.
//!
//! # Order
//!
//! Deletes and patterns may overtake each other, because they only say that something was deleted.
//! A value and a delete of its key must not overtake each other:
//!
//! - A delete or pattern turns the queued values that it may concern into deletes.
//! - A value is queued last. The value that it replaces becomes a delete in its old position: so a
//!   key that is set again and again is invalidated at its first position, not after the last set.
//!
//! A value only spares peers a load, and an old value does harm. So values wait for at most one
//! second and are sent once; from then on they are deletes. Values of loads (primes) change nothing
//! that peers must know, and are dropped instead.
//!
//! # Invalidations that L2 has not got
//!
//! Each change carries its state ([`InL2`]). No change takes the state [`InL2::No`] away from a
//! queued one: two invalidations of a key, or two equal patterns, share the higher state; a message
//! holds changes of one state; and the change that replaces a full queue has the highest state of
//! those that it replaces.
//!
//! Alternatives considered: a delete that reached L2 settles the queued delete of its key. But it
//! may have reached L2 before the call of the queued one began. A queued `*` that reached L2 covers
//! the delete of a key that did not, if the `*` takes over that state. But then each peer would
//! delete all values of L2.

mod change;
mod refusal;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::change::{Batch, Queued};
pub(crate) use self::change::{Change, Reduction};
pub(crate) use self::refusal::AfterRefusal;
use crate::bus::wire::{
    limits::{MAX_KEYS, MAX_TEXT},
    message::InL2,
};

/// Bytes of keys in one message. Brokers refuse large messages: NATS above 1 MiB.
const BATCH_BYTES: usize = 256 << 10;
const FULL: &str = "the outbox is full";
const TOO_LONG: &str = "the name is too long for a message";
const WAITED: &str = "it waited for more than a second, or its ttl is over";
const PATTERN: &str = "a delete by pattern was queued after it";
const FAILED: &str = "the publish failed";
/// The pattern that matches every key.
const ALL: &str = "*";

type Positions = HashMap<Arc<str>, u64, foldhash::fast::RandomState>;

#[derive(Default)]
pub(crate) struct Outbox {
    max_entries: usize,
    max_bytes: usize,
    max_batch_keys: usize,
    /// By position.
    waiting: BTreeMap<u64, Queued>,
    /// The positions of the queued changes: of deletes and values by key, of patterns by pattern.
    deletes: Positions,
    values: Positions,
    patterns: Positions,
    bytes: usize,
    next_position: u64,
    in_flight: Option<Batch>,
    /// The rest of a refused message, the next part last.
    parts: Vec<Batch>,
    /// Bytes of keys in the next message, at most [`BATCH_BYTES`].
    batch_bytes: usize,
    is_stuck: bool,
    /// To be reported by the client, outside the lock.
    reductions: Vec<Reduction>,
}

impl Outbox {
    /// The bounds apply to the queued changes. The message in flight is counted in neither.
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        let (max_batch_keys, batch_bytes) = (MAX_KEYS, BATCH_BYTES);
        Self { max_entries, max_bytes, max_batch_keys, batch_bytes, ..Self::default() }
    }

    /// Makes each delete a message of its own, because a message has room for the generation of
    /// one key.
    pub(crate) fn single_key(self) -> Self {
        Self { max_batch_keys: 1, ..self }
    }

    /// Queues a change. Returns its position: it was published when [`acked`](Self::acked) is
    /// above it.
    pub(crate) fn push(&mut self, now: u64, change: Change, in_l2: InL2) -> u64 {
        let is_too_long = change.text().len() > MAX_TEXT;
        let position = match change {
            Change::Pattern(_) if is_too_long => self.push_wider(Arc::from(ALL), in_l2, TOO_LONG),
            Change::Value { prime: true, .. } if is_too_long => self.take_position(),
            Change::Delete(key) | Change::Value { key, .. } if is_too_long => {
                self.push_wider(prefix_glob(&key, MAX_TEXT / 2), in_l2, TOO_LONG)
            }
            Change::Delete(key) => self.push_delete(key, in_l2),
            Change::Pattern(pattern) => self.push_pattern(pattern, in_l2),
            Change::Value { .. } => {
                self.downgrade_to_delete(change.text(), None);
                self.append(now, change, in_l2)
            }
        };
        if self.is_over() {
            self.downgrade_all(FULL);
        }
        if self.is_over() {
            let highest = self.waiting.values().map(|queued| queued.in_l2).max();
            self.push_wider(Arc::from(ALL), highest.unwrap_or_default().max(InL2::Yes), FULL);
        }
        position
    }

    /// Returns the message to publish now: the same one until it is confirmed.
    pub(crate) fn next(&mut self, now: u64) -> Option<&Batch> {
        if self.in_flight.is_none() {
            self.in_flight = self.pop_part().or_else(|| self.pop(now));
        }
        self.in_flight.as_ref()
    }

    /// Records that the message in flight was published. Returns it.
    pub(crate) fn confirm(&mut self) -> Option<Batch> {
        let confirmed = self.in_flight.take()?;
        self.on_accepted();
        Some(confirmed)
    }

    /// Records that the publish failed, or that its outcome is not known.
    ///
    /// The message stays, but a value that was set becomes a delete, and a prime becomes a
    /// delete of nothing, so that an unreachable bus does not evict the entries of peers. (Peers
    /// that did receive the value take the second message for a repetition. This does no harm:
    /// later changes of the key are still queued here.)
    pub(crate) fn on_send_failed(&mut self) {
        if let Some(batch) = &mut self.in_flight
            && let Some(key) = batch.drop_value()
        {
            self.reductions.push(Reduction::ValueDropped { key, reason: FAILED });
        }
    }

    /// All changes at positions below this one were published.
    pub(crate) fn acked(&self) -> u64 {
        let waiting = self.waiting.keys().next().copied();
        let in_flight = self.in_flight.iter().map(|batch| batch.position);
        // The next part has the lowest position of all parts.
        let parts = self.parts.last().map(|part| part.position);
        in_flight.chain(parts).chain(waiting).min().unwrap_or(self.next_position)
    }

    /// Whether the change at this position was published, and all changes before it.
    pub(crate) fn is_published(&self, position: u64) -> bool {
        self.acked() > position
    }

    /// The position of the next change that is queued.
    pub(crate) fn next_position(&self) -> u64 {
        self.next_position
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of queued changes, plus one for the message in flight and for each part of a
    /// refused one.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.parts.len() + usize::from(self.in_flight.is_some())
    }

    /// The number of invalidations in the message in flight, or, after it was refused, in its
    /// parts.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.iter().chain(&self.parts).map(Batch::invalidations).sum()
    }

    /// Forgets all changes but those of the message in flight, which keeps its number. Returns how
    /// many invalidations are forgotten.
    pub(crate) fn forget_waiting(&mut self) -> usize {
        let in_flight = self.in_flight.take();
        let old = std::mem::take(self);
        let Self { is_stuck, batch_bytes, .. } = old;
        *self = Self { in_flight, is_stuck, batch_bytes, ..Self::default() };
        let waiting = old.waiting.values().filter(|queued| queued.change.is_invalidation());
        old.parts.iter().map(Batch::invalidations).sum::<usize>() + waiting.count()
    }

    /// Returns the reductions since the last call.
    pub(crate) fn take_reductions(&mut self) -> Vec<Reduction> {
        std::mem::take(&mut self.reductions)
    }

    fn push_delete(&mut self, key: Arc<str>, in_l2: InL2) -> u64 {
        // mutant outbox-order: remove
        self.downgrade_to_delete(&key, None);
        self.push_invalidation(Change::Delete(key), in_l2)
    }

    /// Queues a pattern that covers more keys than were invalidated.
    fn push_wider(&mut self, pattern: Arc<str>, in_l2: InL2, reason: &'static str) -> u64 {
        self.reductions.push(Reduction::Widened { pattern: Arc::clone(&pattern), reason });
        self.push_pattern(pattern, in_l2)
    }

    fn push_pattern(&mut self, pattern: Arc<str>, in_l2: InL2) -> u64 {
        // It would cost too much to find the values that match.
        self.downgrade_all(PATTERN);
        if *pattern == *ALL {
            self.coarsen(in_l2)
        } else {
            self.push_invalidation(Change::Pattern(pattern), in_l2)
        }
    }

    /// Queues a delete or a pattern, unless a queued change covers it.
    fn push_invalidation(&mut self, change: Change, in_l2: InL2) -> u64 {
        if let Some(covering) = self.covering(in_l2) {
            return covering;
        }
        let (positions, text) = self.index(&change);
        match positions.get(&text).copied() {
            Some(position) => {
                self.raise(position, in_l2);
                position
            }
            None => self.append(0, change, in_l2),
        }
    }

    /// The position of a queued pattern that covers every key, in this state at least.
    fn covering(&self, in_l2: InL2) -> Option<u64> {
        let position = self.patterns.get(ALL)?;
        self.waiting.get(position).filter(|all| all.in_l2 >= in_l2).map(|_| *position)
    }

    /// Replaces all queued changes up to this state by one that covers every key.
    fn coarsen(&mut self, in_l2: InL2) -> u64 {
        if let Some(covering) = self.covering(in_l2) {
            return covering;
        }
        let covered = self.waiting.iter().filter(|(_, queued)| queued.in_l2 <= in_l2);
        let covered: Vec<u64> = covered.map(|(position, _)| *position).collect();
        let position = covered.first().copied().unwrap_or_else(|| self.take_position());
        covered.iter().for_each(|position| drop(self.remove(*position)));
        self.insert(position, 0, Change::Pattern(Arc::from(ALL)), in_l2);
        position
    }

    fn raise(&mut self, position: u64, in_l2: InL2) {
        if let Some(queued) = self.waiting.get_mut(&position) {
            queued.in_l2 = queued.in_l2.max(in_l2);
        }
    }

    fn is_over(&self) -> bool {
        let is_coarse = self.waiting.len() == 1 && self.patterns.contains_key(ALL);
        !is_coarse && (self.waiting.len() > self.max_entries || self.bytes > self.max_bytes)
    }

    /// Turns the queued value of a key, if there is one, into a delete, or drops it if it is a
    /// prime. No `reason`: the value is old.
    fn downgrade_to_delete(&mut self, key: &str, reason: Option<&'static str>) {
        let Some(position) = self.values.get(key).copied() else { return };
        let Some(Queued { change, in_l2, .. }) = self.remove(position) else { return };
        if let Some(reason) = reason {
            self.reductions.push(Reduction::ValueDropped { key: Arc::from(key), reason });
        }
        let Some(delete) = change.without_value() else { return };
        match self.deletes.get(key).copied() {
            _ if self.covering(in_l2).is_some() => {}
            Some(position) => self.raise(position, in_l2),
            None => self.insert(position, 0, delete, in_l2),
        }
    }

    fn downgrade_all(&mut self, reason: &'static str) {
        let keys: Vec<Arc<str>> = self.values.keys().map(Arc::clone).collect();
        keys.iter().for_each(|key| self.downgrade_to_delete(key, Some(reason)));
    }

    /// Takes the changes of the next message.
    fn pop(&mut self, now: u64) -> Option<Batch> {
        loop {
            let (position, first) = self.waiting.first_key_value()?;
            let (position, in_l2) = (*position, first.in_l2);
            let changes = match &first.change {
                Change::Delete(_) => self.pop_deletes(in_l2),
                Change::Value { key, .. } if first.is_expired(now) => {
                    let key = Arc::clone(key);
                    self.downgrade_to_delete(&key, Some(WAITED));
                    continue;
                }
                _ => vec![(position, self.remove(position)?.into_change(now))],
            };
            return Some(Batch { changes, in_l2, position });
        }
    }

    /// Takes as many deletes of a state as fit into one message, past the changes between them.
    fn pop_deletes(&mut self, in_l2: InL2) -> Vec<(u64, Change)> {
        let mut bytes = 0;
        let mut positions = Vec::new();
        for (position, queued) in self.waiting.iter().take(MAX_KEYS) {
            if let Change::Delete(key) = &queued.change
                && queued.in_l2 == in_l2
            {
                bytes += key.len();
                if bytes > self.batch_bytes && !positions.is_empty() {
                    break;
                }
                positions.push(*position);
                if positions.len() >= self.max_batch_keys {
                    break;
                }
            }
        }
        let removed = positions.into_iter().filter_map(|at| Some((at, self.remove(at)?.change)));
        removed.collect()
    }

    fn take_position(&mut self) -> u64 {
        let position = self.next_position;
        self.next_position += 1;
        position
    }

    fn append(&mut self, since: u64, change: Change, in_l2: InL2) -> u64 {
        let position = self.take_position();
        self.insert(position, since, change, in_l2);
        position
    }

    fn insert(&mut self, position: u64, since: u64, change: Change, in_l2: InL2) {
        self.bytes += change.cost();
        let (positions, text) = self.index(&change);
        positions.insert(text, position);
        self.waiting.insert(position, Queued { change, in_l2, since });
    }

    fn remove(&mut self, position: u64) -> Option<Queued> {
        let queued = self.waiting.remove(&position)?;
        self.bytes -= queued.change.cost();
        let (positions, text) = self.index(&queued.change);
        positions.remove(&text);
        Some(queued)
    }

    fn index(&mut self, change: &Change) -> (&mut Positions, Arc<str>) {
        match change {
            Change::Delete(key) => (&mut self.deletes, Arc::clone(key)),
            Change::Pattern(pattern) => (&mut self.patterns, Arc::clone(pattern)),
            Change::Value { key, .. } => (&mut self.values, Arc::clone(key)),
        }
    }
}

/// Returns a pattern that matches all keys with the same first `length` bytes at most. `?` stands
/// for the characters that have a meaning in patterns, which needs no escaping that a peer might
/// not know.
fn prefix_glob(key: &str, length: usize) -> Arc<str> {
    let special = |letter| matches!(letter, '*' | '?' | '[' | ']' | '^' | '-' | '\\' | '{' | '}');
    let cuts = (0..=length).rev();
    let beginning = cuts.filter_map(|cut| key.get(..cut)).next().unwrap_or_default();
    Arc::from(beginning.replace(special, "?") + ALL)
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
