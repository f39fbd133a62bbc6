//! The clock of the cache, which every hit reads.
//!
//! Freshness is compared on the scale of this clock only, never with a wall clock or with the
//! clock of another machine. Timeouts do not use it: they use tokio's timer.

use super::coarse;

/// A source of monotonic time.
///
/// The cache reads it on every hit, so an implementation should cost a few nanoseconds, as
/// [`SystemClock`] does. Pass your own to
/// [`CacheBuilder::clock`](crate::CacheBuilder::clock), for example to drive expiry from a
/// simulation. The cache reads it while it holds locks, so an implementation must not call the
/// cache.
pub trait Clock: Send + Sync + 'static {
    /// Returns milliseconds since a fixed origin that the clock chooses. Must never go back.
    fn now(&self) -> u64;
}

/// The monotonic clock of the machine: the default of every cache.
///
/// On Linux and Android it reads `CLOCK_MONOTONIC_COARSE`, which the kernel advances every 1 to
/// 10 ms: a precise clock would cost more than the whole hit. Elsewhere it reads
/// [`std::time::Instant`].
///
/// Even the coarse clock is a third of a hit. So under load, hits read a time that a thread of
/// this process stored at most 4 ms ago. The thread is named `lazy-layers-tick`, serves all
/// caches, and sleeps without load. If it is delayed, for example on an overloaded machine or
/// after the process was frozen, every sixteenth hit of a thread detects and corrects the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> u64 {
        coarse::millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_does_not_go_back() {
        let readings: Vec<u64> = (0..10_000).map(|_| SystemClock.now()).collect();
        assert!(readings.is_sorted());
    }
}
