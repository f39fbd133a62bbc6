//! Contains the panics of the user's codec.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::BoxError;

/// Calls the user's codec and returns an error where it panics. The panic hook has reported the
/// message of the panic by then.
pub(crate) fn catch_codec_panic<T>(
    convert: impl FnOnce() -> Result<T, BoxError>,
) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(convert)).unwrap_or_else(|_| Err("the codec panicked".into()))
}
