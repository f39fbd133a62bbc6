//! What one call may say differently, and the answers the read path asks for.

use std::time::Duration;

use super::{CacheOptions, Timeouts};
use crate::entry::Lifetime;

/// A century: `mul_f64` panics near `Duration::MAX`.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The overrides of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) refresh: bool,
}

impl CacheOptions {
    /// How long a value lives in memory: what it says itself, else the call, else the options.
    /// `jitter` is a random number from 0 to below 1.
    pub(crate) fn l1_lifetime(
        &self,
        own: &CallOptions,
        call: Option<&CallOptions>,
        jitter: impl FnOnce() -> f64,
    ) -> Lifetime {
        let said = |field: fn(&CallOptions) -> Option<Duration>| {
            field(own).or_else(|| call.and_then(field))
        };
        let ttl = said(|options| options.ttl).or(self.l1.ttl).unwrap_or(self.ttl);
        let ttl = if self.ttl_jitter > 0.0 {
            ttl.min(LONGEST).mul_f64(1.0 - self.ttl_jitter * jitter())
        } else {
            ttl
        };
        // "Do not cache it" means not as a stale copy either.
        let stale_for = if ttl.is_zero() {
            Duration::ZERO
        } else {
            said(|options| options.stale_for).unwrap_or_else(|| self.stale_ttl())
        };
        Lifetime { ttl, stale_for }
    }

    /// How long a value is fresh in the shared level, said in the same order.
    pub(crate) fn l2_ttl(&self, own: &CallOptions, call: Option<&CallOptions>) -> Duration {
        let said = own.ttl.or_else(|| call.and_then(|call| call.ttl));
        said.or(self.l2.ttl).unwrap_or(self.ttl)
    }

    /// The stale window of values that came from the shared level, and of those in it.
    pub(crate) fn stale_ttl(&self) -> Duration {
        if self.fail_safe.enabled { self.fail_safe.stale_ttl } else { Duration::ZERO }
    }

    pub(crate) fn timeouts<'a>(&'a self, call: Option<&'a CallOptions>) -> &'a Timeouts {
        call.and_then(|options| options.timeouts.as_ref()).unwrap_or(&self.timeouts)
    }
}
