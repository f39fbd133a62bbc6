//! The eviction engine of L1: quick_cache, a sharded clock-pro. No other file names it.
//!
//! The engine knows no times; [`Entry`](crate::entry::Entry) has them. An expired entry stays until
//! it is replaced, deleted or evicted: the bounds hold all the same, and no task walks the cache.
//!
//! Alternatives considered: moka. A hit in quick_cache costs an eighth of moka's, and its hit ratio
//! is above those of LRU and TinyLFU on the usual traces.

use std::sync::Arc;

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use crate::glob::Pattern;

pub(super) trait Weighted: Clone {
    /// The weight, at least 1. Must not change.
    fn weight(&self) -> u64;
}

type Key = Arc<str>;

pub(super) struct Engine<E: Weighted>(
    Cache<Key, E, ByWeight, foldhash::fast::RandomState, Collect>,
);

/// The expected contents of an engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// About `.0` entries.
    Entries(usize),
    /// An unknown number of entries: only their weight is bounded.
    Weight,
}

impl<E: Weighted> Engine<E> {
    /// A shard costs a few bytes and lets threads read in parallel. With fewer shards, a second
    /// thread on two cores adds almost nothing.
    const MAX_SHARDS: usize = 64;
    /// Number of shards where entries can be heavy, because an entry must fit into one shard.
    const SHARDS_BY_WEIGHT: usize = 8;
    /// Each shard evicts on its own, and a smaller one evicts badly.
    const MIN_ENTRIES_PER_SHARD: usize = 32;
    /// The part of a shard for entries that were read more than once: the default of quick_cache.
    const HOT: f64 = 0.97;
    /// Initial capacity where the number of entries is unknown; it grows.
    const INITIAL_ENTRIES: usize = 10_000;

    /// An engine that holds at most `capacity` of weight: the rest of an uneven division by the
    /// number of shards is not used.
    pub(super) fn new(capacity: u64, shape: Shape) -> Self {
        let (mut shards, expected) = match shape {
            Shape::Entries(entries) => (Self::MAX_SHARDS, entries),
            Shape::Weight => (Self::SHARDS_BY_WEIGHT, Self::INITIAL_ENTRIES),
        };
        while shards > 1
            && (expected / shards < Self::MIN_ENTRIES_PER_SHARD || capacity / (shards as u64) == 0)
        {
            shards /= 2;
        }
        let mut options = OptionsBuilder::new();
        options
            .shards(shards)
            .hot_allocation(Self::HOT)
            // Above the minimum of quick_cache, which would otherwise halve the shards again.
            .estimated_items_capacity(expected.max(shards * Self::MIN_ENTRIES_PER_SHARD))
            .weight_capacity(capacity / (shards as u64) * (shards as u64));
        #[expect(clippy::expect_used, reason = "fails only if one of the two is missing")]
        let options = options.build().expect("both capacities are given");
        Self(Cache::with_options(
            options,
            ByWeight,
            foldhash::fast::RandomState::default(),
            Collect,
        ))
    }

    /// The maximum weight of one entry: quick_cache refuses an entry that does not fit into the hot
    /// part of a shard.
    pub(super) fn max_entry_weight(&self) -> u64 {
        let capacity = self.0.shard_capacity();
        ((capacity as f64 * Self::HOT) as u64).clamp(1, capacity.max(1))
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<E> {
        self.0.get(key)
    }

    /// The entry of a key, without counting as a use.
    pub(super) fn peek(&self, key: &str) -> Option<E> {
        self.0.peek(key)
    }

    pub(super) fn insert(&self, key: &Key, entry: E) -> Displaced<E> {
        let mut displaced = Displaced { inserted: Some(Arc::clone(key)), ..Displaced::default() };
        self.0.insert_with_lifecycle(Arc::clone(key), entry, &mut displaced);
        displaced
    }

    pub(super) fn remove(&self, key: &str) -> Option<E> {
        self.0.remove(key).map(|(_, entry)| entry)
    }

    /// Walks all entries and removes those that match, one a step.
    ///
    /// Alternatives considered: `retain` and `clear` of quick_cache. They lock a shard for the
    /// whole walk, and drop user values under that lock.
    pub(super) fn sweep<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = ()> + 'a {
        self.0.iter().map(|(key, _)| {
            if pattern.matches(&key) {
                drop(self.0.remove(&key));
            }
        })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn weight(&self) -> u64 {
        self.0.weight()
    }
}

#[derive(Clone)]
struct ByWeight;

impl<E: Weighted> Weighter<Key, E> for ByWeight {
    fn weight(&self, _key: &Key, entry: &E) -> u64 {
        entry.weight()
    }
}

/// Collects the entries that an insert displaces, so that the caller drops them after the lock of
/// the shard.
#[derive(Clone)]
struct Collect;

impl<E> Lifecycle<Key, E> for Collect {
    type RequestState = Displaced<E>;

    fn on_evict(&self, displaced: &mut Displaced<E>, key: Key, entry: E) {
        // quick_cache reports the replaced entry of the same key here too.
        if displaced.inserted.as_ref() == Some(&key) {
            displaced.replaced = Some(entry);
        } else if displaced.first.is_none() {
            displaced.first = Some(entry);
        } else {
            displaced.others.push(entry);
        }
    }
}

/// The entries that a write displaced. Usually one, so only a second evicted one allocates.
#[must_use = "holds user values: drop it outside of locks"]
pub(crate) struct Displaced<E> {
    inserted: Option<Key>,
    replaced: Option<E>,
    first: Option<E>,
    others: Vec<E>,
}

impl<E> Default for Displaced<E> {
    fn default() -> Self {
        Self { inserted: None, replaced: None, first: None, others: Vec::new() }
    }
}

impl<E> Displaced<E> {
    pub(super) fn removed(entry: Option<E>) -> Self {
        Self { replaced: entry, ..Self::default() }
    }

    /// The number of entries of other keys that L1 evicted for the written one.
    pub(crate) fn evictions(&self) -> u64 {
        u64::from(self.first.is_some()) + self.others.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Heavy(u64);

    impl Weighted for Heavy {
        fn weight(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_bound_holds_for_every_capacity() {
        for capacity in [1usize, 2, 31, 33, 63, 64, 65, 100, 999, 2_049, 10_000, 12_345] {
            let engine = Engine::new(capacity as u64, Shape::Entries(capacity));
            let mut max = 0;
            for i in 0..capacity * 3 {
                drop(engine.insert(&format!("key:{i}").into(), Heavy(1)));
                max = max.max(engine.len());
            }
            assert!(max <= capacity, "{max} entries in a cache of {capacity}");
            assert!(max * 10 >= capacity * 9, "only {max} entries in a cache of {capacity}");
        }
    }

    #[test]
    fn an_entry_too_heavy_for_any_shard_is_returned() {
        let engine = Engine::new(6_400, Shape::Weight);
        assert_eq!(engine.max_entry_weight(), 776);
        drop(engine.insert(&"big".into(), Heavy(776)));
        assert!(engine.get("big").is_some());
        assert!(engine.insert(&"big".into(), Heavy(777)).replaced.is_some());
        assert!(engine.get("big").is_none());
    }

    #[test]
    fn a_replaced_entry_is_returned_and_is_no_eviction() {
        let engine = Engine::new(100, Shape::Entries(100));
        for _ in 0..10 {
            let displaced = engine.insert(&"same".into(), Heavy(1));
            assert_eq!(displaced.evictions(), 0);
        }
        assert!(engine.insert(&"same".into(), Heavy(1)).replaced.is_some());
    }

    #[test]
    fn a_pattern_removes_its_matches_and_nothing_else() {
        let engine = Engine::new(10_000, Shape::Entries(10_000));
        for i in 0..1_000 {
            drop(engine.insert(&format!("a:{i}").into(), Heavy(1)));
            drop(engine.insert(&format!("b:{i}").into(), Heavy(1)));
        }
        engine.sweep(&Pattern::new("a:*")).for_each(drop);
        assert_eq!(engine.len(), 1_000);
        assert!(engine.peek("a:7").is_none() && engine.peek("b:7").is_some());
        engine.sweep(&Pattern::new("*")).for_each(drop);
        assert_eq!(engine.len(), 0);
    }
}
