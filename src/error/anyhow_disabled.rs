//! Without the feature `anyhow`: an `anyhow::Error` is converted as any other error.

use std::error::Error as StdError;

type Boxed = Box<dyn StdError + Send + Sync>;

pub(super) fn into_box_error<E: Into<Boxed> + 'static>(error: E) -> Boxed {
    error.into()
}

pub(super) fn find_error<'a, E>(_: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    None
}
