//! What the programs that make the counted calls share.

#![expect(clippy::expect_used, reason = "a bench that cannot run may stop")]

use std::{sync::Arc, time::Duration};

use lazy_layers_cache::{
    CacheBuilder, CacheManager, CacheOptions, Clock, L1Options, LazyLayersCache,
};

/// A value of both caches.
pub type Value = Arc<[u8; 100]>;
/// The cache that ours is compared with.
pub type Quick = quick_cache::sync::Cache<String, Value>;
/// Our cache.
pub type Ours = LazyLayersCache<String, [u8; 100]>;

/// Capacity of the caches, in entries.
pub const ROOM: usize = 2_000;

/// A clock whose steps no run has to count.
pub struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> u64 {
        1_000_000
    }
}

/// Our cache, with the clock of the system unless the caller sets another.
pub fn ours() -> CacheBuilder<String, [u8; 100]> {
    Ours::builder().options(options())
}

fn options() -> CacheOptions {
    let l1 = L1Options::default().max_entries(ROOM);
    CacheOptions::default().ttl(Duration::from_secs(3_600)).l1(l1)
}

/// Fifty caches of a manager, which lives as long as they.
pub fn fifty() -> (CacheManager, Vec<Ours>) {
    let builder = CacheManager::builder().options(options()).clock(StandingClock);
    let manager = builder.build().expect("valid options");
    let build = |number| manager.memory_cache(&format!("cache-{number}")).build();
    let caches = (0..50).map(|number| build(number).expect("valid options")).collect();
    (manager, caches)
}
