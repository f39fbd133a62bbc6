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
    pub fn value(value: impl Into<Arc<V>>) -> Self {
        Self::new(Some(value))
    }

    /// An answer that says that the key does not exist.
    pub fn none() -> Self {
        Self::new(None::<Arc<V>>)
    }

    /// Sets the ttl of this answer. It takes precedence over the call and the cache. Zero: do not
    /// cache the answer.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets the stale window of this answer, after its ttl. It takes precedence over the call and
    /// the cache.
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
