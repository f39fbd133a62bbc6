//! Clocks that a test can advance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::time::{Clock, millis, ticker::Pace};

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

/// A thread that reads the time as hits do: for a simulation whose instances are frozen with their
/// ticks.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct TickReader(Mutex<(Pace, u32)>);

impl TickReader {
    /// Returns the tick, or what the clock says.
    pub fn read(&self, tick: u64, clock: impl FnOnce() -> u64) -> u64 {
        let (pace, left) = &mut *self.0.lock();
        if *left > 0 {
            *left -= 1;
            return tick;
        }
        let now = clock();
        *left = pace.credit(now);
        now
    }
}
