//! The two errors a user meets: [`Error`] from a call, [`BuildError`] from `build()`.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// Any error a loader may return: `From` turns every error type, `String` and `&str` into it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call failed. Cloning is cheap, and every caller that waited for one load gets the same
/// error, the loader's own included.
///
/// ```
/// # use lazy_layers_cache::{ErrorKind, LazyLayersCache};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
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

enum Cause {
    Loader(BoxError),
    Panicked(String),
    HardTimeout(Duration),
    Recursion,
    Absent,
    Abandoned,
    NoRuntime,
    LockTimeout(Duration),
    Unreachable(Option<BoxError>),
    Unconfirmed,
    Closed,
}

/// What went wrong, to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The loader returned an error: [`Error::loader_error`] has it.
    Loader,
    /// The loader panicked.
    LoaderPanicked,
    /// The load, or the wait for it, took longer than the hard timeout.
    HardTimeout,
    /// A loader waited, directly or through other loaders, for the very key it is loading.
    Recursion,
    /// The load that this call joined found nothing, and this call's loader cannot say "nothing":
    /// it returns `V`, not `Option<V>`.
    Absent,
    /// The load was dropped before it ended: its runtime shut down, or the cache was closed.
    Abandoned,
    /// The loader has to wait, and there is no tokio runtime to let it.
    NoRuntime,
    /// Another instance has the lock and did not come to an end in time; and the stale copy that
    /// was to serve instead had ended its time too, when this caller came to it.
    LockTimeout,
    /// A delete or set did not get through to the shared level, or it is not known whether it
    /// did: an old value may still be there. [`source`](StdError::source) says why; none if the
    /// level was not asked because it failed just now.
    L2Unreachable,
    /// The bus did not confirm a delete or set in time, where that was asked for: other instances
    /// may still hold an old value in memory. They hear of it once the bus answers.
    Unconfirmed,
    /// The cache was closed.
    Closed,
}

impl Error {
    /// What went wrong.
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
            Cause::Unreachable(_) => ErrorKind::L2Unreachable,
            Cause::Unconfirmed => ErrorKind::Unconfirmed,
            Cause::Closed => ErrorKind::Closed,
        }
    }

    /// The key that the failed call was about.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The loader's own error, if it was an `E`.
    ///
    /// Without naming its type it is [`source`](StdError::source).
    #[must_use]
    pub fn loader_error<E: StdError + 'static>(&self) -> Option<&E> {
        match &self.0.cause {
            Cause::Loader(error) => error.downcast_ref(),
            _ => None,
        }
    }

    fn about(key: &Arc<str>, cause: Cause) -> Self {
        Self(Arc::new(Inner { key: Some(Arc::clone(key)), cause }))
    }

    pub(crate) fn loader(key: &Arc<str>, error: impl Into<BoxError>) -> Self {
        Self::about(key, Cause::Loader(error.into()))
    }

    pub(crate) fn panicked(key: &Arc<str>, message: String) -> Self {
        Self::about(key, Cause::Panicked(message))
    }

    pub(crate) fn hard_timeout(key: &Arc<str>, limit: Duration) -> Self {
        Self::about(key, Cause::HardTimeout(limit))
    }

    pub(crate) fn recursion(key: &Arc<str>) -> Self {
        Self::about(key, Cause::Recursion)
    }

    pub(crate) fn absent(key: &Arc<str>) -> Self {
        Self::about(key, Cause::Absent)
    }

    pub(crate) fn abandoned(key: &Arc<str>) -> Self {
        Self::about(key, Cause::Abandoned)
    }

    pub(crate) fn no_runtime(key: &Arc<str>) -> Self {
        Self::about(key, Cause::NoRuntime)
    }

    pub(crate) fn cannot_listen() -> Self {
        Self(Arc::new(Inner { key: None, cause: Cause::NoRuntime }))
    }

    pub(crate) fn lock_timeout(key: &Arc<str>, limit: Duration) -> Self {
        Self::about(key, Cause::LockTimeout(limit))
    }

    pub(crate) fn unreachable(key: &str, cause: Option<BoxError>) -> Self {
        Self::about(&Arc::from(key), Cause::Unreachable(cause))
    }

    pub(crate) fn unconfirmed(key: &str) -> Self {
        Self::about(&Arc::from(key), Cause::Unconfirmed)
    }

    pub(crate) fn closed() -> Self {
        Self(Arc::new(Inner { key: None, cause: Cause::Closed }))
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
            Cause::Recursion => write!(
                f,
                "the loader of key `{key}` waits for the same key: it would wait for ever"
            ),
            Cause::Absent => write!(
                f,
                "key `{key}` does not exist, says the load this call joined; let the loader return \
                 `Option<V>` to receive that as `None`"
            ),
            Cause::Abandoned => write!(
                f,
                "the load of key `{key}` was dropped before it ended (its runtime shut down, or \
                 the cache was closed)"
            ),
            Cause::NoRuntime if self.key().is_none() => write!(
                f,
                "listening to other instances needs a tokio runtime with its timer: call from \
                 within one"
            ),
            Cause::NoRuntime => write!(
                f,
                "the loader of key `{key}` has to wait, which needs a tokio runtime: call from \
                 within one"
            ),
            Cause::LockTimeout(limit) => write!(
                f,
                "another instance has been loading key `{key}` for longer than {limit:?}, and there \
                 is no stale copy any more"
            ),
            Cause::Unreachable(_) => write!(
                f,
                "the shared level could not be told that `{key}` has changed: an old value may \
                 still be there"
            ),
            Cause::Unconfirmed => write!(
                f,
                "the bus did not confirm that `{key}` has changed: other instances will hear of it \
                 as soon as the bus answers"
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
            Cause::Unreachable(error) => out.field("l2", error),
            Cause::Panicked(message) => out.field("panic", message),
            _ => &mut out,
        }
        .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.cause {
            Cause::Loader(error) | Cause::Unreachable(Some(error)) => Some(&**error),
            _ => None,
        }
    }
}

/// An option that `build()` refuses: which one, why, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    option: &'static str,
    problem: String,
    fix: &'static str,
}

impl BuildError {
    pub(crate) fn new(option: &'static str, problem: impl Into<String>, fix: &'static str) -> Self {
        Self { option, problem: problem.into(), fix }
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

    /// The option's path as a config file would write it, for example `l1.max_entries`.
    #[must_use]
    pub fn option(&self) -> &str {
        self.option
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; {}", self.option, self.problem, self.fix)
    }
}

impl StdError for BuildError {}
