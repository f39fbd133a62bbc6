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
/// It controls how old entries are. Timeouts follow tokio's timer: to control both, pause tokio's
/// time and use [`TokioClock`], also for a cache with an event bus, whose L1 is trusted only while
/// the clock moves with tokio's.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{Clock, testing::ManualClock};
///
/// let clock = ManualClock::new();
/// let same = clock.clone();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(same.now(), 5_000);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Creates a clock at zero.
    ///
    /// ```
    /// use lazy_layers_cache::{Clock, testing::ManualClock};
    ///
    /// assert_eq!(ManualClock::new().now(), 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the clock, by whole milliseconds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let clock = ManualClock::new();
    /// let names = LazyLayersCache::<u64, String>::builder().clock(clock.clone()).build()?;
    /// names.set(&7, "Ada".to_owned()).ttl(Duration::from_secs(5)).await?;
    ///
    /// clock.advance(Duration::from_millis(4_999));
    /// assert!(names.has(&7).await);
    /// clock.advance(Duration::from_millis(1));
    /// assert!(!names.has(&7).await);
    /// # Ok(()) }
    /// ```
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
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LazyLayersCache, testing::TokioClock};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// // In a test: #[tokio::test(start_paused = true)]
/// let names = LazyLayersCache::<u64, String>::builder().clock(TokioClock::new()).build()?;
/// names.set(&7, "Ada".to_owned()).ttl(Duration::from_secs(5)).await?;
///
/// tokio::time::advance(Duration::from_secs(5)).await;
/// assert!(!names.has(&7).await);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct TokioClock(Instant);

impl TokioClock {
    /// Creates a clock that is at zero now. Call it inside the runtime.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{Clock, testing::TokioClock};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let clock = TokioClock::new();
    /// tokio::time::advance(Duration::from_secs(1)).await;
    /// assert_eq!(clock.now(), 1_000);
    /// # Ok(()) }
    /// ```
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
