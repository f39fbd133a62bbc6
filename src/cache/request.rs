//! The requests that calls return: told more by methods, sent by awaiting them.

use std::{
    future::IntoFuture,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    outcome::{Found, Outcome},
    state::CacheState,
};
use crate::{
    error::Error,
    key::CacheKey,
    load::{IntoLoaded, Loader},
    options::{CallOptions, Timeouts},
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Output<V, L> = <<L as Loader<V>>::Loaded as IntoLoaded<V>>::Output;

/// A [`get_or_set`](super::LazyLayersCache::get_or_set) that can be told more before it is
/// awaited.
///
/// ```
/// # use std::time::Duration;
/// # use lazy_layers_cache::{LazyLayersCache, Source};
/// # async fn find_price() -> Result<f64, std::io::Error> { Ok(9.99) }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
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
#[must_use = "nothing happens before it is awaited"]
pub struct GetOrSet<'a, Q: ?Sized, V, L> {
    state: &'a Arc<CacheState<V>>,
    key: &'a Q,
    loader: L,
    /// Boxed, so that the plain request stays small: it is moved on every hit.
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

    /// How long the loaded value is fresh. Default: the cache's. A [`Loaded`](crate::Loaded) that
    /// says so itself goes first. Zero: do not cache it.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call_mut().ttl = Some(ttl);
        self
    }

    /// How long the loaded value may serve as a stale copy after that. Default: the cache's
    /// [`FailSafe`](crate::FailSafe), or nothing if that is off.
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.call_mut().stale_for = Some(stale_for);
        self
    }

    /// Limits on the time of this call and of the load it may begin. Default: the cache's.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.call_mut().timeouts = Some(timeouts);
        self
    }

    /// Loads even if there is a fresh value, which then is the copy that serves if the load
    /// fails. A load of the key that is running already is joined.
    #[doc(alias = "force_refresh")]
    pub fn refresh(mut self) -> Self {
        self.call_mut().refresh = true;
        self
    }

    /// Sends the request and tells, beside the value, where it came from.
    ///
    /// # Errors
    ///
    /// As for the request itself.
    ///
    /// # Cancel safety
    ///
    /// As for the request itself.
    pub async fn outcome(self) -> Result<Outcome<Output<V, L>>, Error> {
        let Self { state, key, loader, call } = self;
        let key = Arc::from(&*key.key_text());
        let refresh = call.as_ref().is_some_and(|call| call.refresh);
        let at_once = if refresh { None } else { state.look::<L>(&key) };
        let found = match at_once {
            Some(found) => found,
            None => Arc::clone(state).fetch(key, loader, call).await?,
        };
        found.into_outcome::<L::Loaded>()
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

/// A [`GetOrSet`] on its way. A hit in memory is answered by the first poll, without an
/// allocation.
#[must_use = "nothing happens before it is awaited"]
pub struct GetOrSetFuture<'a, Q: ?Sized, V, L>(State<'a, Q, V, L>);

enum State<'a, Q: ?Sized, V, L> {
    Request(GetOrSet<'a, Q, V, L>),
    Fetch(BoxFuture<'a, Result<Found<V>, Error>>),
    Done,
}

// The loader is only ever moved, never pinned.
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
                request.state.answer(&request.key.key_text(), L::Loaded::output(None).is_some())
            && let Some(output) = L::Loaded::output(value)
        {
            // The request stays as it is: taking it apart would cost more than it is worth.
            return Poll::Ready(Ok(output));
        }
        self.poll_fetch(context)
    }
}

impl<Q, V, L> GetOrSetFuture<'_, Q, V, L>
where
    Q: CacheKey + ?Sized,
    V: Send + Sync + 'static,
    L: Loader<V>,
{
    fn poll_fetch(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Output<V, L>, Error>> {
        let mut fetch = match std::mem::replace(&mut self.0, State::Done) {
            State::Request(GetOrSet { state, key, loader, call }) => {
                let key = Arc::from(&*key.key_text());
                Box::pin(Arc::clone(state).fetch(key, loader, call))
            }
            State::Fetch(fetch) => fetch,
            #[expect(clippy::panic, reason = "as every future of std does")]
            State::Done => panic!("a `get_or_set` polled again after it was ready"),
        };
        match fetch.as_mut().poll(context) {
            Poll::Ready(found) => Poll::Ready(found.and_then(Found::into_output::<L::Loaded>)),
            Poll::Pending => {
                self.0 = State::Fetch(fetch);
                Poll::Pending
            }
        }
    }
}

/// A [`set`](super::LazyLayersCache::set) that can be told more before it is awaited.
#[must_use = "nothing happens before it is awaited"]
pub struct SetRequest<'a, Q: ?Sized, V> {
    state: &'a Arc<CacheState<V>>,
    key: &'a Q,
    value: Arc<V>,
    call: CallOptions,
}

impl<'a, Q: CacheKey + ?Sized, V: Send + Sync + 'static> SetRequest<'a, Q, V> {
    pub(super) fn new(state: &'a Arc<CacheState<V>>, key: &'a Q, value: Arc<V>) -> Self {
        Self { state, key, value, call: CallOptions::default() }
    }

    /// How long the value is fresh. Default: the cache's. Zero: only delete what there is.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.call.ttl = Some(ttl);
        self
    }

    /// How long the value may serve as a stale copy after that. Default: the cache's
    /// [`FailSafe`](crate::FailSafe), or nothing if that is off.
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.call.stale_for = Some(stale_for);
        self
    }
}

impl<'a, Q: CacheKey + Sync + ?Sized, V: Send + Sync + 'static> IntoFuture
    for SetRequest<'a, Q, V>
{
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'a, Result<(), Error>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { state, key, value, call } = self;
        Box::pin(async move { state.set(&key.key_text(), &value, &call).await })
    }
}
