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
//! # Order
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

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    limits::{MAX_KEYS, MAX_TEXT},
    message::Kind,
};

/// Bytes of keys in one message. Brokers refuse large messages; NATS from 1 MiB on.
const BATCH_BYTES: usize = 256 << 10;
/// What an entry costs beside its text, about.
const OVERHEAD: usize = 96;
/// Milliseconds that a value may wait.
const VALUE_WAITS: u64 = 1_000;
/// Everything.
const ALL: &str = "*";

/// A change that peers are to hear of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Delete(Arc<str>),
    Pattern(Arc<str>),
    /// A value in MessagePack. A prime comes of a load, else of a set: that one peers must know.
    Value {
        key: Arc<str>,
        value: Arc<[u8]>,
        ttl_ms: Option<u64>,
        prime: bool,
        /// What had been heard of when it was taken, see [`order`](super::order).
        seen: Option<Arc<[u8]>>,
    },
}

/// A message to be published under this number, and published again until it is confirmed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) seq: u64,
    what: What,
    /// The turn that it was.
    turn: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Delete(Vec<Arc<str>>),
    Pattern(Arc<str>),
    Set(Value),
}

#[derive(Debug)]
enum Entry {
    Delete(Arc<str>),
    Pattern(Arc<str>),
    Value(Value),
}

#[derive(Debug, Clone, PartialEq)]
struct Value {
    key: Arc<str>,
    value: Arc<[u8]>,
    ttl_ms: Option<u64>,
    prime: bool,
    seen: Option<Arc<[u8]>>,
    since: u64,
}

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
    out: Option<Outgoing>,
    next_seq: u64,
}

impl Outgoing {
    pub(crate) fn kind(&self) -> Kind<'_> {
        match &self.what {
            What::Delete(keys) => Kind::Delete { keys: keys.iter().map(|key| &**key).collect() },
            What::Pattern(pattern) => Kind::Pattern { pattern },
            What::Set(Value { key, value, ttl_ms, prime, seen, .. }) => Kind::Set {
                keys: vec![key],
                value,
                ttl_ms: *ttl_ms,
                prime: *prime,
                seen: seen.as_deref(),
            },
        }
    }
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
    pub(crate) fn one_by_one(self) -> Self {
        Self { most_keys: 1, ..self }
    }

    /// Takes a change in. It is out when [`covered`](Self::covered) is above the turn that this
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
            Change::Value { key, value, ttl_ms, prime, seen } => {
                self.retire(&key);
                let turn = self.turn();
                let value = Value { key, value, ttl_ms, prime, seen, since: now };
                self.insert(turn, Entry::Value(value));
                turn
            }
        };
        self.fit();
        turn
    }

    /// The message to publish now: the same until it is confirmed.
    pub(crate) fn next(&mut self, now: u64) -> Option<&Outgoing> {
        if self.out.is_none()
            && let Some((turn, what)) = self.take(now)
        {
            self.out = Some(Outgoing { seq: self.next_seq, what, turn });
            self.next_seq += 1;
        }
        self.out.as_ref()
    }

    /// The message of this number has been published. Gives it, the first time.
    pub(crate) fn confirm(&mut self, seq: u64) -> Option<Outgoing> {
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
    pub(crate) fn failed(&mut self) {
        if let Some(out) = &mut self.out
            && let What::Set(value) = &out.what
        {
            let keys = if value.prime { Vec::new() } else { vec![Arc::clone(&value.key)] };
            out.what = What::Delete(keys);
        }
    }

    /// All changes of turns below this are out and confirmed.
    pub(crate) fn covered(&self) -> u64 {
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

impl Entry {
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Delete(text) | Self::Pattern(text) => text.len(),
                Self::Value(value) => {
                    value.key.len()
                        + value.value.len()
                        + value.seen.as_ref().map_or(0, |it| it.len())
                }
            }
    }
}

impl Value {
    fn waited(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    fn is_too_old(&self, now: u64) -> bool {
        let waited = self.waited(now);
        waited >= VALUE_WAITS || self.ttl_ms.is_some_and(|ttl| ttl <= waited)
    }

    fn at(self, now: u64) -> What {
        let waited = self.waited(now);
        let ttl_ms = self.ttl_ms.map(|ttl| ttl.saturating_sub(waited));
        What::Set(Self { ttl_ms, ..self })
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
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    fn outbox() -> Outbox {
        Outbox::new(10_000, 8 << 20)
    }

    fn confirm(outbox: &mut Outbox) {
        let seq = outbox.confirmed_seq();
        assert!(outbox.confirm(seq + 1).is_none(), "of another number");
        assert!(outbox.confirm(seq).is_some());
    }

    fn delete(key: &str) -> Change {
        Change::Delete(Arc::from(key))
    }

    fn pattern(pattern: &str) -> Change {
        Change::Pattern(Arc::from(pattern))
    }

    fn value(key: &str, value: u8, prime: bool) -> Change {
        Change::Value {
            key: Arc::from(key),
            value: Arc::new([value]),
            ttl_ms: Some(500),
            prime,
            seen: None,
        }
    }

    /// All that comes out, in short.
    fn drain(outbox: &mut Outbox, now: u64) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(out) = outbox.next(now) {
            all.push(match out.kind() {
                Kind::Delete { keys } => format!("-{}", keys.join(",")),
                Kind::Pattern { pattern } => format!("~{pattern}"),
                Kind::Set { keys, value, .. } => format!("{}={}", keys[0], value[0]),
                Kind::Beacon { .. } => unreachable!("the outbox makes none"),
            });
            confirm(outbox);
        }
        all
    }

    fn drained(now: u64, changes: &[Change]) -> Vec<String> {
        let mut outbox = outbox();
        for change in changes {
            outbox.push(0, change.clone());
        }
        drain(&mut outbox, now)
    }

    #[test]
    fn a_key_deleted_again_and_again_goes_out_once() {
        let changes =
            [delete("a"), delete("b"), delete("a"), pattern("x*"), delete("c"), pattern("x*")];
        assert_eq!(drained(0, &changes), ["-a,b,c", "~x*"]);
    }

    #[test]
    fn no_value_passes_a_delete_of_its_key() {
        let (set, prime) = (value("k", 1, false), value("k", 2, true));
        assert_eq!(drained(0, &[delete("k"), set.clone()]), ["-k", "k=1"]);
        assert_eq!(drained(0, &[set.clone(), delete("k")]), ["-k"]);
        assert_eq!(drained(0, &[prime.clone(), delete("k")]), ["-k"]);
        assert_eq!(drained(0, &[set.clone(), pattern("z*")]), ["-k", "~z*"]);
        assert_eq!(drained(0, &[prime.clone(), pattern("z*")]), ["~z*"]);
        assert_eq!(drained(0, &[pattern("k*"), set.clone(), pattern("k*")]), ["~k*", "-k"]);
        assert_eq!(drained(0, &[pattern("*"), set.clone()]), ["~*", "k=1"]);
        assert_eq!(drained(0, &[pattern("*"), set.clone(), delete("k")]), ["~*"]);
        assert_eq!(drained(0, &[set.clone(), pattern("*"), delete("k")]), ["~*"]);
        assert_eq!(drained(0, &[set, prime]), ["-k", "k=2"]);
    }

    #[test]
    fn a_key_that_is_set_again_and_again_is_invalidated_at_its_first_turn() {
        let changes =
            [value("k", 1, false), delete("a"), value("k", 2, false), value("k", 3, false)];
        assert_eq!(drained(0, &changes), ["-k,a", "k=3"]);
    }

    #[test]
    fn values_do_not_wait_and_are_tried_once() {
        let mut outbox = outbox();
        outbox.push(0, value("set", 1, false));
        let Some(What::Set(first)) = outbox.next(200).map(|out| out.what.clone()) else {
            panic!("a value goes out")
        };
        assert_eq!(first.ttl_ms, Some(300), "what is left of it");
        outbox.failed();
        let again = outbox.next(200).unwrap();
        assert_eq!((again.seq, again.kind()), (0, Kind::Delete { keys: vec!["set"] }));
        let both = [value("set", 1, false), value("prime", 1, true)];
        assert_eq!(drained(499, &both), ["set=1", "prime=1"]);
        assert_eq!(drained(500, &both), ["-set"], "their time is over");
        let mut lasting = value("k", 1, false);
        if let Change::Value { ttl_ms, .. } = &mut lasting {
            *ttl_ms = None;
        }
        assert_eq!(drained(999, std::slice::from_ref(&lasting)), ["k=1"]);
        assert_eq!(drained(1_000, &[lasting]), ["-k"]);
    }

    #[test]
    fn a_message_stays_the_same_until_it_is_confirmed() {
        let mut outbox = outbox();
        outbox.push(0, delete("a"));
        let first = outbox.next(0).cloned();
        outbox.push(0, delete("a"));
        outbox.push(0, pattern("*"));
        outbox.failed();
        assert_eq!(outbox.next(0).cloned(), first);
        assert_eq!((outbox.confirmed_seq(), outbox.covered()), (0, 0));
        confirm(&mut outbox);
        assert_eq!((outbox.confirmed_seq(), outbox.covered()), (1, 1));
        assert_eq!(drain(&mut outbox, 0), ["~*"], "the second delete came after the first was out");
        assert_eq!(outbox.covered(), outbox.next_turn);
        assert!(outbox.next(0).is_none());
    }

    #[test]
    fn what_does_not_fit_becomes_everything_and_values_go_first() {
        let mut outbox = Outbox::new(3, 10_000);
        outbox.push(0, value("prime", 1, true));
        for key in ["a", "b", "c"] {
            outbox.push(0, delete(key));
        }
        assert_eq!(drain(&mut outbox, 0), ["-a,b,c"], "without the prime it fits");
        for key in ["a", "b", "c", "d", "e"] {
            outbox.push(0, delete(key));
        }
        assert_eq!(drain(&mut outbox, 0), ["~*"]);
        outbox.push(0, delete(&"x".repeat(9_000)));
        outbox.push(0, delete(&"y".repeat(900)));
        assert_eq!(drain(&mut outbox, 0), ["~*"]);
        let mut none = Outbox::new(0, 0);
        none.push(0, delete("a"));
        assert_eq!(drain(&mut none, 0), ["~*"], "however small it is");
    }

    #[test]
    fn messages_stay_within_the_limits_of_an_event() {
        let mut outbox = outbox();
        for key in 0..9_000 {
            outbox.push(0, delete(&format!("key:{key}")));
        }
        let long = |letter: &str| letter.repeat(60_000);
        for letter in ["a", "b", "c", "d", "e", "f"] {
            outbox.push(0, delete(&long(letter)));
        }
        let (mut keys, mut messages) = (0, 0);
        while let Some(out) = outbox.next(0) {
            let Kind::Delete { keys: batch } = out.kind() else { panic!("{out:?}") };
            assert!(batch.len() <= MAX_KEYS);
            assert!(batch.iter().map(|key| key.len()).sum::<usize>() <= BATCH_BYTES);
            (keys, messages) = (keys + batch.len(), messages + 1);
            confirm(&mut outbox);
        }
        assert_eq!((keys, messages), (9_006, 4));
    }

    #[test]
    fn a_key_too_long_for_an_event_is_covered_by_how_it_begins() {
        let key = "[é*]".repeat(20_000);
        for change in [delete(&key), value(&key, 1, false)] {
            let mut outbox = outbox();
            outbox.push(0, change);
            let Some(Kind::Pattern { pattern }) = outbox.next(0).map(Outgoing::kind) else {
                panic!("a pattern")
            };
            assert!(pattern.len() <= MAX_TEXT && Pattern::new(pattern).matches(&key));
            assert!(!Pattern::new(pattern).matches("other"));
        }
        assert_eq!(drained(0, &[value(&key, 1, true)]), [""; 0]);
        assert_eq!(drained(0, &[pattern(&key)]), ["~*"]);
    }

    /// The keys of the model below.
    fn keys() -> impl Iterator<Item = String> {
        (0..8).map(|n| format!("{}:{}", n / 4, n % 4))
    }

    /// A change that a peer has not heard of yet.
    struct Open {
        key: String,
        turn: u64,
        heard: bool,
    }

    /// A peer that gets some messages twice, and what it has to hear.
    #[derive(Default)]
    struct Peer {
        holds: HashMap<String, u8>,
        open: Vec<Open>,
    }

    impl Peer {
        fn must_hear(&mut self, turn: u64, of: impl Fn(&str) -> bool) {
            let keys = keys().filter(|key| of(key));
            self.open.extend(keys.map(|key| Open { key, turn, heard: false }));
        }

        fn receive(&mut self, kind: &Kind<'_>) {
            let covered = |key: &str| match kind {
                Kind::Delete { keys } | Kind::Set { keys, .. } => keys.contains(&key),
                Kind::Pattern { pattern } => Pattern::new(pattern).matches(key),
                Kind::Beacon { .. } => false,
            };
            self.holds.retain(|key, _| !covered(key));
            for open in &mut self.open {
                open.heard |= covered(&open.key);
            }
            if let Kind::Set { keys, value, .. } = kind {
                self.holds.insert(keys[0].to_owned(), value[0]);
            }
        }
    }

    #[test]
    fn whatever_happens_peers_hear_of_every_change_and_end_up_with_nothing_old() {
        for seed in 0..1_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut outbox = Outbox::new(random.usize(1..12), random.usize(300..3_000));
            let mut peer = Peer::default();
            // What is right to hold: the value set last, and what was loaded since, if nothing
            // deleted it.
            let mut right: HashMap<String, Vec<u8>> = HashMap::new();
            let mut next_seq = 0;
            for now in (0..1_400).step_by(7) {
                let key = keys().nth(random.usize(..8)).unwrap();
                match random.u8(..10) {
                    0..=2 => {
                        right.remove(&key);
                        let turn = outbox.push(now, delete(&key));
                        peer.must_hear(turn, |other| other == key);
                    }
                    3 => {
                        let glob = random.choice(["0:*", "1:*", "*", "?:1"]).unwrap();
                        let compiled = Pattern::new(glob);
                        right.retain(|key, _| !compiled.matches(key));
                        let turn = outbox.push(now, pattern(glob));
                        peer.must_hear(turn, |other| compiled.matches(other));
                    }
                    4 | 5 => {
                        let (number, prime) = (random.u8(..), random.bool());
                        let values = right.entry(key.clone()).or_default();
                        if !prime {
                            values.clear();
                        }
                        values.push(number);
                        let turn = outbox.push(now, value(&key, number, prime));
                        peer.must_hear(turn, |other| other == key && !prime);
                    }
                    _ => {
                        let Some(out) = outbox.next(now) else { continue };
                        assert_eq!(out.seq, next_seq);
                        let arrives = random.u8(..3) > 0;
                        if arrives {
                            peer.receive(&out.kind());
                        }
                        if arrives && random.bool() {
                            confirm(&mut outbox);
                            next_seq += 1;
                        } else {
                            outbox.failed();
                        }
                        assert_eq!(outbox.confirmed_seq(), next_seq);
                    }
                }
                assert!(
                    outbox.waiting.len() <= outbox.max_entries && outbox.bytes <= outbox.max_bytes
                );
                peer.open.retain(|open| {
                    let is_out = open.turn < outbox.covered();
                    assert!(!is_out || open.heard, "{} of seed {seed}", open.key);
                    !is_out
                });
            }
            while let Some(out) = outbox.next(10_000) {
                peer.receive(&out.kind());
                confirm(&mut outbox);
            }
            assert!(peer.open.iter().all(|open| open.heard), "seed {seed}");
            for (key, held) in &peer.holds {
                let right = right.get(key).map(Vec::as_slice).unwrap_or_default();
                assert!(right.contains(held), "{key} of seed {seed}");
            }
            assert_eq!((outbox.bytes, outbox.len()), (0, 0));
            assert_eq!(outbox.deletes.len() + outbox.values.len() + outbox.patterns.len(), 0);
        }
    }
}
