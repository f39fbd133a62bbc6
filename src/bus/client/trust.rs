//! Whether memory may be believed: it may be as long as what other instances delete is heard of.
//!
//! While nothing is heard, an entry still answers for as long as it takes to notice
//! (`trust_timeout`) from when it was loaded or last found in the shared level; then it is looked
//! up there again. So readers are no further behind than without notice, the shared level is
//! asked once per key in that time, and an outage of the bus empties no memory.
//!
//! When the bus is back, or lost something, everything of before is suspect at once. Nothing is
//! walked for that: entries know when they were stored, and hits compare.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds of the cache's clock.
pub(super) struct Trust {
    timeout: u64,
    /// What was stored before is suspect.
    suspect: AtomicU64,
    /// Until when what was stored since may be believed.
    until: AtomicU64,
}

impl Trust {
    /// In nothing yet. With no timeout: in everything, always.
    pub(super) fn new(timeout: Option<u64>) -> Self {
        let until = if timeout.is_none() { u64::MAX } else { 0 };
        let timeout = timeout.unwrap_or(0);
        Self { timeout, suspect: AtomicU64::new(0), until: AtomicU64::new(until) }
    }

    /// The time at or after which an entry must have been stored.
    #[inline]
    pub(super) fn min_stored_at(&self, now: u64) -> u64 {
        // In this order: who sees that there is trust again sees what is suspect since.
        let is_valid = self.is_valid(now);
        let suspect = self.suspect.load(Ordering::Relaxed);
        if is_valid {
            return suspect;
        }
        // An entry is believed for less than the timeout.
        // mutant disconnected-trust: => suspect
        suspect.max(now.saturating_sub(self.timeout).saturating_add(1))
    }

    #[inline]
    pub(super) fn is_valid(&self, now: u64) -> bool {
        now < self.until.load(Ordering::Acquire)
    }

    /// Something was heard.
    pub(super) fn extend_until(&self, until: u64) {
        // Written seldom: every hit reads it.
        let known = self.until.load(Ordering::Relaxed);
        if until < known || until.saturating_sub(known) >= self.timeout / 16 {
            self.until.store(until, Ordering::Release);
        }
    }

    /// What is stored up to now is suspect.
    pub(super) fn invalidate_before(&self, now: u64) {
        self.suspect.fetch_max(now.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_trust_entries_are_believed_for_a_while_and_suspects_not_at_all() {
        let trust = Trust::new(Some(3_000));
        assert_eq!((trust.min_stored_at(1_000), trust.min_stored_at(10_000)), (1, 7_001));
        trust.extend_until(13_000);
        assert_eq!((trust.min_stored_at(12_999), trust.min_stored_at(13_000)), (0, 10_001));
        trust.invalidate_before(9_000);
        assert_eq!((trust.min_stored_at(9_500), trust.min_stored_at(13_000)), (9_001, 10_001));
        trust.invalidate_before(8_000);
        assert_eq!(trust.min_stored_at(9_500), 9_001, "suspicion does not go back");
        trust.extend_until(0);
        assert_eq!(trust.min_stored_at(9_500), 9_001);
        assert!(!trust.is_valid(9_500));
    }

    #[test]
    fn who_does_not_listen_believes_everything() {
        let trust = Trust::new(None);
        assert_eq!(trust.min_stored_at(u64::MAX - 1), 0);
    }
}
