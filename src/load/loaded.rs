//! What a loader may return, and what its caller gets for it.

use std::{sync::Arc, time::Duration};

/// A loader's answer in full: a value or none, with times of its own.
///
/// ```
/// # use lazy_layers_cache::{LazyLayersCache, Loaded};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LazyLayersCache::<String, String>::builder().build()?;
/// // The origin knows best how long its answer is good for.
/// let token = cache
///     .get_or_set("token", || async {
///         Ok::<_, std::io::Error>(Loaded::value("s3cr3t".to_owned()).ttl(Duration::from_secs(30)))
///     })
///     .await?;
/// # assert_eq!(*token.unwrap(), "s3cr3t");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Loaded<V> {
    pub(crate) value: Option<Arc<V>>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
}

impl<V> Loaded<V> {
    /// A value.
    pub fn value(value: impl Into<Arc<V>>) -> Self {
        Self { value: Some(value.into()), ttl: None, stale_for: None }
    }

    /// The key does not exist.
    pub fn none() -> Self {
        Self { value: None, ttl: None, stale_for: None }
    }

    /// How long this answer is fresh, before all other settings. Zero: do not cache it.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long it may serve as a stale copy after that, before all other settings.
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.stale_for = Some(stale_for);
        self
    }
}

/// What a loader may return, and what `get_or_set` then gives:
///
/// | the loader returns | `get_or_set(..).await?` is | for |
/// | --- | --- | --- |
/// | `V` or `Arc<V>` | `Arc<V>` | what always exists |
/// | `Option<V>` | `Option<Arc<V>>` | what may not: `None` is cached as missing |
/// | [`Loaded<V>`] | `Option<Arc<V>>` | either, with times of its own |
///
/// A loader that returns `V` denies that the key can be missing: an entry that says so does not
/// count as an answer for it.
pub trait IntoLoaded<V>: Send + 'static {
    /// What the caller gets.
    type Output;

    /// The answer in full.
    fn into_loaded(self) -> Loaded<V>;

    /// What the caller gets for a value or none; `None` if that cannot be said in this type.
    fn output(value: Option<Arc<V>>) -> Option<Self::Output>;
}

impl<V: Send + Sync + 'static> IntoLoaded<V> for V {
    type Output = Arc<V>;

    fn into_loaded(self) -> Loaded<V> {
        Loaded::value(self)
    }

    #[inline]
    fn output(value: Option<Arc<V>>) -> Option<Arc<V>> {
        value
    }
}

impl<V: Send + Sync + 'static> IntoLoaded<V> for Arc<V> {
    type Output = Arc<V>;

    fn into_loaded(self) -> Loaded<V> {
        Loaded::value(self)
    }

    #[inline]
    fn output(value: Option<Arc<V>>) -> Option<Arc<V>> {
        value
    }
}

impl<V: Send + Sync + 'static> IntoLoaded<V> for Option<V> {
    type Output = Option<Arc<V>>;

    fn into_loaded(self) -> Loaded<V> {
        Loaded { value: self.map(Arc::new), ttl: None, stale_for: None }
    }

    #[inline]
    fn output(value: Option<Arc<V>>) -> Option<Option<Arc<V>>> {
        Some(value)
    }
}

impl<V: Send + Sync + 'static> IntoLoaded<V> for Loaded<V> {
    type Output = Option<Arc<V>>;

    fn into_loaded(self) -> Loaded<V> {
        self
    }

    #[inline]
    fn output(value: Option<Arc<V>>) -> Option<Option<Arc<V>>> {
        Some(value)
    }
}
