//! What memory holds for a key: the value, until when it is fresh, until when it may serve as a
//! stale copy. One entry says it all, so there is no second map of stale values to keep in step.

use std::{sync::Arc, time::Duration};

use crate::time::{millis, span};

/// How long a value lives: fresh for `ttl`, then usable as a stale copy for `stale_for` more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Duration,
    pub(crate) stale_for: Duration,
}

/// Times are milliseconds of the cache's clock. 32 bytes, of which every hit copies all.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    value: Arc<V>,
    /// When it was loaded or set; the top bit is [`THROTTLED`].
    stored: u64,
    fresh_for: u32,
    usable_for: u32,
    weight: u32,
}

/// Marks a stale copy whose loader failed just now: served as stale, and the key is left alone,
/// until `fresh_for` is over. The bit makes the age enormous, so the hit path sees "not fresh"
/// without a check of its own.
const THROTTLED: u64 = 1 << 63;

/// By how much a reader's clock may be behind the one that an entry was stored by: far more than
/// it ever is.
const BEHIND: u64 = 1 << 32;

impl<V> Clone for Entry<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), ..*self }
    }
}

impl<V> Entry<V> {
    pub(crate) fn new(value: Arc<V>, now: u64, lifetime: Lifetime, weight: u32) -> Self {
        let usable = lifetime.ttl.saturating_add(lifetime.stale_for);
        Self {
            value,
            stored: now & !THROTTLED,
            fresh_for: span(lifetime.ttl),
            usable_for: span(usable),
            weight,
        }
    }

    #[inline]
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        // Both sides later by the same, for a reader's clock may be a tick behind the writer's.
        now.wrapping_add(BEHIND).wrapping_sub(self.stored) < u64::from(self.fresh_for) + BEHIND
    }

    /// Whether it was stored at this time or later.
    #[inline]
    pub(crate) fn is_since(&self, floor: u64) -> bool {
        self.stored & !THROTTLED >= floor
    }

    /// Fresh or stale, it may still be handed out.
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        self.age_millis(now) < u64::from(self.usable_for)
    }

    pub(crate) fn is_throttled(&self, now: u64) -> bool {
        self.stored & THROTTLED != 0 && self.age_millis(now) < u64::from(self.fresh_for)
    }

    /// The same copy, not to be loaded again for `pause`.
    pub(crate) fn throttled(&self, now: u64, pause: Duration) -> Self {
        let until = self.age_millis(now).saturating_add(millis(pause));
        Self {
            stored: self.stored | THROTTLED,
            fresh_for: u32::try_from(until).unwrap_or(u32::MAX),
            ..self.clone()
        }
    }

    /// Of two copies the one that may serve for longer: the newer one, as far as anyone can tell.
    pub(crate) fn longer_usable(one: Option<Self>, other: Option<Self>, now: u64) -> Option<Self> {
        let left = |entry: &Self| u64::from(entry.usable_for).saturating_sub(entry.age_millis(now));
        match (one, other) {
            (Some(one), Some(other)) if left(&other) > left(&one) => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        }
    }

    /// Whether keeping it would serve anyone.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.usable_for > 0
    }

    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_millis(self.age_millis(now))
    }

    #[inline]
    pub(crate) fn into_value(self) -> Arc<V> {
        self.value
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight
    }

    fn age_millis(&self, now: u64) -> u64 {
        now.saturating_sub(self.stored & !THROTTLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(100);
    const STALE: Duration = Duration::from_millis(1_000);

    fn entry() -> Entry<u8> {
        Entry::new(Arc::new(7), 5_000, Lifetime { ttl: TTL, stale_for: STALE }, 1)
    }

    #[test]
    fn fresh_then_stale_then_gone() {
        let entry = entry();
        for (now, fresh, usable) in [
            (4_990, true, true),
            (5_000, true, true),
            (5_099, true, true),
            (5_100, false, true),
            (6_099, false, true),
            (6_100, false, false),
        ] {
            assert_eq!((entry.is_fresh(now), entry.is_usable(now)), (fresh, usable), "at {now}");
        }
    }

    #[test]
    fn a_throttled_copy_is_never_fresh_and_keeps_its_age_and_its_end() {
        let throttled = entry().throttled(5_200, Duration::from_millis(50));
        assert!(!throttled.is_fresh(5_200));
        assert!(throttled.is_throttled(5_249));
        assert!(!throttled.is_throttled(5_250));
        assert_eq!(throttled.age(5_250), Duration::from_millis(250));
        assert!(throttled.is_usable(6_099) && !throttled.is_usable(6_100));
    }

    #[test]
    fn a_clock_that_is_a_tick_behind_the_store_makes_nothing_immortal() {
        assert!(entry().is_fresh(4_999));
        assert!(!entry().throttled(5_200, TTL).is_fresh(5_199));
    }

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!(size_of::<Entry<u8>>(), 32);
    }
}
