//! Decides which entries of L1 are trusted, that is, served without a lookup in L2.
//!
//! | state of the bus client | trusted entries |
//! | --- | --- |
//! | receives messages | all, but for those stored before the last gap or (re)subscription |
//! | receives none | of those, the ones stored or found in L2 within the last `trust_timeout` |
//!
//! So while the bus is down, readers are no further behind than they are before a gap is noticed,
//! L2 is read once per key and `trust_timeout`, and L1 stays filled. No entry is visited when
//! trust changes: each entry knows when it was stored, and a hit compares two numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Times are in milliseconds of the cache's clock.
pub(crate) struct Trust {
    timeout: u64,
    /// Entries that were stored before are untrusted.
    invalid_before: AtomicU64,
    /// Until then, entries that were stored since are trusted.
    valid_until: AtomicU64,
}

impl Trust {
    /// Trusts no entry; without a timeout, because the cache does not subscribe, all entries.
    pub(super) fn new(timeout: Option<u64>) -> Self {
        let valid_until = AtomicU64::new(if timeout.is_none() { u64::MAX } else { 0 });
        let timeout = timeout.unwrap_or(0);
        Self { timeout, invalid_before: AtomicU64::new(0), valid_until }
    }

    /// Returns the time at or after which an entry of L1 must have been stored to be trusted.
    #[inline]
    pub(crate) fn min_stored_at(&self, now: u64) -> u64 {
        // In this order: a reader that sees the extended `valid_until` also sees the
        // `invalid_before` that was raised before it.
        let is_valid = self.is_valid(now);
        let invalid_before = self.invalid_before.load(Ordering::Relaxed);
        if is_valid {
            return invalid_before;
        }
        // Without trust, an entry is served for less than the timeout.
        // mutant disconnected-trust: => invalid_before
        invalid_before.max(now.saturating_sub(self.timeout).saturating_add(1))
    }

    #[inline]
    pub(crate) fn is_valid(&self, now: u64) -> bool {
        now < self.valid_until.load(Ordering::Acquire)
    }

    /// The client received messages: trust lasts until this time.
    pub(super) fn extend_until(&self, until: u64) {
        // Every hit reads the number, so it is written seldom.
        let known = self.valid_until.load(Ordering::Relaxed);
        if until < known || until.saturating_sub(known) >= self.timeout / 16 {
            self.valid_until.store(until, Ordering::Release);
        }
    }

    /// Marks the entries that were stored up to now untrusted.
    pub(super) fn invalidate_before(&self, now: u64) {
        self.invalid_before.fetch_max(now.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_trust_recent_entries_are_served_but_none_from_before_a_gap() {
        let trust = Trust::new(Some(3_000));
        assert_eq!((trust.min_stored_at(1_000), trust.min_stored_at(10_000)), (1, 7_001));
        trust.extend_until(13_000);
        assert_eq!((trust.min_stored_at(12_999), trust.min_stored_at(13_000)), (0, 10_001));
        trust.invalidate_before(9_000);
        assert_eq!((trust.min_stored_at(9_500), trust.min_stored_at(13_000)), (9_001, 10_001));
        trust.invalidate_before(8_000);
        assert_eq!(trust.min_stored_at(9_500), 9_001, "the watermark never falls");
        trust.extend_until(0);
        assert_eq!(trust.min_stored_at(9_500), 9_001);
        assert!(!trust.is_valid(9_500));
    }

    #[test]
    fn a_cache_that_does_not_subscribe_trusts_every_entry() {
        let trust = Trust::new(None);
        assert_eq!(trust.min_stored_at(u64::MAX - 1), 0);
    }
}
