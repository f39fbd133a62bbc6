//! How long to wait before trying again: longer each time up to a limit, never for ever, and not
//! in step with others who lost the same thing at the same moment.
//!
//! Pure: whoever asks brings the randomness and does the waiting. Half of each delay is random,
//! not all of it: a delay of nearly nothing would hammer what has just failed.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The wait after one more failure. `random` is from zero to one.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let longest = self.base.saturating_mul(doubled).min(self.cap);
        let share = 0.5 + random.clamp(0.0, 1.0) / 2.0;
        Duration::try_from_secs_f64(longest.as_secs_f64() * share).unwrap_or(longest)
    }

    /// To be called at a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(backoff: &mut Backoff, random: f64) -> u128 {
        backoff.next(random).as_millis()
    }

    #[test]
    fn it_doubles_up_to_the_cap_and_goes_on_for_ever() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| millis(&mut backoff, 1.0)).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        for _ in 0..100 {
            assert_eq!(millis(&mut backoff, 1.0), 2_000);
        }
        backoff.failures = u32::MAX;
        assert_eq!(millis(&mut backoff, 1.0), 2_000);
        backoff.reset();
        assert_eq!(millis(&mut backoff, 1.0), 50);
    }

    #[test]
    fn half_of_it_is_random_and_none_of_it_nothing() {
        for (random, wait) in [(0.0, 25), (0.5, 37), (1.0, 50), (-3.0, 25), (7.0, 50)] {
            assert_eq!(millis(&mut Backoff::default(), random), wait);
        }
    }

    #[test]
    fn no_duration_overflows() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..40 {
            assert!(backoff.next(1.0) > Duration::from_secs(1));
        }
    }
}
