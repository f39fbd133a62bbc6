//! The level in memory: values with their stale copies, and the keys known to be missing.
//!
//! Knows nothing of loads and fences. Whoever writes here holds the right to (see `flight`), and
//! gets back what the write displaced, to drop it where no lock is held: it is the user's, and
//! its `Drop` may call the cache.

mod engine;

use std::sync::Arc;

use self::engine::{Engine, Weighted};
use crate::{entry::Entry, options::CacheOptions, pattern::Pattern};

pub(crate) struct L1<V> {
    values: Option<Engine<Entry<V>>>,
    missing: Option<Engine<Missing>>,
    /// The least that an entry counts for, by which a bound on weight bounds the number too.
    least_weight: u32,
}

/// A key known not to exist.
#[derive(Debug, Clone, Copy)]
struct Missing {
    until: u64,
}

/// What a write pushed out: to be dropped by the caller, outside every lock.
#[must_use = "holds the user's values: drop it outside of locks"]
pub(crate) struct Displaced<V> {
    _replaced: Option<Entry<V>>,
    evicted: engine::Evicted<Entry<V>>,
}

impl<V> Displaced<V> {
    fn nothing() -> Self {
        Self { _replaced: None, evicted: engine::Evicted::default() }
    }

    /// How many entries made room for the written one.
    pub(crate) fn evictions(&self) -> u64 {
        self.evicted.len()
    }
}

impl<V> Weighted for Entry<V> {
    fn weight(&self) -> u64 {
        u64::from(Entry::weight(self))
    }
}

impl Weighted for Missing {
    fn weight(&self) -> u64 {
        1
    }
}

impl<V> L1<V> {
    pub(crate) fn new(options: &CacheOptions) -> Self {
        let l1 = &options.l1;
        let entries = match (l1.max_entries, l1.max_weight) {
            (None, None) => Some(crate::options::L1Options::DEFAULT_MAX_ENTRIES),
            (entries, _) => entries,
        };
        let (capacity, expected, least_weight) = match (l1.max_weight, entries) {
            (None, entries) => {
                let entries = entries.unwrap_or(usize::MAX);
                (entries as u64, entries, 1)
            }
            (Some(weight), None) => (weight, Engine::<Missing>::GUESSED_ENTRIES, 1),
            (Some(weight), Some(entries)) => (weight, entries, weight.div_ceil(entries as u64)),
        };
        let negative = &options.negative_cache;
        Self {
            values: l1.enabled.then(|| Engine::new(capacity, expected)),
            missing: (l1.enabled && negative.enabled)
                .then(|| Engine::new(negative.max_entries as u64, negative.max_entries)),
            least_weight: u32::try_from(least_weight).unwrap_or(u32::MAX),
        }
    }

    /// What an entry of this weight counts for.
    pub(crate) fn counted_weight(&self, weight: u64) -> u32 {
        u32::try_from(weight).unwrap_or(u32::MAX).max(self.least_weight)
    }

    /// The hit path: a fresh value, or nothing.
    #[inline]
    pub(crate) fn fresh(&self, key: &str, now: u64) -> Option<Arc<V>> {
        let entry = self.values.as_ref()?.get(key)?;
        entry.is_fresh(now).then(|| entry.into_value())
    }

    /// Whatever is held for the key, fresh or stale, without counting as a use.
    pub(crate) fn peek(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.peek(key)
    }

    pub(crate) fn is_known_missing(&self, key: &str, now: u64) -> bool {
        self.missing.as_ref().and_then(|keys| keys.get(key)).is_some_and(|it| now < it.until)
    }

    /// Whether [`insert_missing`](Self::insert_missing) remembers anything.
    pub(crate) fn remembers_missing(&self) -> bool {
        self.missing.is_some()
    }

    pub(crate) fn insert(&self, key: &Arc<str>, entry: Entry<V>) -> Displaced<V> {
        let Some(values) = &self.values else { return Displaced::nothing() };
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        let replaced = values.peek(key);
        let evicted = values.insert(Arc::clone(key), entry);
        Displaced { _replaced: replaced, evicted }
    }

    /// The key does not exist: any copy goes, and that is remembered for as long as asked.
    pub(crate) fn insert_missing(&self, key: &Arc<str>, until: u64) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            missing.insert(Arc::clone(key), Missing { until });
        }
        Displaced { _replaced: self.remove_value(key), evicted: engine::Evicted::default() }
    }

    pub(crate) fn remove(&self, key: &str) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        Displaced { _replaced: self.remove_value(key), evicted: engine::Evicted::default() }
    }

    /// Walks all keys and removes those that match, one key a step: readers of other keys never
    /// wait for more than one removal, and the caller may pause between steps.
    pub(crate) fn sweep<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = ()> + Send + 'a
    where
        V: Send + Sync,
    {
        let missing = self.missing.iter().flat_map(|keys| keys.sweep(pattern));
        missing.chain(self.values.iter().flat_map(|values| values.sweep(pattern)))
    }

    pub(crate) fn len(&self) -> usize {
        self.values.as_ref().map_or(0, Engine::len)
    }

    pub(crate) fn weight(&self) -> u64 {
        self.values.as_ref().map_or(0, Engine::weight)
    }

    fn remove_value(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.remove(key)
    }
}
