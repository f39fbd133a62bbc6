//! The only file that names the memory engine, quick_cache: a sharded clock-pro whose hit costs an
//! eighth of moka's and whose hit ratio is above LRU's and TinyLFU's on the usual traces.
//!
//! It has neither times nor timers; [`Entry`](crate::entry::Entry) brings the times. An expired
//! entry stays until it is replaced, deleted or pushed out: the bounds hold all the same, and no
//! task has to walk the cache.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use crate::glob::Pattern;

pub(super) trait Weighted: Clone {
    /// The same at each call, at least 1.
    fn weight(&self) -> u64;
}

type Key = Arc<str>;

pub(super) struct Engine<E: Weighted>(
    Cache<Key, E, ByWeight, foldhash::fast::RandomState, Collect>,
);

/// What an engine is expected to hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// About this many entries.
    Entries(usize),
    /// Nobody knows how many: only their weight is bounded.
    Weight,
}

impl<E: Weighted> Engine<E> {
    /// Shards cost a few bytes each and let threads read side by side; with fewer, a second
    /// thread on two cores adds almost nothing.
    const MOST_SHARDS: usize = 64;
    /// An entry must fit into a shard: where entries can be heavy, shards are few.
    const SHARDS_BY_WEIGHT: usize = 8;
    /// A shard evicts on its own, so a small one evicts badly.
    const LEAST_ENTRIES_PER_SHARD: usize = 32;
    /// The part of a shard for entries asked for more than once: quick_cache's own default.
    const HOT: f64 = 0.97;
    /// Room to begin with where the number of entries is anyone's guess; it grows.
    const GUESSED_ENTRIES: usize = 10_000;

    /// Holds at most `capacity` of weight, never more: what does not divide evenly is left out.
    pub(super) fn new(capacity: u64, shape: Shape) -> Self {
        let (mut shards, expected) = match shape {
            Shape::Entries(entries) => (Self::MOST_SHARDS, entries),
            Shape::Weight => (Self::SHARDS_BY_WEIGHT, Self::GUESSED_ENTRIES),
        };
        while shards > 1
            && (expected / shards < Self::LEAST_ENTRIES_PER_SHARD
                || capacity / (shards as u64) == 0)
        {
            shards /= 2;
        }
        let mut options = OptionsBuilder::new();
        options
            .shards(shards)
            .hot_allocation(Self::HOT)
            // Above any shard's least, or quick_cache would halve the number again.
            .estimated_items_capacity(expected.max(shards * Self::LEAST_ENTRIES_PER_SHARD))
            .weight_capacity(capacity / (shards as u64) * (shards as u64));
        #[expect(clippy::expect_used, reason = "fails only where one of the two is left out")]
        let options = options.build().expect("both capacities are given");
        Self(Cache::with_options(
            options,
            ByWeight,
            foldhash::fast::RandomState::default(),
            Collect,
        ))
    }

    /// The most that one entry may weigh: quick_cache refuses what does not fit into the hot part
    /// of a shard.
    pub(super) fn heaviest(&self) -> u64 {
        let capacity = self.0.shard_capacity();
        ((capacity as f64 * Self::HOT) as u64).clamp(1, capacity.max(1))
    }

    #[inline]
    pub(super) fn get(&self, key: &str) -> Option<E> {
        self.0.get(key)
    }

    /// Like `get`, but does not count as a use.
    pub(super) fn peek(&self, key: &str) -> Option<E> {
        self.0.peek(key)
    }

    pub(super) fn insert(&self, key: &Key, entry: E) -> Evicted<E> {
        let mut evicted = Evicted { inserted: Some(Arc::clone(key)), ..Evicted::default() };
        self.0.insert_with_lifecycle(Arc::clone(key), entry, &mut evicted);
        evicted
    }

    pub(super) fn remove(&self, key: &str) -> Option<E> {
        self.0.remove(key).map(|(_, entry)| entry)
    }

    /// `retain` and `clear` of the engine were refused: they hold a shard for the whole walk and
    /// drop the user's values under its lock.
    pub(super) fn sweep<'a>(&'a self, pattern: &'a Pattern) -> impl Iterator<Item = ()> + 'a {
        self.0.iter().map(|(key, _)| {
            if pattern.matches(&key) {
                let removed = self.0.remove(&key);
                // The user's value, whose `Drop` may panic: that harms nobody but itself.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(removed)));
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

/// Gathers what an insert pushed out, so that it is dropped after the shard's lock.
#[derive(Clone)]
struct Collect;

impl<E> Lifecycle<Key, E> for Collect {
    type RequestState = Evicted<E>;

    fn on_evict(&self, evicted: &mut Evicted<E>, key: Key, entry: E) {
        // The engine hands out the entry that is replaced in the same way.
        if evicted.inserted.as_ref() == Some(&key) {
            evicted.replaced = Some(entry);
        } else if evicted.first.is_none() {
            evicted.first = Some(entry);
        } else {
            evicted.others.push(entry);
        }
    }
}

/// Entries that an insert displaced. Mostly one, so only more than one take the heap.
pub(super) struct Evicted<E> {
    inserted: Option<Key>,
    replaced: Option<E>,
    first: Option<E>,
    others: Vec<E>,
}

impl<E> Default for Evicted<E> {
    fn default() -> Self {
        Self { inserted: None, replaced: None, first: None, others: Vec::new() }
    }
}

impl<E> Evicted<E> {
    pub(super) fn replaced(entry: Option<E>) -> Self {
        Self { replaced: entry, ..Self::default() }
    }

    /// How many of them were of other keys.
    pub(super) fn len(&self) -> u64 {
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
    fn the_bound_is_never_exceeded_however_it_divides() {
        for capacity in [1usize, 2, 31, 33, 63, 64, 65, 100, 999, 2_049, 10_000, 12_345] {
            let engine = Engine::new(capacity as u64, Shape::Entries(capacity));
            let mut most = 0;
            for i in 0..capacity * 3 {
                engine.insert(&format!("key:{i}").into(), Heavy(1));
                most = most.max(engine.len());
            }
            assert!(most <= capacity, "{most} entries in a cache of {capacity}");
            assert!(most * 10 >= capacity * 9, "only {most} entries in a cache of {capacity}");
        }
    }

    #[test]
    fn an_entry_too_heavy_for_any_shard_is_handed_back() {
        let engine = Engine::new(6_400, Shape::Weight);
        assert_eq!(engine.heaviest(), 776);
        engine.insert(&"big".into(), Heavy(776));
        assert!(engine.get("big").is_some());
        assert!(engine.insert(&"big".into(), Heavy(777)).replaced.is_some());
        assert!(engine.get("big").is_none());
    }

    #[test]
    fn what_is_overwritten_is_handed_back_and_is_no_eviction() {
        let engine = Engine::new(100, Shape::Entries(100));
        for _ in 0..10 {
            let displaced = engine.insert(&"same".into(), Heavy(1));
            assert_eq!(displaced.len(), 0);
        }
        assert!(engine.insert(&"same".into(), Heavy(1)).replaced.is_some());
    }

    #[test]
    fn a_pattern_removes_what_it_matches_and_nothing_else() {
        let engine = Engine::new(10_000, Shape::Entries(10_000));
        for i in 0..1_000 {
            engine.insert(&format!("a:{i}").into(), Heavy(1));
            engine.insert(&format!("b:{i}").into(), Heavy(1));
        }
        engine.sweep(&Pattern::new("a:*")).for_each(drop);
        assert_eq!(engine.len(), 1_000);
        assert!(engine.peek("a:7").is_none() && engine.peek("b:7").is_some());
        engine.sweep(&Pattern::new("*")).for_each(drop);
        assert_eq!(engine.len(), 0);
    }
}
