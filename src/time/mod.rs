//! The clock: milliseconds on a scale of its own, read on every hit.
//!
//! Freshness is compared on this scale only, never with a wall clock and never with the clock of
//! another machine. Waiting (timeouts) is not its business: that follows tokio's timer.

mod coarse;
mod ticker;

use std::time::Duration;

pub(crate) use self::ticker::{coarse_now, resync};

/// A source of monotonic time.
///
/// The cache reads it on every hit, so an implementation should cost a few nanoseconds;
/// [`SystemClock`] does. Supply your own to a builder with
/// [`clock`](crate::Builder::clock), for example to drive expiry from a simulation. It is read
/// under locks of the cache, and must not use the cache itself.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since a fixed origin of the clock's choosing. Must never go back.
    fn now(&self) -> u64;
}

/// The machine's monotonic clock, the default of every cache.
///
/// On Linux and Android it reads `CLOCK_MONOTONIC_COARSE`, which the kernel moves on with its own
/// timer (every 1 to 10 ms): a precise clock would cost more than the whole hit. Elsewhere it reads
/// [`std::time::Instant`].
///
/// Even the coarse clock is a third of a hit. So under load, hits take the time that a thread of
/// this process (one for all caches, named `lazy-layers-tick`, asleep without load) wrote down no
/// more than 4 ms ago. Where that thread is held up, as on a machine with too much to do or after
/// the process was frozen, every sixteenth hit of a thread notices and sets it right.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> u64 {
        coarse::millis()
    }
}

/// Whole milliseconds, never overflowing.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole milliseconds as stored in an entry. About 49 days are the most it can say; longer spans
/// are cut to that, which costs one load every 49 days and saves eight bytes an entry.
/// A span that is not zero never becomes zero.
pub(crate) fn span(duration: Duration) -> u32 {
    if duration.is_zero() {
        return 0;
    }
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_at_the_longest_and_never_rounded_to_nothing() {
        assert_eq!(span(Duration::ZERO), 0);
        assert_eq!(span(Duration::from_nanos(1)), 1);
        assert_eq!(span(Duration::from_millis(1_500)), 1_500);
        assert_eq!(span(Duration::MAX), u32::MAX);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn the_system_clock_does_not_go_back() {
        let readings: Vec<u64> = (0..10_000).map(|_| SystemClock.now()).collect();
        assert!(readings.is_sorted());
    }
}
