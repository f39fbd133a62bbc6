//! What is to be published and has not been confirmed yet.
//!
//! Kept per key and not per event: a key that is deleted a thousand times while the bus is away
//! goes out once. Bounded by count and bytes; what does not fit makes the rest coarser (all keys,
//! instead of these), and never gets lost. One message is out at a time, and the same again until
//! it is confirmed, while the rest collects behind it: so many deletes make few messages.
//!
//! What goes out is numbered here, without holes, because a hole in the numbers tells peers that
//! they missed something.
//!
//! # CausalFilter
//!
//! Deletes may pass each other and patterns: that they happened is all they say. A value must not
//! pass a delete of its key, in neither direction:
//!
//! - A delete or pattern turns the values that wait, and that it may concern, into deletes.
//! - A value goes to the end. The one that it replaces becomes a delete in its old place: so a key
//!   that is set again and again is invalidated when its first turn comes, and not when the
//!   setting ends.
//!
//! A value is a hint that spares peers a load, and old hints do harm. So values wait for a second
//! at most and are sent once; from then on they are deletes. Values of loads (primes) say nothing
//! that peers must know, and are forgotten instead.

mod change;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

pub(crate) use self::change::{Change, OutgoingBatch};
use self::change::{Entry, Value, What};
use crate::bus::wire::limits::{MAX_KEYS, MAX_TEXT};

/// Bytes of keys in one message. Brokers refuse large messages; NATS from 1 MiB on.
const BATCH_BYTES: usize = 256 << 10;
/// Everything.
const ALL: &str = "*";

type Turns = HashMap<Arc<str>, u64, foldhash::fast::RandomState>;

pub(crate) struct Outbox {
    max_entries: usize,
    max_bytes: usize,
    /// Deletes in one message.
    most_keys: usize,
    /// What waits, by turn; and the turns of deletes and values by key, of patterns by pattern.
    waiting: BTreeMap<u64, Entry>,
    deletes: Turns,
    values: Turns,
    patterns: Turns,
    bytes: usize,
    next_turn: u64,
    out: Option<OutgoingBatch>,
    next_seq: u64,
}

impl Outbox {
    /// Bounds on what waits. What is out counts in neither: it is one message.
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            max_entries,
            max_bytes,
            most_keys: MAX_KEYS,
            waiting: BTreeMap::new(),
            deletes: Turns::default(),
            values: Turns::default(),
            patterns: Turns::default(),
            bytes: 0,
            next_turn: 0,
            out: None,
            next_seq: 0,
        }
    }

    /// A message of each delete, for want of room for what else is to be said of each key.
    pub(crate) fn single_key(self) -> Self {
        Self { most_keys: 1, ..self }
    }

    /// Takes a change in. It is out when [`acked`](Self::acked) is above the turn that this
    /// returns.
    pub(crate) fn push(&mut self, now: u64, change: Change) -> u64 {
        let turn = match change {
            Change::Delete(key) if key.len() > MAX_TEXT => self.pattern(&beginning(&key)),
            Change::Value { key, prime: false, .. } if key.len() > MAX_TEXT => {
                self.pattern(&beginning(&key))
            }
            Change::Value { key, prime: true, .. } if key.len() > MAX_TEXT => self.turn(),
            Change::Pattern(pattern) if pattern.len() > MAX_TEXT => self.pattern(&Arc::from(ALL)),
            Change::Delete(key) => self.delete(&key),
            Change::Pattern(pattern) => self.pattern(&pattern),
            Change::Value { key, value, ttl_ms, prime, context } => {
                self.retire(&key);
                let turn = self.turn();
                let value = Value { key, value, ttl_ms, prime, context, since: now };
                self.insert(turn, Entry::Value(value));
                turn
            }
        };
        self.fit();
        turn
    }

    /// The message to publish now: the same until it is confirmed.
    pub(crate) fn next(&mut self, now: u64) -> Option<&OutgoingBatch> {
        if self.out.is_none()
            && let Some((turn, what)) = self.take(now)
        {
            self.out = Some(OutgoingBatch { seq: self.next_seq, what, turn });
            self.next_seq += 1;
        }
        self.out.as_ref()
    }

    /// The message of this number has been published. Gives it, the first time.
    pub(crate) fn confirm(&mut self, seq: u64) -> Option<OutgoingBatch> {
        self.out.take_if(|out| out.seq == seq)
    }

    /// Whether a message is out that is not confirmed.
    pub(crate) fn is_sending(&self) -> bool {
        self.out.is_some()
    }

    /// It has not, or nobody knows. Its number stays; a value that was given becomes a delete, and
    /// one that was loaded a delete of nothing: a bus that does not take it is not to cost others
    /// what they hold. (Peers that have
    /// the value after all take the delete for a repetition, which does no harm: what happened to
    /// the key since waits here.)
    pub(crate) fn on_send_failed(&mut self) {
        if let Some(out) = &mut self.out
            && let What::Set(value) = &out.what
        {
            let keys = if value.prime { Vec::new() } else { vec![Arc::clone(&value.key)] };
            out.what = What::Delete(keys);
        }
    }

    /// All changes of turns below this are out and confirmed.
    pub(crate) fn acked(&self) -> u64 {
        let waiting = || self.waiting.keys().next().copied();
        self.out.as_ref().map(|out| out.turn).or_else(waiting).unwrap_or(self.next_turn)
    }

    /// The number of the first message that is not confirmed: what a beacon says.
    pub(crate) fn confirmed_seq(&self) -> u64 {
        self.out.as_ref().map_or(self.next_seq, |out| out.seq)
    }

    /// The number of the next message that is made: whatever is taken in from now on has it, or a
    /// higher one.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether everything that was taken in is out and confirmed.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_none() && self.waiting.is_empty()
    }

    /// Entries that wait, and the message that is out.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.out.is_some())
    }

    fn delete(&mut self, key: &Arc<str>) -> u64 {
        // mutant outbox-order: remove
        self.retire(key);
        if let Some(covered) = self.patterns.get(ALL).or_else(|| self.deletes.get(key)) {
            return *covered;
        }
        let turn = self.turn();
        self.insert(turn, Entry::Delete(Arc::clone(key)));
        turn
    }

    fn pattern(&mut self, pattern: &Arc<str>) -> u64 {
        // Which of them it concerns is not worth finding out.
        self.retire_all();
        if let Some(covered) = self.patterns.get(ALL).or_else(|| self.patterns.get(pattern)) {
            return *covered;
        }
        if **pattern == *ALL {
            return self.coarsen();
        }
        let turn = self.turn();
        self.insert(turn, Entry::Pattern(Arc::clone(pattern)));
        turn
    }

    /// Puts everything in place of what waits.
    fn coarsen(&mut self) -> u64 {
        let first = self.waiting.keys().next().copied();
        let turn = first.unwrap_or_else(|| self.turn());
        self.waiting.clear();
        self.deletes.clear();
        self.values.clear();
        self.patterns.clear();
        self.bytes = 0;
        self.insert(turn, Entry::Pattern(Arc::from(ALL)));
        turn
    }

    fn fit(&mut self) {
        if self.is_over() {
            self.retire_all();
        }
        if self.is_over() {
            self.coarsen();
        }
    }

    fn is_over(&self) -> bool {
        let only_everything = self.waiting.len() == 1 && self.patterns.contains_key(ALL);
        !only_everything && (self.waiting.len() > self.max_entries || self.bytes > self.max_bytes)
    }

    /// Makes a value that waits a delete, or nothing if it is a prime.
    fn retire(&mut self, key: &str) {
        let Some(turn) = self.values.get(key).copied() else { return };
        if let Some(Entry::Value(value)) = self.remove(turn)
            && !value.prime
            && !self.deletes.contains_key(&value.key)
            && !self.patterns.contains_key(ALL)
        {
            self.insert(turn, Entry::Delete(value.key));
        }
    }

    fn retire_all(&mut self) {
        let keys: Vec<Arc<str>> = self.values.keys().map(Arc::clone).collect();
        keys.iter().for_each(|key| self.retire(key));
    }

    /// What is to go out next, and whose turn it is.
    fn take(&mut self, now: u64) -> Option<(u64, What)> {
        loop {
            let (turn, first) = self.waiting.first_key_value()?;
            let turn = *turn;
            match first {
                Entry::Delete(_) => return Some((turn, What::Delete(self.take_deletes()))),
                Entry::Value(value) if value.is_too_old(now) => {
                    let key = Arc::clone(&value.key);
                    self.retire(&key);
                }
                Entry::Value(_) | Entry::Pattern(_) => match self.remove(turn)? {
                    Entry::Value(value) => return Some((turn, value.at(now))),
                    Entry::Pattern(pattern) => return Some((turn, What::Pattern(pattern))),
                    Entry::Delete(_) => {}
                },
            }
        }
    }

    /// As many deletes as go into one message, past whatever stands between them.
    fn take_deletes(&mut self) -> Vec<Arc<str>> {
        let mut bytes = 0;
        let mut turns = Vec::new();
        for (turn, entry) in self.waiting.iter().take(MAX_KEYS) {
            if let Entry::Delete(key) = entry {
                bytes += key.len();
                if bytes > BATCH_BYTES && !turns.is_empty() {
                    break;
                }
                turns.push(*turn);
                if turns.len() >= self.most_keys {
                    break;
                }
            }
        }
        let taken = turns.into_iter().filter_map(|turn| self.remove(turn));
        taken
            .filter_map(|entry| match entry {
                Entry::Delete(key) => Some(key),
                Entry::Pattern(_) | Entry::Value(_) => None,
            })
            .collect()
    }

    fn turn(&mut self) -> u64 {
        let turn = self.next_turn;
        self.next_turn += 1;
        turn
    }

    fn insert(&mut self, turn: u64, entry: Entry) {
        self.bytes += entry.cost();
        let (turns, text) = self.index(&entry);
        turns.insert(text, turn);
        self.waiting.insert(turn, entry);
    }

    fn remove(&mut self, turn: u64) -> Option<Entry> {
        let entry = self.waiting.remove(&turn)?;
        self.bytes -= entry.cost();
        let (turns, text) = self.index(&entry);
        turns.remove(&text);
        Some(entry)
    }

    fn index(&mut self, entry: &Entry) -> (&mut Turns, Arc<str>) {
        match entry {
            Entry::Delete(key) => (&mut self.deletes, Arc::clone(key)),
            Entry::Pattern(pattern) => (&mut self.patterns, Arc::clone(pattern)),
            Entry::Value(value) => (&mut self.values, Arc::clone(&value.key)),
        }
    }
}

/// A pattern for a key that is too long for an event: all that begin as it does. What a pattern
/// gives a meaning to matches as any byte, which needs no quoting that readers might not know.
fn beginning(key: &str) -> Arc<str> {
    let special = |letter| matches!(letter, '*' | '?' | '[' | ']' | '^' | '-' | '\\' | '{' | '}');
    let cuts = (0..=MAX_TEXT / 2).rev();
    let beginning = cuts.filter_map(|cut| key.get(..cut)).next().unwrap_or_default();
    Arc::from(beginning.replace(special, "?") + ALL)
}

#[cfg(test)]
mod tests;
