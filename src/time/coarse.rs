//! Reads the clock of the system, in milliseconds that also pass while the machine is suspended.
//!
//! The cheap clock of Linux stands still during a suspension, and the clock that does not costs
//! three times as much. So the reader adds to the cheap one the time that suspensions took, as far
//! as they were noticed: whoever compares the two clocks notices.

use std::sync::atomic::{AtomicU64, Ordering};

/// Differences up to this many milliseconds are no suspension: the cheap clock is that coarse.
const NOISE: u64 = 50;

static SUSPENDED: Suspended = Suspended(AtomicU64::new(0));

/// The milliseconds that suspensions took, as far as they were noticed. Never falls.
struct Suspended(AtomicU64);

impl Suspended {
    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// `boot` counts suspensions, `monotonic` does not. `boot` must be read first: a thread that is
    /// interrupted in between then sees too short a suspension, not one that never was.
    fn notice(&self, boot: u64, monotonic: u64) {
        let suspended = boot.saturating_sub(monotonic);
        if suspended > self.get().saturating_add(NOISE) {
            self.0.fetch_max(suspended, Ordering::Relaxed);
        }
    }
}

#[inline]
pub(crate) fn millis() -> u64 {
    monotonic() + SUSPENDED.get()
}

/// The same, after a comparison of the two clocks.
pub(crate) fn millis_noticing_suspension() -> u64 {
    let (boot, monotonic) = (including_suspension(), monotonic());
    SUSPENDED.notice(boot, monotonic);
    monotonic + SUSPENDED.get()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[expect(clippy::cast_sign_loss, reason = "such a clock is never negative")]
#[inline]
fn read(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
fn monotonic() -> u64 {
    read(rustix::time::ClockId::MonotonicCoarse)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn including_suspension() -> u64 {
    read(rustix::time::ClockId::Boottime)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn monotonic() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    super::millis::millis(ORIGIN.get_or_init(Instant::now).elapsed())
}

/// No clock is known here that counts suspensions where [`Instant`](std::time::Instant) does not.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn including_suspension() -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspension_is_noticed_once_and_time_never_goes_back() {
        let suspended = Suspended(AtomicU64::new(0));
        for (boot, monotonic, noticed) in [
            (1_000, 1_000, 0),
            (1_040, 1_000, 0),
            (9_000, 2_000, 7_000),
            (9_500, 2_508, 7_000),
            // Interrupted between the two readings.
            (9_600, 4_000, 7_000),
            (30_000, 5_000, 25_000),
        ] {
            suspended.notice(boot, monotonic);
            assert_eq!(suspended.get(), noticed);
        }
    }

    #[test]
    fn the_clock_does_not_go_back_when_it_looks_for_suspensions() {
        let readings: Vec<u64> =
            (0..1_000).flat_map(|_| [millis(), millis_noticing_suspension(), millis()]).collect();
        assert!(readings.is_sorted());
    }
}
