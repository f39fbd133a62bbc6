//! The return types of loaders, and the types that callers get for them.

use std::{convert::identity, sync::Arc, time::Duration};

use crate::contain::Held;

/// The full answer of a loader: a value or none, with its own ttl and stale window.
///
/// ```
/// # use lazy_layers_cache::{LazyLayersCache, Loaded};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LazyLayersCache::<String, String>::builder().build()?;
/// // The origin knows the lifetime of the token.
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
    pub(crate) value: Option<Held<V>>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale_for: Option<Duration>,
}

impl<V> Loaded<V> {
    fn new(value: Option<impl Into<Arc<V>>>) -> Self {
        Self { value: value.map(|value| Held::new(value.into())), ttl: None, stale_for: None }
    }

    /// An answer with a value.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, Loaded};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, String>::builder().build()?;
    /// let load = || async { Ok::<_, std::io::Error>(Loaded::value("Ada".to_owned())) };
    /// assert_eq!(cache.get_or_set("7", load).await?.unwrap().as_str(), "Ada");
    /// # Ok(()) }
    /// ```
    pub fn value(value: impl Into<Arc<V>>) -> Self {
        Self::new(Some(value))
    }

    /// An answer that says that the key does not exist.
    ///
    /// ```
    /// use lazy_layers_cache::{LazyLayersCache, Loaded};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, String>::builder().build()?;
    /// let load = || async { Ok::<_, std::io::Error>(Loaded::none()) };
    /// assert!(cache.get_or_set("nobody", load).await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn none() -> Self {
        Self::new(None::<Arc<V>>)
    }

    /// Sets the ttl of this answer. It takes precedence over the call and the cache. Zero: do not
    /// cache the answer.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use lazy_layers_cache::{LazyLayersCache, Loaded};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, String>::builder().build()?;
    /// let answer = Loaded::value("draft".to_owned()).ttl(Duration::ZERO);
    /// cache.get_or_set("7", || async { Ok::<_, std::io::Error>(answer) }).await?;
    /// assert!(cache.get("7").await.is_none(), "a ttl of zero is not cached");
    /// # Ok(()) }
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the stale window of this answer, after its ttl. It takes precedence over the call and
    /// the cache.
    ///
    /// ```
    /// # use std::{io, time::Duration};
    /// use lazy_layers_cache::{LazyLayersCache, Loaded, testing::ManualClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = ManualClock::new();
    /// let cache = LazyLayersCache::<str, u32>::builder().clock(clock.clone()).build()?;
    /// let answer = Loaded::value(9_u32)
    ///     .ttl(Duration::from_secs(5))
    ///     .stale_for(Duration::from_secs(600));
    /// cache.get_or_set("price", || async { Ok::<_, io::Error>(answer) }).await?;
    ///
    /// clock.advance(Duration::from_secs(60));
    /// let load = || async { Err::<u32, _>("the origin is down") };
    /// let price = cache.get_or_set("price", load).await?;
    /// assert_eq!(*price, 9, "the stale copy");
    /// # Ok(()) }
    /// ```
    pub fn stale_for(mut self, stale_for: Duration) -> Self {
        self.stale_for = Some(stale_for);
        self
    }
}

/// The types that a loader may return, and the type that `get_or_set` returns for each:
///
/// | the loader returns | `get_or_set(..).await?` is | for keys that |
/// | --- | --- | --- |
/// | `V` or `Arc<V>` | `Arc<V>` | always exist |
/// | `Option<V>` | `Option<Arc<V>>` | may not exist: `None` is cached as a negative entry |
/// | [`Loaded<V>`] | `Option<Arc<V>>` | may not exist, with a ttl of their own |
///
/// A loader that returns `V` says that the key always exists: for its call, a negative entry counts
/// as a miss.
///
/// ```
/// use std::sync::Arc;
/// use lazy_layers_cache::LazyLayersCache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
///
/// // `String`: the caller gets `Arc<String>`.
/// let load = || async { Ok::<String, std::io::Error>("Ada".to_owned()) };
/// let name: Arc<String> = names.get_or_set(&1, load).await?;
///
/// // `Option<String>`: the caller gets `Option<Arc<String>>`.
/// let load = || async { Ok::<Option<String>, std::io::Error>(None) };
/// let name: Option<Arc<String>> = names.get_or_set(&2, load).await?;
/// # assert!(name.is_none());
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "a loader of `{V}` cannot return `{Self}`",
    label = "expected `{V}`, `Arc<{V}>`, `Option<{V}>` or `Loaded<{V}>`, in a `Result`",
    note = "the future of a loader returns a `Result` of one of these types: `Ok(value)` for a \
            key that always exists, `Ok(Some(value))` or `Ok(None)` for a key that may not"
)]
pub trait IntoLoaded<V>: Send + 'static {
    /// The type that the caller gets.
    type Output;

    /// Converts the return value to a full answer.
    fn into_loaded(self) -> Loaded<V>;

    /// Converts a value or none to the caller's type; `None` if that type cannot express it.
    fn output(value: Option<Arc<V>>) -> Option<Self::Output>;
}

/// Each row: a return type and its conversion, then the caller's type and the conversion to it.
macro_rules! into_loaded {
    ($($returned:ty: $into_loaded:path, $output:ty: $convert:path;)*) => {$(
        impl<V: Send + Sync + 'static> IntoLoaded<V> for $returned {
            type Output = $output;

            fn into_loaded(self) -> Loaded<V> {
                $into_loaded(self)
            }

            #[inline]
            fn output(value: Option<Arc<V>>) -> Option<$output> {
                $convert(value)
            }
        }
    )*};
}
into_loaded! {
    V: Loaded::value, Arc<V>: identity;
    Arc<V>: Loaded::value, Arc<V>: identity;
    Option<V>: Loaded::new, Option<Arc<V>>: Some;
    Loaded<V>: identity, Option<Arc<V>>: Some;
}
