//! The level in memory: values with their stale copies, and the keys known to be missing.
//!
//! Knows nothing of loads and fences. Whoever writes here holds the right to (see `flight`), and
//! gets back what the write displaced, to drop it where no lock is held: it is the user's, and
//! its `Drop` may call the cache.

mod engine;

use std::sync::Arc;

use self::engine::{Engine, Shape, Weighted};
use crate::{entry::Entry, glob::Pattern, options::CacheOptions};

pub(crate) struct L1<V> {
    values: Option<Engine<Entry<V>>>,
    missing: Option<Engine<Missing>>,
    /// How much of the user's weight is one unit of ours: 1, but for bounds above 4 GiB, so that
    /// an entry's weight fits 32 bits.
    unit: u64,
    /// The least that an entry counts for, by which a bound on weight bounds the number too.
    least_weight: u32,
}

/// A key known not to exist.
#[derive(Debug, Clone, Copy)]
struct Missing {
    since: u64,
    until: u64,
}

/// What a write pushed out: to be dropped by the caller, outside every lock.
#[must_use = "holds the user's values: drop it outside of locks"]
pub(crate) struct Displaced<V>(engine::Evicted<Entry<V>>);

impl<V> Displaced<V> {
    fn removed(entry: Option<Entry<V>>) -> Self {
        Self(engine::Evicted::replaced(entry))
    }

    /// How many entries of other keys made room for the written one.
    pub(crate) fn evictions(&self) -> u64 {
        self.0.len()
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
        let unit = l1.max_weight.map_or(1, |weight| weight.div_ceil(u64::from(u32::MAX)));
        let (capacity, shape, least_weight) = match (l1.max_weight, entries) {
            (None, entries) => {
                let entries = entries.unwrap_or(usize::MAX);
                (entries as u64, Shape::Entries(entries), 1)
            }
            (Some(weight), None) => (weight / unit, Shape::Weight, 1),
            (Some(weight), Some(entries)) => {
                let capacity = weight / unit;
                (capacity, Shape::Entries(entries), capacity.div_ceil(entries as u64))
            }
        };
        let negative = &options.negative_cache;
        let most_missing = negative.max_entries;
        Self {
            values: l1.enabled.then(|| Engine::new(capacity, shape)),
            missing: (l1.enabled && negative.enabled)
                .then(|| Engine::new(most_missing as u64, Shape::Entries(most_missing))),
            unit,
            least_weight: u32::try_from(least_weight).unwrap_or(u32::MAX),
        }
    }

    /// What an entry of this weight counts for.
    pub(crate) fn counted_weight(&self, weight: u64) -> u32 {
        let units = weight.div_ceil(self.unit);
        u32::try_from(units).unwrap_or(u32::MAX).max(self.least_weight)
    }

    /// Whether an entry that counts for this much can be kept at all.
    pub(crate) fn has_room_for(&self, counted_weight: u32) -> bool {
        let fits = |values: &Engine<_>| u64::from(counted_weight) <= values.heaviest();
        self.values.as_ref().is_none_or(fits)
    }

    /// The hit path: a fresh value that was stored at `floor` or later, or nothing.
    #[inline]
    pub(crate) fn fresh(&self, key: &str, now: u64, floor: u64) -> Option<Arc<V>> {
        let entry = self.values.as_ref()?.get(key)?;
        (entry.is_fresh(now) && entry.stored_at_or_after(floor)).then(|| entry.into_value())
    }

    /// Whatever is held for the key, fresh or stale.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.get(key)
    }

    /// Whatever is held for the key, fresh or stale, without counting as a use.
    pub(crate) fn peek(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.peek(key)
    }

    pub(crate) fn is_known_missing(&self, key: &str, now: u64, floor: u64) -> bool {
        let missing = self.missing.as_ref().and_then(|keys| keys.get(key));
        missing.is_some_and(|it| now < it.until && it.since >= floor)
    }

    /// Whether [`insert_missing`](Self::insert_missing) remembers anything.
    pub(crate) fn remembers_missing(&self) -> bool {
        self.missing.is_some()
    }

    pub(crate) fn insert(&self, key: &Arc<str>, entry: Entry<V>) -> Displaced<V> {
        let Some(values) = &self.values else { return Displaced::removed(None) };
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        Displaced(values.insert(key, entry))
    }

    /// The key does not exist: any copy goes, and that is remembered for as long as asked.
    pub(crate) fn insert_missing(&self, key: &Arc<str>, since: u64, until: u64) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            missing.insert(key, Missing { since, until });
        }
        Displaced::removed(self.remove_value(key))
    }

    pub(crate) fn remove(&self, key: &str) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        Displaced::removed(self.remove_value(key))
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
        self.values.as_ref().map_or(0, Engine::weight) * self.unit
    }

    fn remove_value(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.remove(key)
    }
}
