//! The groups of options about failing dependencies.

use std::time::Duration;

use super::option_group::option_group;

option_group! {
    /// A circuit breaker: after `failure_threshold` consecutive failures no call is made for
    /// `cooldown`. Then one call at a time is let through, until one succeeds. Invalidations that
    /// have not been published, or have not reached L2, do not wait for that: the cache retries
    /// them about once a second, and a success closes the circuit too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{
    ///     CircuitBreaker, L2Health, LazyLayersCache, SystemClock, WireCodec,
    ///     testing::{SharedStore, StoreFault},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreaker::default()
    ///     .failure_threshold(1)
    ///     .cooldown(Duration::from_secs(10));
    /// let store = SharedStore::new(SystemClock);
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .l2_circuit_breaker(breaker)
    ///     .build()?;
    /// store.set_fault(StoreFault::Fails);
    /// names.get(&7).await;
    /// assert_eq!(names.health().l2, Some(L2Health::Skipped));
    /// # Ok(()) }
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CircuitBreaker {
        /// Consecutive failures that open the circuit. Default: 3.
        pub failure_threshold: u32 = 3,
        /// How long the circuit stays open. Default: 30 s.
        pub cooldown: Duration as "humantime_serde" = Duration::from_secs(30),
    }
}

option_group! {
    /// Keeps a value beyond its time to live, to serve it as a stale copy when a load fails or
    /// takes too long.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{FailSafe, LazyLayersCache};
    ///
    /// let fail_safe = FailSafe::enabled()
    ///     .stale_ttl(Duration::from_secs(3_600))
    ///     .throttle(Duration::from_secs(1))
    ///     .in_l2(false);
    /// let names = LazyLayersCache::<u64, String>::builder().fail_safe(fail_safe).build()?;
    /// assert_eq!(names.guarantees().stale_for, Duration::from_secs(3_600));
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FailSafe {
        /// Default: false.
        pub enabled: bool = false => [enabled()],
        /// How long a value may serve as a stale copy after it has ceased to be fresh.
        /// A call, a loader or a value may have a window of its own. Default: 300 s, at most ten
        /// years; in L1 a value ends after 49.7 days, its stale window included.
        pub stale_ttl: Duration as "humantime_serde" = Duration::from_secs(300),
        /// After a load failed and a stale copy was served, the key is not loaded again for this
        /// long: the stale copy answers at once. Default: 5 s.
        pub throttle: Duration as "humantime_serde" = Duration::from_secs(5),
        /// Whether L2 keeps stale copies too, so that instances which never had a value in L1 can
        /// serve it. A value with a copy takes twice the memory in L2. With `false` a value that
        /// comes from L2 has no stale window. Default: true.
        pub in_l2: bool = true,
    }
}
