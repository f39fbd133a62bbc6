//! An entry of L1: the value, until when it is fresh, and until when it may serve as a stale copy.
//! One entry holds all of this, so that no second map of stale values must be kept in step.

use std::{sync::Arc, time::Duration};

use crate::{
    contain::Held,
    time::{millis, millis_u32},
};

/// How long a value lives: fresh for `ttl`, then usable as a stale copy for `stale_for` more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Duration,
    pub(crate) stale_for: Duration,
}

/// Times are milliseconds of the cache's clock. 32 bytes, all of which every hit copies.
#[derive(Debug)]
pub(crate) struct Entry<V> {
    value: Held<V>,
    /// The time of the load or the set; the top bit is [`THROTTLED`].
    stored: u64,
    fresh_for: u32,
    usable_for: u32,
    weight: u32,
}

/// Marks a stale copy whose last load failed: until `fresh_for` is over, the copy is served as
/// stale and the key is not loaded. The bit makes the age so large that the hit path sees "not
/// fresh" without another check.
const THROTTLED: u64 = 1 << 63;

/// By how many milliseconds the clock of a reader may be behind the clock of the writer: far more
/// than it ever is.
const CLOCK_SKEW: u64 = 1 << 32;

impl<V> Clone for Entry<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), ..*self }
    }
}

impl<V> Entry<V> {
    pub(crate) fn new(value: Arc<V>, now: u64, lifetime: Lifetime, weight: u32) -> Self {
        let usable = lifetime.ttl.saturating_add(lifetime.stale_for);
        Self {
            value: Held::new(value),
            stored: now & !THROTTLED,
            fresh_for: millis_u32(lifetime.ttl),
            usable_for: millis_u32(usable),
            weight,
        }
    }

    /// Returns the same entry, of a value that was certainly current at `since`, and perhaps not
    /// later: that decides whether the entry is trusted. It lives as long as before.
    pub(crate) fn known_at(self, since: u64) -> Self {
        let earlier = self.stored.saturating_sub(since);
        let span = u32::try_from(earlier).unwrap_or(u32::MAX);
        Self {
            stored: self.stored - earlier,
            fresh_for: self.fresh_for.saturating_add(span),
            usable_for: self.usable_for.saturating_add(span),
            ..self
        }
    }

    #[inline]
    pub(crate) fn is_fresh(&self, now: u64) -> bool {
        // Both sides are shifted, because a reader's clock may be a tick behind the writer's.
        now.wrapping_add(CLOCK_SKEW).wrapping_sub(self.stored)
            < u64::from(self.fresh_for) + CLOCK_SKEW
    }

    /// Returns whether the entry was stored at this time or later.
    #[inline]
    pub(crate) fn stored_at_or_after(&self, time: u64) -> bool {
        self.stored & !THROTTLED >= time
    }

    /// Returns whether the entry may be served, as fresh or as stale.
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        self.age_millis(now) < u64::from(self.usable_for)
    }

    pub(crate) fn is_throttled(&self, now: u64) -> bool {
        self.stored & THROTTLED != 0 && self.age_millis(now) < u64::from(self.fresh_for)
    }

    /// Returns the same copy, whose key is not to be loaded for `pause`.
    pub(crate) fn throttled(&self, now: u64, pause: Duration) -> Self {
        let until = self.age_millis(now).saturating_add(millis(pause));
        Self {
            stored: self.stored | THROTTLED,
            fresh_for: u32::try_from(until).unwrap_or(u32::MAX),
            ..self.clone()
        }
    }

    /// Returns the copy that may be served for longer, which is usually the newer one. To be called
    /// where no lock is held: it drops the other.
    pub(crate) fn prefer_longer_usable(
        one: Option<Self>,
        other: Option<Self>,
        now: u64,
    ) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if other.usable_longer_than(&one, now) => Some(other),
            (Some(one), _) => Some(one),
            (None, other) => other,
        }
    }

    /// Whether this copy may be served for longer than another.
    pub(crate) fn usable_longer_than(&self, other: &Self, now: u64) -> bool {
        self.usable_left(now) > other.usable_left(now)
    }

    /// Returns whether the entry may be served at any time.
    pub(crate) fn is_worth_keeping(&self) -> bool {
        self.usable_for > 0
    }

    pub(crate) fn age(&self, now: u64) -> Duration {
        Duration::from_millis(self.age_millis(now))
    }

    /// The rest of its time as a fresh value; of a throttled copy, the rest of its pause.
    pub(crate) fn fresh_left(&self, now: u64) -> Duration {
        self.left(self.fresh_for, now)
    }

    /// The rest of the time in which it may be served, as fresh or as stale.
    pub(crate) fn usable_left(&self, now: u64) -> Duration {
        self.left(self.usable_for, now)
    }

    fn left(&self, span: u32, now: u64) -> Duration {
        Duration::from_millis(u64::from(span).saturating_sub(self.age_millis(now)))
    }

    #[inline]
    pub(crate) fn into_value(self) -> Arc<V> {
        self.value.into_inner()
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
        let left = [throttled.fresh_left(5_200), throttled.usable_left(5_200)];
        assert_eq!(left, [Duration::from_millis(50), Duration::from_millis(900)]);
    }

    #[test]
    fn a_reader_whose_clock_is_a_tick_behind_sees_the_right_state() {
        assert!(entry().is_fresh(4_999));
        assert!(!entry().throttled(5_200, TTL).is_fresh(5_199));
    }

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!(size_of::<Entry<u8>>(), 32);
    }
}
