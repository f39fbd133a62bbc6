//! What happened, as it is written down.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plan::KEYS;

/// When something happened: milliseconds from the start, and its place among all that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds.
    pub at: u64,
    /// The place.
    pub seq: u64,
}

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the memory of the instance.
    Memory,
    /// In the shared level.
    Level,
    /// It was loaded by this very call.
    Loader,
    /// It was loaded by another.
    Joined,
    /// In the shared level, by the load of another.
    JoinedLevel,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// Which incarnation of an instance gave it.
    pub by: usize,
    /// The key.
    pub key: usize,
    /// When it was asked for.
    pub begin: Stamp,
    /// When it came.
    pub end: Stamp,
    /// What it was: the number of a [`Write`]. `None`: that there is no value.
    pub found: Option<usize>,
    /// Where it was found.
    pub place: Place,
    /// Whether it was said to be stale.
    pub stale: bool,
    /// Whether it was asked for when all was well again.
    pub last: bool,
}

/// Something that says that what was there before is old: a delete, a set, a pattern.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// By which incarnation.
    pub by: usize,
    /// The key.
    pub key: usize,
    /// The version that the origin had when it began.
    pub version: u32,
    /// When it began.
    pub begin: Stamp,
    /// When it returned, or was dropped.
    pub end: Option<Stamp>,
    /// Whether it said that it is done.
    pub done: bool,
}

/// A value that got into a cache.
#[derive(Debug, Clone, Copy)]
pub struct Write {
    /// The key.
    pub key: usize,
    /// The origin's version that it is.
    pub version: u32,
    /// How.
    pub way: Way,
}

/// How a value got into a cache.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// By this change, a set.
    Set {
        /// Which.
        change: usize,
    },
    /// By a load.
    Load {
        /// When the loader was called.
        called: Stamp,
        /// When the loader returned.
        ended: Option<Stamp>,
        /// Whether the shared level gave a lease for it.
        leased: bool,
        /// What the shared level said to it.
        published: Option<bool>,
    },
}

/// A time at which deletes may be heard of late.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// Of this slot; `None`: of all.
    pub slot: Option<usize>,
    /// Milliseconds.
    pub from: u64,
    /// Milliseconds.
    pub to: u64,
    /// Whether what this slot publishes is held up.
    pub holds_up: bool,
    /// Whether nothing arrives at the slot, and it knows.
    pub cut: bool,
}

/// A life of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Incarnation {
    /// Its slot.
    pub slot: usize,
    /// Milliseconds.
    pub began: u64,
    /// Milliseconds; `None` if it lived to the end.
    pub ended: Option<u64>,
}

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// Milliseconds.
    pub at: u64,
    /// How.
    pub how: String,
}

/// All of it.
#[derive(Default)]
pub struct Record {
    seq: u64,
    /// Answers, in the order of their ends.
    pub reads: Vec<Read>,
    /// In the order of their beginnings.
    pub changes: Vec<Change>,
    /// By number.
    pub writes: Vec<Write>,
    /// By key and version: whether there is a value.
    pub origin: Vec<Vec<bool>>,
    /// In the order of their beginnings.
    pub troubles: Vec<Trouble>,
    /// By number.
    pub incarnations: Vec<Incarnation>,
    /// Found while it happened.
    pub violations: Vec<Violation>,
    /// Calls that were made and ended.
    pub calls: u64,
    /// Whether there is a shared level, which has forgotten nothing.
    pub agrees: bool,
    /// Whether changes that are done have been confirmed by the bus.
    pub confirms: bool,
    /// Leases that were given and whose load has not been called yet.
    leases: HashMap<(usize, usize), ()>,
    /// Loaders that run.
    running: Vec<Running>,
    /// When the running loads of a key of an incarnation were last made void, or anything else
    /// happened after which another may begin.
    voided: HashMap<(usize, usize), Voided>,
    /// How many changes of a key an incarnation is in the midst of.
    changing: HashMap<(usize, usize), u32>,
}

struct Running {
    by: usize,
    key: usize,
    write: usize,
    /// Of the call that it is for, which is before the load.
    begin: Stamp,
}

#[derive(Clone, Copy)]
struct Voided {
    seq: u64,
    /// Until then it may happen once more, unseen.
    until: u64,
}

/// The record of a history that happens. Clones are the same one.
#[derive(Clone)]
pub struct History {
    start: Instant,
    record: Arc<Mutex<Record>>,
}

/// How old a load is that is not joined any more, in milliseconds: the cache's default.
const NOT_JOINED: u64 = 5_000;

impl History {
    pub(crate) fn new() -> Self {
        let record = Record { origin: vec![vec![true]; KEYS.len()], ..Record::default() };
        Self { start: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("a short history")
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn stamp(&self) -> Stamp {
        let at = self.now();
        let mut record = self.record.lock();
        record.seq += 1;
        Stamp { at, seq: record.seq }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Record) -> T) -> T {
        act(&mut self.record.lock())
    }

    pub(crate) fn finish(self) -> Record {
        std::mem::take(&mut *self.record.lock())
    }

    pub(crate) fn violated(&self, rule: &'static str, how: String) {
        let at = self.now();
        self.record.lock().violations.push(Violation { rule, at, how });
    }

    /// The origin changes: its new version.
    pub(crate) fn commit(&self, key: usize, exists: bool) -> u32 {
        let mut record = self.record.lock();
        let versions = &mut record.origin[key];
        versions.push(exists);
        u32::try_from(versions.len() - 1).expect("few versions")
    }

    pub(crate) fn changes(&self, by: usize, key: usize, version: u32) -> usize {
        let begin = self.stamp();
        self.void(by, key);
        let mut record = self.record.lock();
        *record.changing.entry((by, key)).or_default() += 1;
        record.changes.push(Change { by, key, version, begin, end: None, done: false });
        record.changes.len() - 1
    }

    pub(crate) fn changed(&self, change: usize, done: bool) {
        let end = self.stamp();
        let (by, key) = self.with(|record| {
            let change = &mut record.changes[change];
            change.end = Some(end);
            change.done = done;
            let changed = (change.by, change.key);
            *record.changing.entry(changed).or_default() -= 1;
            changed
        });
        // One that came to nothing is made up for by a task of its own.
        let until = if done { 0 } else { end.at + 10 };
        self.with(|record| record.voided.insert((by, key), Voided { seq: end.seq, until }));
    }

    /// The shared level has answered a load of this key.
    pub(crate) fn leased(&self, by: usize, key: usize, leased: bool) {
        self.with(|record| {
            if leased {
                record.leases.insert((by, key), ());
            } else {
                record.leases.remove(&(by, key));
            }
        });
    }

    pub(crate) fn published(&self, write: usize, answer: bool) {
        self.with(|record| {
            if let Way::Load { published, .. } = &mut record.writes[write].way {
                *published = Some(answer);
            }
        });
    }

    /// A loader is called, for a call that began then: the number of what it will give.
    pub(crate) fn called(&self, by: usize, key: usize, begin: Stamp) -> usize {
        let called = self.stamp();
        self.with(|record| {
            let leased = record.leases.remove(&(by, key)).is_some();
            let voided = record.voided.get(&(by, key)).copied();
            let Voided { seq, until } = voided.unwrap_or(Voided { seq: 0, until: 0 });
            let is_changing = record.changing.get(&(by, key)).is_some_and(|count| *count > 0);
            // Neither began before the other's fence: whichever was the later could have joined.
            let is_joinable = |other: &&Running| {
                (other.by, other.key) == (by, key)
                    && other.begin.seq.min(begin.seq) > seq
                    && other.begin.at.min(begin.at) >= until
                    && called.at - other.begin.at < NOT_JOINED
            };
            let other = record.running.iter().find(is_joinable);
            if let Some(Running { begin: since, .. }) = other.filter(|_| !is_changing) {
                let how = format!(
                    "instance {by} loads {} since {} ms and begins again",
                    KEYS[key], since.at
                );
                record.violations.push(Violation { rule: "R7", at: called.at, how });
            }
            record.running.push(Running { by, key, write: record.writes.len(), begin });
            let way = Way::Load { called, ended: None, leased, published: None };
            record.writes.push(Write { key, version: 0, way });
            record.writes.len() - 1
        })
    }

    /// The loader reads the origin: the version, and whether there is a value.
    pub(crate) fn loads(&self, write: usize) -> (u32, bool) {
        self.with(|record| {
            let key = record.writes[write].key;
            let versions = &record.origin[key];
            let version = u32::try_from(versions.len() - 1).expect("few versions");
            let exists = versions[versions.len() - 1];
            record.writes[write].version = version;
            (version, exists)
        })
    }

    /// The loader has ended, or was dropped.
    pub(crate) fn loaded(&self, write: usize) {
        let now = self.stamp();
        self.with(|record| {
            if let Way::Load { ended, .. } = &mut record.writes[write].way {
                *ended = Some(now);
            }
            record.running.retain(|it| it.write != write);
        });
    }

    /// Other loads of the key may begin beside those that run.
    pub(crate) fn void(&self, by: usize, key: usize) {
        let now = self.stamp();
        self.with(|record| {
            let voided = record.voided.entry((by, key)).or_insert(Voided { seq: 0, until: 0 });
            voided.seq = now.seq;
        });
    }

    pub(crate) fn void_all(&self, by: usize) {
        (0..KEYS.len()).for_each(|key| self.void(by, key));
    }
}

impl Record {
    /// A number that two histories share if they are the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |number: u64| digest = (digest ^ number).wrapping_mul(0x0100_0000_01b3);
        for read in &self.reads {
            let found = read.found.map_or(u64::MAX, |found| found as u64);
            let place = read.place as u64 * 4 + u64::from(read.stale) * 2 + u64::from(read.last);
            for number in [
                read.by as u64,
                read.key as u64,
                read.begin.at,
                read.begin.seq,
                read.end.at,
                read.end.seq,
                found,
                place,
            ] {
                add(number);
            }
        }
        for change in &self.changes {
            let end = change.end.map_or(0, |end| end.seq);
            for number in [u64::from(change.version), change.begin.seq, end, change.done.into()] {
                add(number);
            }
        }
        self.writes.iter().for_each(|write| add(write.version.into()));
        add(self.violations.len() as u64);
        digest
    }
}
