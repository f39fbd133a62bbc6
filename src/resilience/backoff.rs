//! How long to wait before the next attempt: longer each time, up to a bound, and never the same
//! for all who wait, so that they do not all come back at once.

use std::time::Duration;

/// Never gives up.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// `random` from 0 to 1 chooses from the upper half of what is due.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let due = self.first.saturating_mul(1 << self.attempts.min(20)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        due.mul_f64(random.clamp(0.0, 1.0) / 2.0 + 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_bound() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!((0..100).map(|_| backoff.next(0.0)).max(), Some(longest / 2));
        let mut backoff = Backoff::new(first, longest);
        assert_eq!(backoff.next(0.5), first.mul_f64(0.75));
    }
}
