//! The peers: their linked versions, and the setup of each for the common task.

use std::{sync::Arc, time::Duration};

use multi_tier_cache::{
    CacheManager, CacheSystemBuilder, L2CacheBackend, MokaCache, MokaCacheConfig, TierConfig,
};

use crate::measure::Value;

const NAMES: [&str; 8] = [
    "quick_cache",
    "moka",
    "amalgam-cache",
    "foyer-memory",
    "cached",
    "multi-tier-cache",
    "redis",
    "lru",
];
const LOCK: &str = include_str!("../../Cargo.lock");

/// The versions in Cargo.lock at build time.
pub(crate) fn versions() -> String {
    let version = |name: &&str| {
        let head = format!("name = \"{name}\"\nversion = \"");
        let found = LOCK.split_once(&head).and_then(|(_, rest)| rest.split_once('"'));
        format!("{name} {}", found.expect("a locked package").0)
    };
    NAMES.iter().map(version).collect::<Vec<_>>().join(", ")
}

/// Longer than any run, for peers that require a time to live.
pub(crate) const AN_HOUR: Duration = Duration::from_secs(3_600);

/// In memory only; entries live for an hour, as ours do.
pub(crate) fn amalgam(room: usize) -> amalgam::Cache<Value> {
    amalgam::Cache::builder()
        .max_capacity(room as u64)
        .default_options(amalgam::EntryOptions::new(AN_HOUR))
        .try_build()
        .expect("valid options")
}

/// In memory only: its first tier without the second.
pub(crate) fn multi_tier(room: usize) -> Arc<CacheManager> {
    let config =
        MokaCacheConfig { max_capacity: room as u64, time_to_live: AN_HOUR, time_to_idle: AN_HOUR };
    let memory = MokaCache::new(config).expect("valid options");
    crate::measure::block_on(tiers_of(Arc::new(memory)))
}

/// With one tier.
pub(crate) async fn tiers_of(tier: Arc<dyn L2CacheBackend>) -> Arc<CacheManager> {
    let builder = CacheSystemBuilder::new().with_tier(tier, TierConfig::as_l1());
    Arc::clone(builder.build().await.expect("valid options").cache_manager())
}

/// In memory only; its loader is polled on a task of the runtime.
pub(crate) fn foyer(room: usize) -> foyer_memory::Cache<String, Value> {
    foyer_memory::CacheBuilder::new(room).build()
}
