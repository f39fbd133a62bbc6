//! Exponential backoff with jitter: each pause is twice the last, up to a maximum, and random in
//! its upper half, so that instances do not retry in step.

use std::time::Duration;

/// The number of attempts is not limited.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempts: 0 }
    }

    /// The pause before the next attempt. `random`, from 0 to 1, chooses a pause between half the
    /// due pause and all of it.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let due = self.first.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        due.mul_f64(random.clamp(0.0, 1.0) / 2.0 + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_maximum() {
        let (first, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, max);
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!((0..100).map(|_| backoff.next(0.0)).max(), Some(max / 2));
        let mut backoff = Backoff::new(first, max);
        assert_eq!(backoff.next(0.5), first.mul_f64(0.75));
    }
}
