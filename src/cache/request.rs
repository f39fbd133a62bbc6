//! The request that `get_or_set` returns. Its methods set options of the call, awaiting it runs
//! the call.

use std::{
    future::IntoFuture,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    outcome::{Outcome, ReadResult},
    state::CacheState,
};
use crate::{
    error::Error,
    key::CacheKey,
    load::{IntoLoaded, Loader},
    options::{CallOptions, Timeouts},
};

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Output<V, L> = <<L as Loader<V>>::Loaded as IntoLoaded<V>>::Output;

/// A [`get_or_set`](super::LazyLayersCache::get_or_set) request. Its methods set options of this
/// call; awaiting it runs the call.
///
/// ```
/// # use std::time::Duration;
/// # use lazy_layers_cache::{LazyLayersCache, Source};
/// # async fn find_price() -> Result<f64, std::io::Error> { Ok(9.99) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LazyLayersCache::<String, f64>::builder().build()?;
/// let price = cache
///     .get_or_set("price:7", find_price)
///     .ttl(Duration::from_secs(5))
///     .stale_for(Duration::from_secs(60))
///     .outcome()
///     .await?;
/// assert_eq!((*price.value, price.source), (9.99, Source::Loader));
/// # Ok(()) }
/// ```
#[must_use = "does nothing until awaited"]
pub struct GetOrSet<'a, Q: ?Sized, V, L> {
    state: &'a Arc<CacheState<V>>,
    key: &'a Q,
    loader: L,
    /// Boxed, so that a request without options stays small: every hit moves it.
    call: Option<Box<CallOptions>>,
}

impl<'a, Q, V, L> GetOrSet<'a, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    #[inline]
    pub(super) fn new(state: &'a Arc<CacheState<V>>, key: &'a Q, loader: L) -> Self {
        Self { state, key, loader, call: None }
    }

    /// The ttl of the loaded value. Default: the ttl of the cache. The ttl of a returned
    /// [`Loaded`](crate::Loaded) takes precedence. Zero: do not cache the value.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let prices = LazyLayersCache::<u64, u32>::builder().clock(clock.clone()).build()?;
    /// let load = || async { Ok::<_, std::io::Error>(9) };
    /// prices.get_or_set(&7, load).ttl(Duration::from_secs(5)).await?;
    ///
    /// clock.advance(Duration::from_secs(6));
    /// assert!(prices.get(&7).await.is_none());
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call_mut().ttl = Some(ttl);
        self
    }

    /// The stale window of the loaded value, after its ttl. Default: the window of the cache's
    /// [`FailSafe`](crate::FailSafe), or zero if fail-safe is off.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let prices = LazyLayersCache::<u64, u32>::builder().clock(clock.clone()).build()?;
    /// let load = || async { Ok::<_, std::io::Error>(9) };
    /// prices.get_or_set(&7, load).stale_for(Duration::from_secs(600)).await?;
    ///
    /// clock.advance(Duration::from_secs(61));
    /// let price = prices.get_or_set(&7, || async { Err::<u32, _>("the origin is down") }).await?;
    /// assert_eq!(*price, 9, "the stale value");
    /// # Ok(()) }
    /// ```
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.call_mut().stale_for = Some(stale_for);
        self
    }

    /// The timeouts of this call, and of the load that it may start. Default: those of the cache.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{ErrorKind, LazyLayersCache, Timeouts};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = LazyLayersCache::<u64, u32>::builder().build()?;
    /// let slow = || async {
    ///     tokio::time::sleep(Duration::from_secs(60)).await;
    ///     Ok::<_, std::io::Error>(9)
    /// };
    /// let limit = Timeouts::none().hard(Duration::from_millis(200));
    /// let error = prices.get_or_set(&7, slow).timeouts(limit).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::HardTimeout);
    /// # Ok(()) }
    /// ```
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.call_mut().timeouts = Some(timeouts);
        self
    }

    /// Loads even if there is a fresh value. If the load fails, the call returns that value. If a
    /// load of the key is running already, the call joins it.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = LazyLayersCache::<u64, u32>::builder().build()?;
    /// prices.set(&7, 9_u32).await?;
    ///
    /// let load = || async { Ok::<_, std::io::Error>(10) };
    /// assert_eq!(*prices.get_or_set(&7, load).refresh().await?, 10);
    /// assert_eq!(*prices.get(&7).await.unwrap(), 10);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "force_refresh")]
    pub fn refresh(mut self) -> Self {
        self.call_mut().refresh = true;
        self
    }

    /// Runs the call, and returns also the source, age and staleness of the value.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, Source};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = LazyLayersCache::<u64, u32>::builder().build()?;
    /// let load = || async { Ok::<_, std::io::Error>(9) };
    /// assert_eq!(prices.get_or_set(&7, load).outcome().await?.source, Source::Loader);
    /// assert_eq!(prices.get_or_set(&7, load).outcome().await?.source, Source::L1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As for the request itself.
    ///
    /// # Cancel safety
    ///
    /// As for the request itself.
    pub fn outcome(self) -> OutcomeFuture<'a, Q, V, L> {
        OutcomeFuture(State::Request(self))
    }

    fn call_mut(&mut self) -> &mut CallOptions {
        self.call.get_or_insert_default()
    }
}

impl<'a, Q, V, L> IntoFuture for GetOrSet<'a, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    type Output = Result<Output<V, L>, Error>;
    type IntoFuture = GetOrSetFuture<'a, Q, V, L>;

    #[inline]
    fn into_future(self) -> Self::IntoFuture {
        GetOrSetFuture(State::Request(self))
    }
}

/// The future of a [`GetOrSet`]. The first poll answers a hit in L1, without an allocation.
///
/// ```
/// use std::future::IntoFuture;
/// use lazy_layers_cache::{GetOrSetFuture, LazyLayersCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let prices = LazyLayersCache::<u64, u32>::builder().build()?;
/// let load = || async { Ok::<_, std::io::Error>(9) };
/// // Without a box: `select!` and `join!` take it as it is, because it is `Unpin`.
/// let mut call: GetOrSetFuture<'_, u64, u32, _> = prices.get_or_set(&7, load).into_future();
/// assert_eq!(*(&mut call).await?, 9);
/// # Ok(()) }
/// ```
#[must_use = "does nothing until awaited"]
pub struct GetOrSetFuture<'a, Q: ?Sized, V, L>(State<'a, Q, V, L>);

enum State<'a, Q: ?Sized, V, L> {
    Request(GetOrSet<'a, Q, V, L>),
    Slow(BoxFuture<'a, Result<ReadResult<V>, Error>>),
    Done,
}

// The future moves the loader and never pins it.
impl<Q: ?Sized, V, L> Unpin for GetOrSetFuture<'_, Q, V, L> {}

impl<Q, V, L> Future for GetOrSetFuture<'_, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    type Output = Result<Output<V, L>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Request(request) = &self.0
            && request.call.as_ref().is_none_or(|call| !call.refresh)
            && let Some(value) =
                request.state.l1_answer(&request.key.key_text(), L::Loaded::output(None).is_some())
            && let Some(output) = L::Loaded::output(value)
        {
            // The request is not taken apart here: that would cost more than the hit.
            return Poll::Ready(Ok(output));
        }
        self.poll_slow(context)
    }
}

impl<Q, V, L> GetOrSetFuture<'_, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    fn poll_slow(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Output<V, L>, Error>> {
        let result = self.0.poll_slow(context);
        result.map(|result| result.and_then(ReadResult::into_output::<L::Loaded>))
    }
}

/// The future of [`GetOrSet::outcome`].
///
/// It is a type of its own, not that of an `async fn`: whether that is `Send` cannot be decided for
/// every loader.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, OutcomeFuture, Source};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let prices = LazyLayersCache::<u64, u32>::builder().build()?;
/// let load = || async { Ok::<_, std::io::Error>(9) };
/// let call: OutcomeFuture<'_, u64, u32, _> = prices.get_or_set(&7, load).outcome();
/// assert_eq!(call.await?.source, Source::Loader);
/// # Ok(()) }
/// ```
#[must_use = "does nothing until awaited"]
pub struct OutcomeFuture<'a, Q: ?Sized, V, L>(State<'a, Q, V, L>);

// The future moves the loader and never pins it.
impl<Q: ?Sized, V, L> Unpin for OutcomeFuture<'_, Q, V, L> {}

impl<Q, V, L> Future for OutcomeFuture<'_, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    type Output = Result<Outcome<Output<V, L>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Request(GetOrSet { state, key, call, .. }) = &self.0
            && call.as_ref().is_none_or(|call| !call.refresh)
        {
            let accepts_none = L::Loaded::output(None).is_some();
            let key = Arc::from(&*key.key_text());
            if let Some(result) = state.l1_result(&key, accepts_none) {
                self.0 = State::Done;
                return Poll::Ready(result.into_outcome::<L::Loaded>());
            }
        }
        let result = self.0.poll_slow(context);
        result.map(|result| result.and_then(ReadResult::into_outcome::<L::Loaded>))
    }
}

impl<Q, V, L> State<'_, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    /// Runs the request, without another look into L1.
    fn poll_slow(&mut self, context: &mut Context<'_>) -> Poll<Result<ReadResult<V>, Error>> {
        let mut slow = match std::mem::replace(self, Self::Done) {
            Self::Request(GetOrSet { state, key, loader, call }) => {
                let key = Arc::from(&*key.key_text());
                Box::pin(Arc::clone(state).get_or_load_slow(key, loader, call))
            }
            Self::Slow(slow) => slow,
            #[expect(clippy::panic, reason = "as futures of the standard library do")]
            Self::Done => panic!("`get_or_set` polled after it was ready"),
        };
        let result = slow.as_mut().poll(context);
        if result.is_pending() {
            *self = Self::Slow(slow);
        }
        result
    }
}
