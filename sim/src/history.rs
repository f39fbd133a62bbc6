//! What happens, as it is written down.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    ground::{Fact, Ground, Names},
    record::{Change, Held, Late, Read, Record, Stamp, Violation, Way, Write},
};

/// What is going on.
#[derive(Default)]
pub(crate) struct Live {
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
pub(crate) struct History {
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

    /// Those that a glob of the history matches.
    pub(crate) fn keys_of(&self, pattern: &str) -> Vec<usize> {
        let mut patterns = self.names.patterns.iter();
        patterns.find(|(glob, _)| glob == pattern).map_or_else(Vec::new, |(_, keys)| keys.clone())
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
        let write = Write { key, version, way: Way::Set { change } };
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
            *record.live.changing.entry((by, key)).or_default() += 1;
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
            *record.live.changing.entry(changed).or_default() -= 1;
            changed
        });
        // One that came to nothing is made up for by a task of its own.
        let until = if done { 0 } else { end.at + 10 };
        self.with(|record| record.live.voided.insert((by, key), Voided { seq: end.seq, until }));
    }

    /// The shared level has this write now, or nothing.
    pub(crate) fn level_holds(&self, keys: &[usize], write: Option<usize>) {
        let since = self.stamp();
        let held = keys.iter().map(|&key| Held { key, write, since });
        self.with(|record| record.held.extend(held));
    }

    /// The shared level has answered a load of this key.
    pub(crate) fn leased(&self, by: usize, key: usize, leased: bool) {
        self.with(|record| {
            if leased {
                record.live.leases.insert((by, key), ());
            } else {
                record.live.leases.remove(&(by, key));
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
        let (number, write, twice) = self.with(|record| {
            let leased = record.live.leases.remove(&(by, key)).is_some();
            let voided = record.live.voided.get(&(by, key)).copied();
            let Voided { seq, until } = voided.unwrap_or(Voided { seq: 0, until: 0 });
            let is_changing = record.live.changing.get(&(by, key)).is_some_and(|count| *count > 0);
            // Neither began before the other's fence: whichever was the later could have joined.
            let is_joinable = |other: &&Running| {
                (other.by, other.key) == (by, key)
                    && other.begin.seq.min(begin.seq) > seq
                    && other.begin.at.min(begin.at) >= until
                    && called.at - other.begin.at < NOT_JOINED
            };
            let other = record.live.running.iter().find(is_joinable);
            let twice = other.filter(|_| !is_changing).map(|other| other.begin.at);
            let number = self.first + record.writes.len();
            record.live.running.push(Running { by, key, write: number, begin });
            let way = Way::Load { called, ended: None, leased, published: None };
            let write = Write { key, version: 0, way };
            record.writes.push(write);
            (number, write, twice)
        });
        self.tell(|| Fact::Writes(number, write));
        if let Some(since) = twice {
            let key = self.key(key);
            let how = format!("instance {by} loads {key} since {since} ms and begins again");
            self.violated("R7", how);
        }
        number
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
            record.live.running.retain(|it| it.write != write);
        });
    }

    /// Other loads of the key may begin beside those that run.
    pub(crate) fn void(&self, by: usize, key: usize) {
        let now = self.stamp();
        self.with(|record| {
            let voided = record.live.voided.entry((by, key)).or_insert(Voided { seq: 0, until: 0 });
            voided.seq = now.seq;
        });
    }

    pub(crate) fn void_all(&self, by: usize) {
        (0..self.names.keys.len()).for_each(|key| self.void(by, key));
    }
}
