//! The data of a recorded history.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::bounds::Bounds;

/// A time, and its position in the order of all recorded events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since the start.
    pub at: u64,
    /// The position.
    pub seq: u64,
}

/// The source of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadSource {
    /// L1 of the instance.
    L1,
    /// L2.
    L2,
    /// The load of this call.
    Loader,
    /// The load of another call.
    Joined,
    /// L2, read by the load of another call.
    JoinedL2,
}

/// An answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Read {
    /// The incarnation that answered.
    pub by: usize,
    /// The key.
    pub key: usize,
    /// When the call began.
    pub begin: Stamp,
    /// When the call ended.
    pub end: Stamp,
    /// The number of the [`Write`] that brought the value. `None`: the answer was that there is no
    /// value.
    pub found: Option<usize>,
    /// The source.
    pub source: ReadSource,
    /// Whether the answer was marked stale.
    pub stale: bool,
    /// Whether the call began after recovery.
    pub last: bool,
}

/// A change: a delete, a set, or a delete by pattern.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Change {
    /// The incarnation that made it.
    pub by: usize,
    /// The key.
    pub key: usize,
    /// The origin's version when the change began.
    pub version: u32,
    /// When the call began.
    pub begin: Stamp,
    /// When the call returned or was dropped.
    pub end: Option<Stamp>,
    /// Whether the call returned `Ok`.
    pub done: bool,
    /// Whether the call said that the store has not got the change.
    pub pending: bool,
}

/// A value that entered a cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Write {
    /// The key.
    pub key: usize,
    /// The origin's version of the value.
    pub version: u32,
    /// The origin of the write.
    pub origin: WriteOrigin,
}

/// How a value entered a cache.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum WriteOrigin {
    /// By a `set`.
    Set {
        /// The number of its [`Change`].
        change: usize,
    },
    /// By a load.
    Load {
        /// When the loader was called.
        called: Stamp,
        /// When the loader ended.
        ended: Option<Stamp>,
        /// Whether the store gave the load a lease.
        leased: bool,
        /// The store's answer to the publication.
        published: Option<bool>,
    },
}

/// A time in which events may arrive late.
#[derive(Debug, Clone, Copy)]
pub struct FaultWindow {
    /// The affected slot; `None`: all slots.
    pub slot: Option<usize>,
    /// Milliseconds.
    pub from: u64,
    /// Milliseconds.
    pub to: u64,
    /// Whether events that the slot publishes are delayed.
    pub delays_publish: bool,
    /// Whether nothing that the slot publishes reaches its peers, beacons included, so that they
    /// notice its silence.
    pub cut_off: bool,
    /// The broker is split: it confirms messages that only one side receives. The slots below this
    /// number are one side.
    pub split: Option<usize>,
    /// Whether no message reaches the slot, and the slot knows it.
    pub disconnected: bool,
    /// Whether no message reaches any slot, and all slots know it, for the whole time.
    pub bus_down: bool,
    /// Whether the slot is frozen.
    pub frozen: bool,
}

impl FaultWindow {
    pub(crate) const fn new(slot: Option<usize>, from: u64, to: u64) -> Self {
        Self {
            slot,
            from,
            to,
            delays_publish: false,
            cut_off: false,
            split: None,
            disconnected: false,
            bus_down: false,
            frozen: false,
        }
    }

    /// Whether the broker is split between two slots.
    pub(crate) fn parts(&self, one: usize, other: usize) -> bool {
        self.split.is_some_and(|side| (one < side) != (other < side))
    }
}

/// An incarnation of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Incarnation {
    /// Its slot.
    pub slot: usize,
    /// Milliseconds.
    pub began: u64,
    /// Milliseconds; `None`: it lived to the end.
    pub ended: Option<u64>,
    /// Whether its changes wait for the confirmation of the bus.
    pub confirms: bool,
}

/// The contents of the store under a key from a time on.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The key.
    pub key: usize,
    /// The number of the [`Write`]; `None`: no value.
    pub write: Option<usize>,
    /// The start of that time.
    pub since: Stamp,
}

/// A call that ended after its deadline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Late {
    /// The incarnation that was called.
    pub by: usize,
    /// The name of the call.
    pub what: Cow<'static, str>,
    /// Milliseconds.
    pub begin: u64,
    /// Milliseconds.
    pub end: u64,
    /// The deadline, in milliseconds after `begin`.
    pub limit: u64,
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The rule.
    pub rule: Cow<'static, str>,
    /// Milliseconds.
    pub at: u64,
    /// The details.
    pub how: String,
}

/// A recorded history.
#[derive(Default)]
pub struct History {
    /// The upper bounds of delays.
    pub bounds: Bounds,
    /// The names of the keys.
    pub keys: Vec<String>,
    /// The answers, in the order of their ends.
    pub reads: Vec<Read>,
    /// The changes, in the order of their beginnings.
    pub changes: Vec<Change>,
    /// The writes, by number.
    pub writes: Vec<Write>,
    /// By key and version: whether the origin had a value.
    pub origin: Vec<Vec<bool>>,
    /// The times of faults, in the order of their beginnings.
    pub fault_windows: Vec<FaultWindow>,
    /// The incarnations, by number.
    pub incarnations: Vec<Incarnation>,
    /// The late calls, in the order of their ends.
    pub late: Vec<Late>,
    /// The contents of the simulated store, in the order of changes. Empty for a real server.
    pub held: Vec<Held>,
    /// The promises whose break was recognised during the history.
    pub violations: Vec<Violation>,
    /// The number of calls that ended.
    pub calls: u64,
    /// Whether there is an L2 store, and it lost no data.
    pub l2_is_complete: bool,
    /// Whether the bus delivers every event that it has confirmed.
    pub bus_keeps_confirmed: bool,
    /// Whether every instance publishes all the time, except while it is frozen.
    pub never_idle: bool,
}

impl History {
    /// Returns a hash that two histories share if they are equal.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |number: u64| digest = (digest ^ number).wrapping_mul(0x0100_0000_01b3);
        for read in &self.reads {
            let found = read.found.map_or(u64::MAX, |found| found as u64);
            let source = read.source as u64 * 4 + u64::from(read.stale) * 2 + u64::from(read.last);
            for number in [
                read.by as u64,
                read.key as u64,
                read.begin.at,
                read.begin.seq,
                read.end.at,
                read.end.seq,
                found,
                source,
            ] {
                add(number);
            }
        }
        for change in &self.changes {
            let end = change.end.map_or(0, |end| end.seq);
            let ended = u64::from(change.done) + 2 * u64::from(change.pending);
            for number in [u64::from(change.version), change.begin.seq, end, ended] {
                add(number);
            }
        }
        self.writes.iter().for_each(|write| add(write.version.into()));
        add((self.violations.len() + self.late.len()) as u64);
        digest
    }
}
