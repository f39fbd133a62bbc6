//! The loader's contract: what it is, what it may return, and how its call is kept from doing
//! harm.

mod contained;
mod loaded;

use crate::error::BoxError;

pub(crate) use self::contained::run_contained;
pub use self::loaded::{IntoLoaded, Loaded};

/// What fetches a value that no level has: any `FnOnce() -> Future<Output = Result<_, _>>`.
///
/// It may return, as [`IntoLoaded`] lists, a value, an `Option` or a [`Loaded`]; its error may be
/// any error type, `String` or `&str` ([`BoxError`] says which). It owns what it uses, because it
/// can outlive its caller: others may be waiting for it. The first time it is polled where it was
/// called; if it has to wait, it goes on in a task of its own (as do loaders called by loaders
/// called by loaders, sixteen deep). So it is cancelled by the hard
/// timeout, by closing or dropping the cache and by the end of its runtime, never by a caller
/// that goes away.
///
/// For a loader with state, implement this for a type of your own:
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, Loader};
///
/// struct LoadPrice { product: u64 }
///
/// impl Loader<f64> for LoadPrice {
///     type Loaded = Option<f64>;
///     type Error = std::io::Error;
///
///     async fn load(self) -> Result<Option<f64>, std::io::Error> {
///         Ok((self.product == 7).then_some(9.99))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let prices = LazyLayersCache::<u64, f64>::builder().build()?;
/// assert_eq!(prices.get_or_set(&7, LoadPrice { product: 7 }).await?.as_deref(), Some(&9.99));
/// # Ok(()) }
/// ```
pub trait Loader<V>: Send + 'static {
    /// What it returns: `V`, `Option<V>`, `Loaded<V>`, ...
    type Loaded: IntoLoaded<V>;
    /// What it fails with.
    type Error: Into<BoxError>;

    /// Fetches the value. Called at most once.
    fn load(self) -> impl Future<Output = Result<Self::Loaded, Self::Error>> + Send + 'static;
}

impl<V, F, Fut, L, E> Loader<V> for F
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<L, E>> + Send + 'static,
    L: IntoLoaded<V>,
    E: Into<BoxError>,
{
    type Loaded = L;
    type Error = E;

    fn load(self) -> impl Future<Output = Result<L, E>> + Send + 'static {
        self()
    }
}
