//! The box in which the cache keeps the error of a loader, and the search for a type in it.

use std::{error::Error as StdError, iter::successors, sync::Arc};

#[cfg_attr(feature = "anyhow", path = "anyhow_enabled.rs")]
#[cfg_attr(not(feature = "anyhow"), path = "anyhow_disabled.rs")]
mod anyhow_error;

/// Any error that a loader may return. Every error type, `String` and `&str` convert into it; so do
/// `anyhow::Error` and `eyre::Report`.
///
/// ```
/// use lazy_layers_cache::{BoxError, ErrorKind, LazyLayersCache};
///
/// async fn find_price(product: u64) -> Result<f64, BoxError> {
///     if product == 0 {
///         return Err("there is no product 0".into());
///     }
///     Ok("9.99".parse::<f64>()?)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let prices = LazyLayersCache::<u64, f64>::builder().build()?;
/// assert_eq!(*prices.get_or_set(&7, || find_price(7)).await?, 9.99);
/// let error = prices.get_or_set(&0, || find_price(0)).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Loader);
/// # Ok(()) }
/// ```
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Converts an error to a box. An `anyhow::Error` keeps its type if the feature `anyhow` is on.
pub(crate) fn into_box_error<E: Into<BoxError> + 'static>(error: E) -> BoxError {
    anyhow_error::into_box_error(error)
}

/// Returns the first error of the type `E` among the error and its sources, also one in a `Box` or
/// an `Arc`.
pub(super) fn find_error<'a, E>(error: &'a (dyn StdError + 'static)) -> Option<&'a E>
where
    E: StdError + Send + Sync + 'static,
{
    successors(Some(error), |&error| error.source()).find_map(|error| {
        error
            .downcast_ref::<E>()
            .or_else(|| error.downcast_ref::<Box<E>>().map(|inner| &**inner))
            .or_else(|| error.downcast_ref::<Arc<E>>().map(|inner| &**inner))
            .or_else(|| anyhow_error::find_error(error))
    })
}
