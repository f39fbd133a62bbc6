//! The clock of the cache, which every hit reads.
//!
//! Freshness is compared on the scale of this clock only, never with a wall clock or with the
//! clock of another machine. Timeouts do not use it: they use tokio's timer.

use super::coarse;

/// [`SystemClock`] moves in steps of at most this many milliseconds.
pub(crate) const MAX_CLOCK_STEP: u64 = 10;

/// A source of monotonic time.
///
/// The cache reads it on every hit, so an implementation should cost a few nanoseconds, as
/// [`SystemClock`] does. Pass your own to
/// [`CacheBuilder::clock`](crate::CacheBuilder::clock), for example to drive expiry from a
/// simulation. The cache reads it while it holds locks, so an implementation must not call the
/// cache.
///
/// ```
/// use std::time::Instant;
/// use lazy_layers_cache::{Clock, LazyLayersCache};
///
/// /// The precise clock of the standard library.
/// struct Precise(Instant);
///
/// impl Clock for Precise {
///     fn now(&self) -> u64 {
///         u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
///     }
/// }
///
/// let clock = Precise(Instant::now());
/// let names = LazyLayersCache::<u64, String>::builder().clock(clock).build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Returns milliseconds since a fixed origin that the clock chooses. Must never go back.
    fn now(&self) -> u64;

    /// What hits read: for simulations of the ticks that [`SystemClock`] uses there.
    #[doc(hidden)]
    fn now_for_hits(&self) -> u64 {
        self.now()
    }
}

/// The monotonic clock of the machine: the default of every cache.
///
/// On Linux and Android it reads `CLOCK_MONOTONIC_COARSE`, which the kernel advances every 1 to
/// 10 ms: a precise clock would cost more than the whole hit. It adds the time for which the
/// machine was suspended, from `CLOCK_BOOTTIME`. (A hypervisor that pauses a machine without
/// telling it stops both clocks.) Elsewhere it reads [`std::time::Instant`].
///
/// Even the coarse clock is a third of a hit. So in a loop of hits, more than sixteen within one
/// step of the clock, a thread reads it at every sixteenth hit, and a tick at the others: a time
/// that a thread of this process stored at most 4 ms ago. That thread is named `lazy-layers-tick`,
/// serves all caches, and sleeps without load. If the process was frozen, each thread notices at
/// its first hit afterwards, or in such a loop within sixteen hits. A cache with an event bus uses
/// no ticks: a thread would trust L1 for the hits of such a loop.
///
/// ```
/// use lazy_layers_cache::{Clock, SystemClock};
///
/// let begun = SystemClock.now();
/// assert!(SystemClock.now() - begun < 60_000, "less than a minute");
/// ```
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
