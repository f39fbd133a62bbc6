//! Many caches of one process: one L2, one event bus, one set of options, one `close`.

mod builder;
mod cache_manager;
#[cfg(feature = "serde")]
mod config;
#[cfg_attr(feature = "metrics", path = "export_metrics.rs")]
#[cfg_attr(not(feature = "metrics"), path = "without_export_metrics.rs")]
mod export_metrics;
mod health;
mod join_all;
mod live_cache;
mod nearest;
mod options;
#[cfg(feature = "redis")]
mod redis;
#[cfg_attr(feature = "opentelemetry", path = "register_metrics.rs")]
#[cfg_attr(not(feature = "opentelemetry"), path = "without_register_metrics.rs")]
mod register_metrics;
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
