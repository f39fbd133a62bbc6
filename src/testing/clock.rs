//! Clocks that a test can advance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::time::{Clock, millis};

/// A clock that stands still until a test advances it. Clones are the same clock.
///
/// It controls freshness only. Timeouts follow tokio's timer: to control both, pause tokio's time
/// and use [`TokioClock`].
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Creates a clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock, by whole milliseconds.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(millis(by), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tokio's own time, so that `#[tokio::test(start_paused = true)]` controls freshness and timeouts
/// together.
#[derive(Debug, Clone)]
pub struct TokioClock(Instant);

impl TokioClock {
    /// Creates a clock that is at zero now. Call it inside the runtime.
    #[must_use]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> u64 {
        millis(self.0.elapsed())
    }
}
