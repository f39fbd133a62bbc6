//! Reads the coarse clock of the system, in milliseconds.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
#[expect(clippy::cast_sign_loss, reason = "a monotonic clock is never negative")]
pub(crate) fn millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    (now.tv_sec as u64) * 1_000 + (now.tv_nsec as u64) / 1_000_000
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn millis() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    super::millis::millis(ORIGIN.get_or_init(Instant::now).elapsed())
}
