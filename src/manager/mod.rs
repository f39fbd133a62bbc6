//! Many caches of one process: one L2, one event bus, one set of options, one `close`.

mod builder;
mod cache_manager;
#[cfg(feature = "serde")]
mod config;
mod entry;
#[cfg(feature = "metrics")]
mod export_metrics;
mod health;
mod join_all;
mod live_cache;
#[cfg_attr(feature = "metrics", path = "live_export.rs")]
#[cfg_attr(not(feature = "metrics"), path = "without_live_export.rs")]
mod live_export;
#[cfg_attr(feature = "opentelemetry", path = "live_meter.rs")]
#[cfg_attr(not(feature = "opentelemetry"), path = "without_live_meter.rs")]
mod live_meter;
mod nearest;
mod options;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "opentelemetry")]
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
