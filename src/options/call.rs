//! Resolves which option wins: that of the value, of the call, of the level, or of the cache.

use std::time::Duration;

use super::{cache::CacheOptions, loading::Timeouts};
use crate::entry::Lifetime;

/// The longest time to live and the longest stale window: ten years.
const MAX_SPAN: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a value lives in each level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) l1: Lifetime,
    pub(crate) l2: Lifetime,
}

/// The overrides of one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions {
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) timeouts: Option<Timeouts>,
    pub(crate) refresh: bool,
}

impl CacheOptions {
    /// Returns how long a value lives in each level. The order of precedence: the value's `own`
    /// options, the call, the options of the cache. The ttl of a level, where it is set, is a
    /// bound. `jitter` returns a random number from 0 to below 1, which shortens both times.
    pub(crate) fn lifetimes(
        &self,
        own: &CallOptions,
        call: Option<&CallOptions>,
        jitter: impl FnOnce() -> f64,
    ) -> Lifetimes {
        let ttl = own.ttl.or_else(|| call?.ttl).unwrap_or(self.ttl).min(MAX_SPAN);
        // A time to live of zero means "do not cache", which forbids a stale copy too.
        let stale_for = if ttl.is_zero() {
            Duration::ZERO
        } else {
            let stale_for = own.stale_for.or_else(|| call?.stale_for);
            stale_for.unwrap_or_else(|| self.stale_ttl()).min(MAX_SPAN)
        };
        let rest = self.jittered_rest(jitter);
        let level =
            |bound: Option<Duration>| part_of(bound.map_or(ttl, |bound| ttl.min(bound)), rest);
        let in_l2 = if self.fail_safe.in_l2 { stale_for } else { Duration::ZERO };
        Lifetimes {
            l1: Lifetime { ttl: level(self.l1.ttl), stale_for },
            l2: Lifetime { ttl: level(self.l2.ttl), stale_for: in_l2 },
        }
    }

    /// Returns how long L1 and L2 remember that a key does not exist, at most; `own`: the time of
    /// the loader. The ttl of a level, where it is set, is a bound.
    pub(crate) fn missing_ttls(&self, own: Option<Duration>) -> (Duration, Duration) {
        let ttl = own.unwrap_or(self.negative_cache.ttl).min(MAX_SPAN);
        let level = |bound: Option<Duration>| bound.map_or(ttl, |bound| ttl.min(bound));
        (level(self.l1.ttl), level(self.l2.ttl))
    }

    /// Returns how long a value lives in L1 that came from L2 or from a peer, where it is fresh for
    /// `fresh_for`; `None`: it has no end there.
    pub(crate) fn received_lifetime(
        &self,
        fresh_for: Option<Duration>,
        stale_for: Duration,
        jitter: impl FnOnce() -> f64,
    ) -> Lifetime {
        let bound = match (self.l1.ttl, fresh_for) {
            (None, Some(_)) => MAX_SPAN,
            (bound, _) => {
                part_of(bound.unwrap_or(self.ttl).min(MAX_SPAN), self.jittered_rest(jitter))
            }
        };
        let ttl = fresh_for.map_or(bound, |fresh_for| fresh_for.min(bound));
        Lifetime { ttl, stale_for: stale_for.min(MAX_SPAN) }
    }

    /// The part of a time to live that the jitter leaves; `None`: all of it.
    fn jittered_rest(&self, jitter: impl FnOnce() -> f64) -> Option<f64> {
        (self.ttl_jitter > 0.0).then(|| 1.0 - self.ttl_jitter * jitter())
    }

    /// Returns the default stale window of values.
    pub(crate) fn stale_ttl(&self) -> Duration {
        if self.fail_safe.enabled { self.fail_safe.stale_ttl } else { Duration::ZERO }
    }

    /// Whether the cache reads stale windows and copies in L2.
    pub(crate) fn reads_windows(&self) -> bool {
        self.fail_safe.enabled && self.fail_safe.in_l2
    }

    pub(crate) fn load_timeouts<'a>(&'a self, call: Option<&'a CallOptions>) -> &'a Timeouts {
        call.and_then(|options| options.timeouts.as_ref()).unwrap_or(&self.timeouts)
    }
}

fn part_of(span: Duration, part: Option<f64>) -> Duration {
    part.map_or(span, |part| span.mul_f64(part))
}
