//! The request that `set` returns. Its methods set options of the call, awaiting it runs the call.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use super::{request::BoxFuture, state::CacheState, write_report::WriteReport};
use crate::{contain::Held, error::Error, key::CacheKey, options::CallOptions};

/// A [`set`](super::LazyLayersCache::set) request. Its methods set options of this call; awaiting
/// it runs the call.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{L1Effect, LazyLayersCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// let report = names
///     .set(&7, "Ada".to_owned())
///     .ttl(Duration::from_secs(5))
///     .stale_for(Duration::from_secs(60))
///     .await?;
/// assert_eq!(report.l1, L1Effect::Stored);
/// # Ok(()) }
/// ```
#[must_use = "does nothing until awaited"]
pub struct SetRequest<'a, Q: ?Sized, V> {
    state: &'a Arc<CacheState<V>>,
    key: &'a Q,
    value: Held<V>,
    call: CallOptions,
}

impl<'a, Q: CacheKey + ?Sized, V: Send + Sync + 'static> SetRequest<'a, Q, V> {
    pub(super) fn new(state: &'a Arc<CacheState<V>>, key: &'a Q, value: Arc<V>) -> Self {
        Self { state, key, value: Held::new(value), call: CallOptions::default() }
    }

    /// The ttl of the value. Default: the ttl of the cache. Zero: only delete the cached value.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let names = LazyLayersCache::<u64, String>::builder().clock(clock.clone()).build()?;
    /// names.set(&7, "Ada".to_owned()).ttl(Duration::from_secs(5)).await?;
    ///
    /// clock.advance(Duration::from_secs(6));
    /// assert!(names.get(&7).await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call.ttl = Some(ttl);
        self
    }

    /// The stale window of the value, after its ttl. Default: the window of the cache's
    /// [`FailSafe`](crate::FailSafe), or zero if fail-safe is off.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let names = LazyLayersCache::<u64, String>::builder().clock(clock.clone()).build()?;
    /// names.set(&7, "Ada".to_owned()).stale_for(Duration::from_secs(600)).await?;
    ///
    /// clock.advance(Duration::from_secs(61));
    /// let load = || async { Err::<String, _>("the database is down") };
    /// assert_eq!(names.get_or_set(&7, load).await?.as_str(), "Ada");
    /// # Ok(()) }
    /// ```
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.call.stale_for = Some(stale_for);
        self
    }
}

impl<'a, Q: CacheKey + Sync + ?Sized, V: Send + Sync + 'static> IntoFuture
    for SetRequest<'a, Q, V>
{
    type Output = Result<WriteReport, Error>;
    type IntoFuture = BoxFuture<'a, Result<WriteReport, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { state, key, value, call } = self;
        Box::pin(async move { state.set(&key.key_text(), &value, &call).await })
    }
}
