//! What a history stands on: a time, an origin, and who else is told what happens.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::record::{Change, Late, Read, Stamp, Write};

/// The keys of a history, and the globs that are used on them.
#[derive(Debug)]
pub(crate) struct Names {
    /// By number.
    pub(crate) keys: Vec<String>,
    /// Globs, with what they match.
    pub(crate) patterns: Vec<(String, Vec<usize>)>,
}

/// Something that is written down at once, so that it is known of who dies. Numbers are those of
/// the whole history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Fact {
    /// A change began.
    Changes(usize, Change),
    /// It ended then, and said that it is done, or not.
    Changed(usize, Stamp, bool),
    /// A value is on its way into a cache.
    Writes(usize, Write),
    /// It is this version.
    Loads(usize, u32),
    /// What the shared level said to it.
    Published(usize, bool),
    /// When its loader ended.
    Loaded(usize, Stamp),
    /// An answer.
    Read(Read),
    /// A call ended after its deadline.
    Late(Late),
    /// A promise was broken.
    Violated(String, u64, String),
    /// A call ended.
    Call,
    /// A subscription began.
    Listens(Stamp),
    /// A key was deleted that is deleted once.
    Told {
        /// The name of the key.
        key: String,
        /// Before it was deleted.
        begin: Stamp,
        /// Whether that was confirmed.
        done: bool,
    },
    /// A key was heard to be deleted.
    Heard(String),
    /// All were.
    HeardAll(Stamp),
}

pub(crate) trait Ground: Send + Sync {
    /// Milliseconds since the start.
    fn now(&self) -> u64;
    /// Now, and after all that was before.
    fn stamp(&self) -> Stamp;
    /// The origin changes: its new version.
    fn commit(&self, key: usize, exists: bool) -> u32;
    /// The origin's version, and whether there is a value.
    fn origin(&self, key: usize) -> (u32, bool);
    /// By key and version: whether there is a value.
    fn versions(&self) -> Vec<Vec<bool>>;
    /// Writes down.
    fn tell(&self, fact: &dyn Fn() -> Fact);
}

/// Tokio's time, and an origin in memory.
pub(crate) struct Simulated {
    start: Instant,
    seq: AtomicU64,
    origin: Mutex<Vec<Vec<bool>>>,
}

impl Simulated {
    pub(crate) fn new(keys: usize) -> Self {
        let origin = Mutex::new(vec![vec![true]; keys]);
        Self { start: Instant::now(), seq: AtomicU64::new(0), origin }
    }
}

impl Ground for Simulated {
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

    fn tell(&self, _: &dyn Fn() -> Fact) {}
}
