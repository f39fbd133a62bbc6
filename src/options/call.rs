//! Resolves which option wins: that of the value, of the call, of the level, or of the cache.

use std::time::Duration;

use super::{cache::CacheOptions, loading::Timeouts};
use crate::entry::Lifetime;

/// A century: `mul_f64` panics near `Duration::MAX`.
const MAX_TTL: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The overrides of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) refresh: bool,
}

impl CacheOptions {
    /// Returns how long a value lives in L1. The order of precedence: the value's `own` options,
    /// the call, the options of L1, the options of the cache. `jitter` returns a random number
    /// from 0 to below 1.
    pub(crate) fn l1_lifetime(
        &self,
        own: &CallOptions,
        call: Option<&CallOptions>,
        jitter: impl FnOnce() -> f64,
    ) -> Lifetime {
        let resolve = |field: fn(&CallOptions) -> Option<Duration>| {
            field(own).or_else(|| call.and_then(field))
        };
        let ttl = resolve(|options| options.ttl).or(self.l1.ttl).unwrap_or(self.ttl);
        let ttl = if self.ttl_jitter > 0.0 {
            ttl.min(MAX_TTL).mul_f64(1.0 - self.ttl_jitter * jitter())
        } else {
            ttl
        };
        // A time to live of zero means "do not cache", which forbids a stale copy too.
        let stale_for = if ttl.is_zero() {
            Duration::ZERO
        } else {
            resolve(|options| options.stale_for).unwrap_or_else(|| self.stale_ttl())
        };
        Lifetime { ttl, stale_for }
    }

    /// Returns how long a value is fresh in L2, with the same order of precedence.
    pub(crate) fn l2_ttl(&self, own: &CallOptions, call: Option<&CallOptions>) -> Duration {
        own.ttl.or_else(|| call.and_then(|call| call.ttl)).or(self.l2.ttl).unwrap_or(self.ttl)
    }

    /// Returns the stale window of values in L2, and of values copied from L2.
    pub(crate) fn stale_ttl(&self) -> Duration {
        if self.fail_safe.enabled { self.fail_safe.stale_ttl } else { Duration::ZERO }
    }

    pub(crate) fn load_timeouts<'a>(&'a self, call: Option<&'a CallOptions>) -> &'a Timeouts {
        call.and_then(|options| options.timeouts.as_ref()).unwrap_or(&self.timeouts)
    }
}
