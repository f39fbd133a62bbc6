//! L1: the memory of the instance, with fresh and stale values and with negative entries.
//!
//! L1 knows neither loads nor fences: a writer holds the right to write (see `flight`). Each write
//! returns the displaced values, and the writer drops them where no lock is held, because the
//! `Drop` of a user value may call the cache.

mod engine;

use std::sync::Arc;

use self::engine::{Engine, Shape, Weighted};
use crate::{
    entry::Entry,
    glob::Pattern,
    options::{CacheOptions, L1Options},
};

pub(crate) struct L1<V> {
    values: Option<Engine<Entry<V>>>,
    missing: Option<Engine<Missing>>,
    /// The user weight that counts as 1: above 1 only for bounds above 2^32, so that the weight of
    /// an entry fits 32 bits.
    weight_scale: u64,
    /// The minimum weight that an entry counts for, so that a bound on weight bounds the number of
    /// entries too.
    min_weight: u32,
}

/// A negative entry: the key does not exist.
#[derive(Debug, Clone, Copy)]
struct Missing {
    since: u64,
    until: u64,
}

/// The values that a write displaced. The writer drops them outside of every lock.
pub(crate) type Displaced<V> = engine::Displaced<Entry<V>>;

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
        let default = l1.max_weight.is_none().then_some(L1Options::DEFAULT_MAX_ENTRIES);
        let entries = l1.max_entries.or(default);
        // Nothing is divided by zero: the options of an L1 that is off are not checked.
        let scale = |weight: u64| weight.div_ceil(u64::from(u32::MAX)).max(1);
        let weight_scale = l1.max_weight.map_or(1, scale);
        let shape = entries.map_or(Shape::Weight, Shape::Entries);
        let entries = entries.map_or(u64::MAX, |entries| entries as u64);
        let capacity = l1.max_weight.map_or(entries, |weight| weight / weight_scale);
        let min_weight = capacity.div_ceil(entries.max(1));
        let negative = &options.negative_cache;
        let max_missing = negative.max_entries;
        Self {
            values: l1.enabled.then(|| Engine::new(capacity, shape)),
            missing: (l1.enabled && negative.enabled)
                .then(|| Engine::new(max_missing as u64, Shape::Entries(max_missing))),
            weight_scale,
            min_weight: u32::try_from(min_weight).unwrap_or(u32::MAX),
        }
    }

    /// Converts a user weight to the weight that an entry counts for.
    pub(crate) fn counted_weight(&self, weight: u64) -> u32 {
        let units = weight.div_ceil(self.weight_scale);
        u32::try_from(units).unwrap_or(u32::MAX).max(self.min_weight)
    }

    /// Whether L1 can keep an entry of this counted weight at all.
    pub(crate) fn has_room_for(&self, counted_weight: u32) -> bool {
        let fits = |values: &Engine<_>| u64::from(counted_weight) <= values.max_entry_weight();
        self.values.as_ref().is_none_or(fits)
    }

    /// The hit path: the value of a fresh entry that was stored at `min_stored_at` or later.
    #[inline]
    pub(crate) fn fresh(&self, key: &str, now: u64, min_stored_at: u64) -> Option<Arc<V>> {
        let entry = self.values.as_ref()?.get(key)?;
        (entry.is_fresh(now) && entry.stored_at_or_after(min_stored_at)).then(|| entry.into_value())
    }

    /// The entry of the key, fresh or stale.
    pub(crate) fn get(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.get(key)
    }

    /// The entry of the key, fresh or stale. Does not count as a use.
    pub(crate) fn peek(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.peek(key)
    }

    pub(crate) fn is_known_missing(&self, key: &str, now: u64, min_stored_at: u64) -> bool {
        let missing = self.missing.as_ref().and_then(|keys| keys.get(key));
        missing.is_some_and(|it| now < it.until && it.since >= min_stored_at)
    }

    /// Since when and until when the key is known not to exist. Does not count as a use.
    pub(crate) fn peek_missing(&self, key: &str) -> Option<(u64, u64)> {
        self.missing.as_ref()?.peek(key).map(|it| (it.since, it.until))
    }

    /// Whether [`insert_missing`](Self::insert_missing) keeps negative entries.
    pub(crate) fn remembers_missing(&self) -> bool {
        self.missing.is_some()
    }

    pub(crate) fn insert(&self, key: &Arc<str>, entry: Entry<V>) -> Displaced<V> {
        let Some(values) = &self.values else { return Displaced::removed(None) };
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        values.insert(key, entry)
    }

    /// Removes the value of a key that does not exist, and keeps a negative entry until `until`.
    pub(crate) fn insert_missing(&self, key: &Arc<str>, since: u64, until: u64) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            drop(missing.insert(key, Missing { since, until }));
        }
        Displaced::removed(self.remove_value(key))
    }

    pub(crate) fn remove(&self, key: &str) -> Displaced<V> {
        if let Some(missing) = &self.missing {
            missing.remove(key);
        }
        Displaced::removed(self.remove_value(key))
    }

    /// Walks all keys and removes those that match, one key a step: a reader of another key waits
    /// for at most one removal, and the caller may pause between steps.
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
        self.values.as_ref().map_or(0, Engine::weight) * self.weight_scale
    }

    fn remove_value(&self, key: &str) -> Option<Entry<V>> {
        self.values.as_ref()?.remove(key)
    }
}
