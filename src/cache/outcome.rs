//! The outcome of a read: the value, its source, its age, and why it is stale.

use std::{sync::Arc, time::Duration};

use crate::{
    contain::Held,
    entry::Entry,
    error::{Cause, Error},
    load::IntoLoaded,
    observe::StaleReason,
};

/// The value of a call, and where it came from.
///
/// With the feature `serde` it serializes if the value does (an `Arc` does with serde's own feature
/// `rc`); `age` is written as "1m 5s".
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LazyLayersCache, testing::ManualClock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = ManualClock::new();
/// let prices = LazyLayersCache::<u64, u32>::builder().clock(clock.clone()).build()?;
/// prices.set(&7, 9_u32).await?;
/// clock.advance(Duration::from_secs(20));
///
/// let load = || async { Ok::<_, std::io::Error>(10) };
/// let price = prices.get_or_set(&7, load).outcome().await?;
/// assert_eq!((*price.value, price.age, price.stale), (9, Duration::from_secs(20), None));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Outcome<T> {
    /// The value that awaiting the request itself returns.
    pub value: T,
    /// Where the value came from.
    pub source: Source,
    /// Time since the value was loaded or set, as far as this instance knows: zero for a value that
    /// was loaded by this call or found in L2.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub age: Duration,
    /// Why the call returned a stale value instead of the result of a load; `None` if the value is
    /// not stale.
    pub stale: Option<StaleReason>,
}

/// Where a value came from.
///
/// ```
/// use lazy_layers_cache::Source;
///
/// /// The value of a response header.
/// fn header(source: Source) -> &'static str {
///     match source {
///         Source::L1 | Source::L2 => "hit",
///         _ => "miss",
///     }
/// }
/// assert_eq!(header(Source::Joined), "miss");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Source {
    /// The memory of this instance.
    L1,
    /// The store that instances share.
    L2,
    /// The loader of this call.
    Loader,
    /// The loader of another call, which was running already.
    Joined,
}

/// An [`Outcome`] before it is converted to the output type of the caller's loader.
pub(super) struct ReadResult<V> {
    pub(super) value: Option<Arc<V>>,
    pub(super) source: Source,
    pub(super) age: Duration,
    pub(super) stale: Option<StaleReason>,
    pub(super) key: Arc<str>,
}

impl<V> ReadResult<V> {
    pub(super) fn from_l1(
        key: Arc<str>,
        entry: Entry<V>,
        now: u64,
        stale: Option<StaleReason>,
    ) -> Self {
        let age = entry.age(now);
        let value = Some(entry.into_value());
        Self { value, source: Source::L1, age, stale, key }
    }

    pub(super) fn from_flight(key: Arc<str>, value: Option<Held<V>>, source: Source) -> Self {
        let value = value.map(Held::into_inner);
        Self { value, source, age: Duration::ZERO, stale: None, key }
    }

    pub(super) fn into_output<L: IntoLoaded<V>>(self) -> Result<L::Output, Error> {
        L::output(self.value).ok_or_else(|| Error::of_key(&self.key, Cause::Absent))
    }

    pub(super) fn into_outcome<L: IntoLoaded<V>>(self) -> Result<Outcome<L::Output>, Error> {
        let Self { source, age, stale, .. } = self;
        Ok(Outcome { value: self.into_output::<L>()?, source, age, stale })
    }
}
