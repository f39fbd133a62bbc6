//! What is true, and since when: versions that only grow, per key, and who wrote each.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) struct Truth {
    keys: Vec<Key>,
    /// Instances whose writes the others cannot know of at the moment, as bits.
    cut: AtomicUsize,
}

#[derive(Default)]
struct Key {
    version: AtomicU32,
    /// When the delete after a version returned, and whose it was.
    deleted: Mutex<Vec<Option<(Instant, usize)>>>,
}

impl Truth {
    pub(crate) fn about(keys: usize) -> Self {
        let keys = std::iter::repeat_with(Key::default).take(keys).collect();
        Self { keys, cut: AtomicUsize::new(0) }
    }

    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn version(&self, key: usize) -> u32 {
        self.keys[key].version.load(Ordering::SeqCst)
    }

    /// A new version, whose delete is still to come.
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

    /// From now on the others cannot know what these write.
    pub(crate) fn cut(&self, instances: &[usize]) {
        self.cut.store(instances.iter().map(|it| 1 << it).sum(), Ordering::SeqCst);
    }

    /// How long ago, when the read began, a delete had returned that the read should have seen.
    pub(crate) fn behind(&self, key: usize, read: u32, by: usize, at: Instant) -> Duration {
        let cut = self.cut.load(Ordering::SeqCst);
        let deleted = self.keys[key].deleted.lock().unwrap();
        let newer = deleted.iter().skip(read as usize + 1).flatten();
        let known = newer.filter(|(_, writer)| *writer == by || cut & 1 << writer == 0);
        known.map(|(when, _)| at.saturating_duration_since(*when)).max().unwrap_or_default()
    }
}
