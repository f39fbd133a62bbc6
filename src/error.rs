//! The two errors that the library returns: [`Error`] from a call, [`BuildError`] from `build()`.

mod box_error;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

pub use self::box_error::BoxError;
use self::box_error::find_error;
pub(crate) use self::box_error::into_box_error;
use crate::contain::{QuietDrop, contain};

/// An error of a loader, a codec, a store or a transport, of which the cache is the owner.
pub(crate) type HeldError = QuietDrop<BoxError>;

/// The text of an error, which may be of a type of the user whose `Display` panics.
pub(crate) fn text_of(error: &BoxError) -> String {
    contain(|| error.to_string()).unwrap_or_else(|_| "an error that has no text".to_owned())
}

/// The reason why a call failed. Cloning is cheap: every caller that waited for a load gets a clone
/// of the same error, with the error of the loader inside.
///
/// ```
/// # use lazy_layers_cache::{ErrorKind, LazyLayersCache};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = LazyLayersCache::<String, u32>::builder().build()?;
/// let error = cache
///     .get_or_set("answer", || async { "not a number".parse::<u32>() })
///     .await
///     .unwrap_err();
///
/// assert_eq!(error.kind(), ErrorKind::Loader);
/// assert!(error.loader_error::<std::num::ParseIntError>().is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    key: Option<Arc<str>>,
    cause: Cause,
}

/// Why a call failed, with the details that the text of the error names.
pub(crate) enum Cause {
    Loader(HeldError),
    Panicked(String),
    HardTimeout(Duration),
    Recursion,
    Absent,
    Abandoned,
    NoRuntime,
    LockTimeout(Duration),
    Closed,
}

/// The kind of an [`Error`], to match on.
///
/// ```
/// use lazy_layers_cache::{Error, ErrorKind};
///
/// /// The status of an HTTP response for an error of `get_or_set`.
/// fn status(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::HardTimeout | ErrorKind::LockTimeout => 504,
///         ErrorKind::Loader | ErrorKind::Closed => 503,
///         _ => 500,
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The loader returned an error, which [`Error::loader_error`] returns.
    Loader,
    /// The loader panicked.
    LoaderPanicked,
    /// The load, or the wait for it, took longer than the hard timeout.
    HardTimeout,
    /// A loader waited, directly or through other loaders, for the very key it is loading.
    Recursion,
    /// The load found that the key does not exist, and the type that the loader returns cannot
    /// express that: a type of your own that implements [`IntoLoaded`](crate::IntoLoaded).
    Absent,
    /// The load was dropped before it ended, because its runtime shut down or the cache was closed.
    Abandoned,
    /// The loader has to wait, but the call runs outside of a tokio runtime.
    NoRuntime,
    /// Another instance held the distributed lock and did not finish in time, and the stale copy
    /// that was to be served expired meanwhile.
    LockTimeout,
    /// The cache was closed. This is the only error of `set`, `delete`, `delete_by_pattern` and
    /// `clear`.
    Closed,
}

impl Error {
    /// Returns the kind of the error.
    ///
    /// ```
    /// use lazy_layers_cache::{ErrorKind, LazyLayersCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, u32>::builder().build()?;
    /// cache.close().await;
    /// assert_eq!(cache.set("7", 1_u32).await.unwrap_err().kind(), ErrorKind::Closed);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.0.cause {
            Cause::Loader(_) => ErrorKind::Loader,
            Cause::Panicked(_) => ErrorKind::LoaderPanicked,
            Cause::HardTimeout(_) => ErrorKind::HardTimeout,
            Cause::Recursion => ErrorKind::Recursion,
            Cause::Absent => ErrorKind::Absent,
            Cause::Abandoned => ErrorKind::Abandoned,
            Cause::NoRuntime => ErrorKind::NoRuntime,
            Cause::LockTimeout(_) => ErrorKind::LockTimeout,
            Cause::Closed => ErrorKind::Closed,
        }
    }

    /// Returns the key of the failed call, if it concerns one key.
    ///
    /// ```
    /// use lazy_layers_cache::LazyLayersCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, u32>::builder().build()?;
    /// let load = || async { Err::<u32, _>("the database is down") };
    /// let error = cache.get_or_set("answer", load).await.unwrap_err();
    /// assert_eq!(error.key(), Some("answer"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// Returns the error of the loader, or the first of its [sources](StdError::source), that is of
    /// the type `E`, also in a `Box` or an `Arc`. So it finds an error that the loader has wrapped
    /// in another one. [`source`](StdError::source) returns the error of the loader without its
    /// type.
    ///
    /// For a loader that returns an `anyhow::Error`, turn on the feature `anyhow`. Without it, only
    /// an error with a context is found, because anyhow's own conversion hides the type of the
    /// others.
    ///
    /// ```
    /// # use lazy_layers_cache::LazyLayersCache;
    /// # #[cfg(feature = "anyhow")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LazyLayersCache::<str, u32>::builder().build()?;
    /// let load = || async { anyhow::Ok("not a number".parse::<u32>()?) };
    /// let error = cache.get_or_set("answer", load).await.unwrap_err();
    ///
    /// assert!(error.loader_error::<std::num::ParseIntError>().is_some());
    /// # Ok(()) }
    /// # #[cfg(not(feature = "anyhow"))]
    /// # fn main() {}
    /// ```
    #[must_use]
    pub fn loader_error<E: StdError + Send + Sync + 'static>(&self) -> Option<&E> {
        match &self.0.cause {
            Cause::Loader(error) => find_error(&***error),
            _ => None,
        }
    }

    pub(crate) fn of_key(key: &Arc<str>, cause: Cause) -> Self {
        Self(Arc::new(Inner { key: Some(Arc::clone(key)), cause }))
    }

    pub(crate) fn without_key(cause: Cause) -> Self {
        Self(Arc::new(Inner { key: None, cause }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key().unwrap_or_default();
        match &self.0.cause {
            Cause::Loader(_) => write!(f, "the loader of key `{key}` failed"),
            Cause::Panicked(message) => write!(f, "the loader of key `{key}` panicked: {message}"),
            Cause::HardTimeout(limit) => {
                write!(f, "loading key `{key}` took longer than the hard timeout of {limit:?}")
            }
            Cause::Recursion => {
                write!(f, "the loader of key `{key}` waits for the same key, so it would never end")
            }
            Cause::Absent => write!(
                f,
                "key `{key}` does not exist, which the type that the loader returns cannot \
                 express; let the loader return `Option<V>` to receive that as `None`"
            ),
            Cause::Abandoned => write!(
                f,
                "the load of key `{key}` was dropped before it ended (its runtime shut down, or \
                 the cache was closed)"
            ),
            Cause::NoRuntime if self.key().is_none() => write!(
                f,
                "subscribing to the bus, or exporting metrics regularly, needs a tokio runtime \
                 with its timer: call from within one"
            ),
            Cause::NoRuntime => write!(
                f,
                "the loader of key `{key}` has to wait, which needs a tokio runtime: call from \
                 within one"
            ),
            Cause::LockTimeout(limit) => write!(
                f,
                "another instance has been loading key `{key}` for longer than {limit:?}, and the \
                 stale copy has expired"
            ),
            Cause::Closed => write!(f, "the cache is closed"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind()).field("key", &self.key());
        match &self.0.cause {
            Cause::Loader(error) => out.field("loader", error),
            Cause::Panicked(message) => out.field("panic", message),
            _ => &mut out,
        }
        .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.cause {
            Cause::Loader(error) => Some(&***error),
            _ => None,
        }
    }
}

/// An option that `build()` refuses: its name, the problem, and a fix.
///
/// ```
/// use lazy_layers_cache::LazyLayersCache;
///
/// let refused = LazyLayersCache::<str, u32>::builder().ttl_jitter(1.5).build().unwrap_err();
/// assert_eq!(refused.option(), "ttl_jitter");
/// println!("{refused}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// The cache or the section of a file; empty for a cache that is built alone.
    place: String,
    option: &'static str,
    problem: String,
    fix: &'static str,
}

impl BuildError {
    pub(crate) fn new(option: &'static str, problem: impl Into<String>, fix: &'static str) -> Self {
        Self { place: String::new(), option, problem: problem.into(), fix }
    }

    /// Names the cache or the section of a file that has the option, unless that is known.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        if self.place.is_empty() {
            self.place = place.into();
        }
        self
    }

    /// Returns an error if `is_wrong`.
    pub(crate) fn refuse_if(
        is_wrong: bool,
        option: &'static str,
        problem: &str,
        fix: &'static str,
    ) -> Result<(), Self> {
        if is_wrong { Err(Self::new(option, problem, fix)) } else { Ok(()) }
    }

    /// Returns the path of the option as in a configuration file, for example `l1.max_entries`.
    ///
    /// ```
    /// use lazy_layers_cache::{L1Options, LazyLayersCache};
    ///
    /// let refused = LazyLayersCache::<str, u32>::builder()
    ///     .l1(L1Options::default().max_entries(0))
    ///     .build()
    ///     .unwrap_err();
    /// assert_eq!(refused.option(), "l1.max_entries");
    /// ```
    #[must_use]
    pub fn option(&self) -> &str {
        self.option
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{} {}; {}", self.option, self.problem, self.fix)
    }
}

impl StdError for BuildError {}
