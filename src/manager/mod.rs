//! Many caches of one process: one L2, one event bus, one set of options, one `close`.

mod builder;
mod cache_manager;
#[cfg(feature = "serde")]
mod config;
mod health;
mod join_all;
mod live_cache;
mod nearest;
mod options;
#[cfg(feature = "redis")]
mod redis;
mod registry;
mod shared_options;
#[cfg(feature = "wire")]
mod wire;

pub use self::{
    builder::CacheManagerBuilder,
    cache_manager::CacheManager,
    health::{ManagerHealth, SharedHealth},
    options::ManagerOptions,
};
