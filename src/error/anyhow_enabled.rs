//! With the feature `anyhow`: keeps an `anyhow::Error` as it is, so that its content can be found.
//! Its own conversion to a box hides the type of its content.

use std::{any::Any, error::Error as StdError, fmt};

type Boxed = Box<dyn StdError + Send + Sync>;

/// An `anyhow::Error`, which itself does not implement [`std::error::Error`].
struct AnyhowError(anyhow::Error);

#[expect(clippy::expect_used, reason = "the first arm alone takes the error")]
pub(super) fn into_box_error<E: Into<Boxed> + 'static>(error: E) -> Boxed {
    let mut error = Some(error);
    let any: &mut dyn Any = &mut error;
    match any.downcast_mut::<Option<anyhow::Error>>().and_then(Option::take) {
        Some(error) => Box::new(AnyhowError(error)),
        None => error.expect("the error was not taken").into(),
    }
}

/// Returns the content of an `anyhow::Error`, or one of its contexts, if that is of the type `E`.
pub(super) fn find_error<'a, E>(error: &'a (dyn StdError + 'static)) -> Option<&'a E>
where
    E: StdError + Send + Sync + 'static,
{
    error.downcast_ref::<AnyhowError>()?.0.downcast_ref()
}

impl fmt::Display for AnyhowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Prints the contexts and the backtrace, as `anyhow::Error` does.
impl fmt::Debug for AnyhowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for AnyhowError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
