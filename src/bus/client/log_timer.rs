//! Limits log lines of one kind to one a minute.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds between two log lines of one kind.
const LOG_INTERVAL: u64 = 60_000;

/// The time of the last log line plus one; zero before the first.
#[derive(Default)]
pub(super) struct LogTimer(AtomicU64);

impl LogTimer {
    pub(super) fn is_due(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last - 1) >= LOG_INTERVAL;
        let next = now.saturating_add(1);
        let order = Ordering::Relaxed;
        is_due && self.0.compare_exchange(last, next, order, order).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_logged_once_a_minute() {
        let timer = LogTimer::default();
        let due = [0, 1, 59_999, 60_000, 60_001, 200_000].map(|now| timer.is_due(now));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
