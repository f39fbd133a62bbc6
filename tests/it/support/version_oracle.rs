//! The version oracle: the version of each key, which only grows, and the instance and time of each
//! delete. It tells by how much a read was stale.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) struct VersionOracle {
    keys: Vec<Key>,
    /// Bit set of the instances whose invalidations cannot reach their peers at the moment.
    cut: AtomicUsize,
}

#[derive(Default)]
struct Key {
    version: AtomicU32,
    /// For each version, the time when its delete returned and the instance that called it.
    deleted: Mutex<Vec<Option<(Instant, usize)>>>,
}

impl VersionOracle {
    pub(crate) fn new(keys: usize) -> Self {
        let keys = std::iter::repeat_with(Key::default).take(keys).collect();
        Self { keys, cut: AtomicUsize::new(0) }
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn version(&self, key: usize) -> u32 {
        self.keys[key].version.load(Ordering::SeqCst)
    }

    /// Writes a new version; its delete is still to come.
    pub(crate) fn write(&self, key: usize) -> u32 {
        self.keys[key].version.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn deleted(&self, key: usize, version: u32, by: usize) {
        let mut deleted = self.keys[key].deleted.lock().unwrap();
        let version = version as usize;
        if deleted.len() <= version {
            deleted.resize(version + 1, None);
        }
        deleted[version] = Some((Instant::now(), by));
    }

    /// From now on the invalidations of these instances cannot reach their peers.
    pub(crate) fn cut(&self, instances: &[usize]) {
        self.cut.store(instances.iter().map(|it| 1 << it).sum(), Ordering::SeqCst);
    }

    /// The staleness of a read: the time from the oldest delete that the read should have seen to
    /// the start of the read.
    pub(crate) fn behind(&self, key: usize, read: u32, by: usize, at: Instant) -> Duration {
        let cut = self.cut.load(Ordering::SeqCst);
        let deleted = self.keys[key].deleted.lock().unwrap();
        let newer = deleted.iter().skip(read as usize + 1).flatten();
        let known = newer.filter(|(_, writer)| *writer == by || cut & 1 << writer == 0);
        known.map(|(when, _)| at.saturating_duration_since(*when)).max().unwrap_or_default()
    }
}
