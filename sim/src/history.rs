//! What happened, as it is written down.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    bounds::Bounds,
    ground::{Fact, Ground, Names},
};

/// When something happened: milliseconds from the start, and its place among all that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds.
    pub at: u64,
    /// The place.
    pub seq: u64,
}

/// Where a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: usize,
    /// The origin's version that it is.
    pub version: u32,
    /// How.
    pub way: Way,
}

/// How a value got into a cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
    /// Whether nobody hears anybody, and all know, all the time.
    pub down: bool,
    /// Whether the slot stands still meanwhile.
    pub stands: bool,
}

impl Trouble {
    pub(crate) const fn new(slot: Option<usize>, from: u64, to: u64) -> Self {
        Self { slot, from, to, holds_up: false, cut: false, down: false, stands: false }
    }
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
    /// Whether its changes that are done have been confirmed by the bus.
    pub confirms: bool,
}

/// A call that ended after its deadline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Late {
    /// Of which incarnation.
    pub by: usize,
    /// Which.
    pub what: Cow<'static, str>,
    /// Milliseconds.
    pub begin: u64,
    /// Milliseconds.
    pub end: u64,
    /// How long it may take, in milliseconds.
    pub limit: u64,
}

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub rule: Cow<'static, str>,
    /// Milliseconds.
    pub at: u64,
    /// How.
    pub how: String,
}

/// All of it.
#[derive(Default)]
pub struct Record {
    /// How late what may be.
    pub bounds: Bounds,
    /// The names of the keys.
    pub keys: Vec<String>,
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
    /// In the order of their ends.
    pub late: Vec<Late>,
    /// Found while it happened.
    pub violations: Vec<Violation>,
    /// Calls that were made and ended.
    pub calls: u64,
    /// Whether there is a shared level, which has forgotten nothing.
    pub agrees: bool,
    /// Whether the bus keeps what it has confirmed.
    pub keeps: bool,
    /// Whether no instance is ever quiet, unless it stands still.
    pub busy: bool,
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
    ground: Arc<dyn Ground>,
    names: Arc<Names>,
    /// The number of what is written down first.
    first: usize,
    record: Arc<Mutex<Record>>,
}

/// How old a load is that is not joined any more, in milliseconds: the cache's default.
const NOT_JOINED: u64 = 5_000;

impl History {
    pub(crate) fn new(ground: impl Ground + 'static, names: Arc<Names>, first: usize) -> Self {
        let record = Record { keys: names.keys.clone(), ..Record::default() };
        Self { ground: Arc::new(ground), names, first, record: Arc::new(Mutex::new(record)) }
    }

    pub(crate) fn now(&self) -> u64 {
        self.ground.now()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn key(&self, key: usize) -> &str {
        &self.names.keys[key]
    }

    pub(crate) fn key_of(&self, name: &str) -> Option<usize> {
        self.names.keys.iter().position(|key| key == name)
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.ground.stamp()
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Record) -> T) -> T {
        act(&mut self.record.lock())
    }

    pub(crate) fn tell(&self, fact: impl Fn() -> Fact) {
        self.ground.tell(&fact);
    }

    pub(crate) fn finish(self) -> Record {
        let record = std::mem::take(&mut *self.record.lock());
        Record { origin: self.ground.versions(), ..record }
    }

    pub(crate) fn violated(&self, rule: &'static str, how: String) {
        let at = self.now();
        self.tell(|| Fact::Violated(rule.to_owned(), at, how.clone()));
        self.record.lock().violations.push(Violation { rule: rule.into(), at, how });
    }

    /// A call has ended that began then and may take that long.
    pub(crate) fn took(&self, by: usize, what: &'static str, begin: u64, limit: u64) {
        let end = self.now();
        if end - begin > limit + self.with(|record| record.bounds.slack) {
            let late = Late { by, what: what.into(), begin, end, limit };
            self.tell(|| Fact::Late(late.clone()));
            self.record.lock().late.push(late);
        }
    }

    pub(crate) fn called_once_more(&self) {
        self.tell(|| Fact::Call);
        self.with(|record| record.calls += 1);
    }

    pub(crate) fn reads(&self, read: Read) {
        self.tell(|| Fact::Read(read));
        self.with(|record| record.reads.push(read));
    }

    /// The origin changes: its new version.
    pub(crate) fn commit(&self, key: usize, exists: bool) -> u32 {
        self.ground.commit(key, exists)
    }

    /// A value is given, by this change.
    pub(crate) fn sets(&self, key: usize, version: u32, change: usize) -> usize {
        self.writes(Write { key, version, way: Way::Set { change } })
    }

    fn writes(&self, write: Write) -> usize {
        let number = self.with(|record| {
            record.writes.push(write);
            self.first + record.writes.len() - 1
        });
        self.tell(|| Fact::Writes(number, write));
        number
    }

    pub(crate) fn changes(&self, by: usize, key: usize, version: u32) -> usize {
        let begin = self.stamp();
        self.void(by, key);
        let change = Change { by, key, version, begin, end: None, done: false };
        let number = self.with(|record| {
            *record.changing.entry((by, key)).or_default() += 1;
            record.changes.push(change);
            self.first + record.changes.len() - 1
        });
        self.tell(|| Fact::Changes(number, change));
        number
    }

    pub(crate) fn changed(&self, change: usize, done: bool) {
        let end = self.stamp();
        self.tell(|| Fact::Changed(change, end, done));
        let (by, key) = self.with(|record| {
            let change = &mut record.changes[change - self.first];
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
        self.tell(|| Fact::Published(write, answer));
        self.with(|record| {
            if let Way::Load { published, .. } = &mut record.writes[write - self.first].way {
                *published = Some(answer);
            }
        });
    }

    /// A loader is called, for a call that began then: the number of what it will give.
    pub(crate) fn called(&self, by: usize, key: usize, begin: Stamp) -> usize {
        let called = self.stamp();
        let (write, twice) = self.with(|record| {
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
            let twice = other.filter(|_| !is_changing).map(|other| other.begin.at);
            let write = self.first + record.writes.len();
            record.running.push(Running { by, key, write, begin });
            let way = Way::Load { called, ended: None, leased, published: None };
            (Write { key, version: 0, way }, twice)
        });
        if let Some(since) = twice {
            let key = self.key(key);
            let how = format!("instance {by} loads {key} since {since} ms and begins again");
            self.violated("R7", how);
        }
        self.writes(write)
    }

    /// The loader reads the origin: the version, and whether there is a value.
    pub(crate) fn loads(&self, write: usize) -> (u32, bool) {
        let (version, exists) = self.with(|record| {
            let write = &mut record.writes[write - self.first];
            let (version, exists) = self.ground.origin(write.key);
            write.version = version;
            (version, exists)
        });
        self.tell(|| Fact::Loads(write, version));
        (version, exists)
    }

    /// The loader has ended, or was dropped.
    pub(crate) fn loaded(&self, write: usize) {
        let now = self.stamp();
        self.tell(|| Fact::Loaded(write, now));
        self.with(|record| {
            if let Way::Load { ended, .. } = &mut record.writes[write - self.first].way {
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
        (0..self.names.keys.len()).for_each(|key| self.void(by, key));
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
        add((self.violations.len() + self.late.len()) as u64);
        digest
    }
}
