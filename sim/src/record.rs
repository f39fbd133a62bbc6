//! What is written down of a history, in its words.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{bounds::Bounds, history::Live};

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

/// What the shared level has under a key from then on.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The key.
    pub key: usize,
    /// The number of a [`Write`]. `None`: nothing.
    pub write: Option<usize>,
    /// From when on.
    pub since: Stamp,
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
    /// In the order in which it happened. Of a real server nobody knows.
    pub held: Vec<Held>,
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
    pub(crate) live: Live,
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
