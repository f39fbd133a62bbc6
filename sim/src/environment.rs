//! The environment of a history: its time, its origin, and its tape.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::history::{Change, Late, Read, Stamp, Write};

/// The keys of a history, and the globs that its calls use.
#[derive(Debug)]
pub(crate) struct Names {
    /// The names, by number.
    pub(crate) keys: Vec<String>,
    /// The globs, with the keys that each matches.
    pub(crate) patterns: Vec<(String, Vec<usize>)>,
}

/// An entry of the tape, to which a process writes each event at once, so that the tape of a killed
/// process is complete. Changes and writes have numbers that are unique in the whole history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum TapeEntry {
    /// A change began.
    ChangeBegan(usize, Change),
    /// A change ended at this time, acknowledged or not, and pending or not.
    ChangeEnded(usize, Stamp, bool, bool),
    /// A value is about to enter a cache.
    Write(usize, Write),
    /// The loader of a write read this version from the origin.
    LoaderRead(usize, u32),
    /// The store's answer to the publication of a write.
    Published(usize, bool),
    /// The loader of a write ended.
    LoaderEnded(usize, Stamp),
    /// A call answered.
    Read(Read),
    /// A call ended after its deadline.
    Late(Late),
    /// A promise was broken: the rule, the time, the details.
    Violation(String, u64, String),
    /// A call ended.
    CallEnded,
    /// A subscription began.
    Subscribed(Stamp),
    /// A key was deleted that is deleted only once.
    DeletedOnce {
        /// The name of the key.
        key: String,
        /// The time before the delete.
        begin: Stamp,
        /// Whether the delete was confirmed.
        done: bool,
    },
    /// A delete of this key was received.
    DeleteReceived(String),
    /// A delete of all keys was received.
    ClearReceived(Stamp),
}

pub(crate) trait Environment: Send + Sync {
    /// Milliseconds since the start.
    fn now(&self) -> u64;
    /// The current time, with a sequence number higher than all earlier ones.
    fn stamp(&self) -> Stamp;
    /// Changes the origin and returns its new version.
    fn commit(&self, key: usize, exists: bool) -> u32;
    /// Returns the origin's version of a key, and whether it has a value.
    fn origin(&self, key: usize) -> (u32, bool);
    /// Returns, by key and version, whether the origin had a value.
    fn versions(&self) -> Vec<Vec<bool>>;
    /// Writes an entry to the tape, if there is one.
    fn write(&self, entry: &dyn Fn() -> TapeEntry);
}

/// Tokio's time, an origin in memory, and no tape.
pub(crate) struct SimulatedEnvironment {
    start: Instant,
    seq: AtomicU64,
    origin: Mutex<Vec<Vec<bool>>>,
}

impl SimulatedEnvironment {
    pub(crate) fn new(keys: usize) -> Self {
        let origin = Mutex::new(vec![vec![true]; keys]);
        Self { start: Instant::now(), seq: AtomicU64::new(0), origin }
    }
}

impl Environment for SimulatedEnvironment {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("a short history")
    }

    fn stamp(&self) -> Stamp {
        Stamp { at: self.now(), seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    fn commit(&self, key: usize, exists: bool) -> u32 {
        let versions = &mut self.origin.lock()[key];
        versions.push(exists);
        u32::try_from(versions.len() - 1).expect("few versions")
    }

    fn origin(&self, key: usize) -> (u32, bool) {
        let versions = &self.origin.lock()[key];
        let last = versions.len() - 1;
        (u32::try_from(last).expect("few versions"), versions[last])
    }

    fn versions(&self) -> Vec<Vec<bool>> {
        self.origin.lock().clone()
    }

    fn write(&self, _: &dyn Fn() -> TapeEntry) {}
}
