//! Durations in whole milliseconds.

use std::time::Duration;

/// Returns whole milliseconds; `u64::MAX` for longer durations.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns whole milliseconds as an entry stores them: at least 1 for a duration that is not zero,
/// and at most `u32::MAX`, which is 49.7 days. The limit costs one load every 49.7 days and
/// saves 8 bytes per entry.
pub(crate) fn millis_u32(duration: Duration) -> u32 {
    if duration.is_zero() {
        return 0;
    }
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_durations_are_cut_and_short_ones_do_not_become_zero() {
        assert_eq!(millis_u32(Duration::ZERO), 0);
        assert_eq!(millis_u32(Duration::from_nanos(1)), 1);
        assert_eq!(millis_u32(Duration::from_millis(1_500)), 1_500);
        assert_eq!(millis_u32(Duration::MAX), u32::MAX);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
