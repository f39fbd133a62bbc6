//! placeholder

mod cache;
mod entry;
mod error;
mod flight;
mod key;
mod l1;
mod load;
mod observe;
mod options;
mod pattern;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use crate::{
    cache::{Builder, GetOrSet, GetOrSetFuture, LazyLayersCache, Outcome, SetRequest, Source},
    error::{BoxError, BuildError, Error, ErrorKind},
    key::{CacheKey, KeyText},
    load::{IntoLoaded, Loaded, Loader},
    observe::{Event, Health, Level, OriginHealth, StaleReason, Stats, Subscription},
    options::{CacheOptions, FailSafe, Inflight, L1Options, NegativeCache, Timeouts},
    time::{Clock, SystemClock},
};

/// The same type under the name that the TypeScript package also exports.
pub type HybridCache<K, V> = LazyLayersCache<K, V>;
