//! The loader: its trait, its return types, and the call that contains its panics and its time.

mod contained;
mod loaded;

use crate::error::BoxError;

pub(crate) use self::contained::run_contained;
pub use self::loaded::{IntoLoaded, Loaded};

/// A loader: fetches a value that neither L1 nor L2 has. Any
/// `FnOnce() -> Future<Output = Result<_, _>>` is a loader.
///
/// A loader may return a value, an `Option` or a [`Loaded`] (see [`IntoLoaded`]), and any error
/// type, `String` or `&str` as its error (see [`BoxError`]). It must own its data, because it can
/// outlive its caller: other callers may be waiting for its result.
///
/// The cache polls a loader once in the caller's task. A loader that is not ready then continues in
/// a task of its own, as does every loader that is nested sixteen loaders deep. So a loader is
/// cancelled by its hard timeout, by closing or dropping the cache, and by the end of its runtime,
/// but never by a caller that goes away.
///
/// # What a loader keeps of its caller
///
/// Its tracing span: the span of the load is a child of the caller's. Task-locals and thread-locals
/// end at the first await that waits, because the loader continues in another task then: read them
/// before, and move the values into the loader.
///
/// # A loader that asks for its own key
///
/// It gets an error of the kind [`Recursion`](crate::ErrorKind::Recursion), also across other keys
/// and caches. The cache cannot see that if the loader asks in a task that it spawned, and waits
/// for that task: then the inner call joins the load that waits for it. It begins a load of its own
/// after [`Coalescing::ttl`](crate::Coalescing::ttl) (5 s), with the inner loader, or ends with its
/// hard timeout.
///
/// # When the compiler refuses a loader
///
/// | error | cause | fix |
/// | --- | --- | --- |
/// | E0277, "is not a loader" | a future, `find_user(7)`, in place of a closure | `\|\| find_user(7)` |
/// | E0282, E0283: annotations needed | `Ok("x".into())` names neither the value nor the error | `Ok::<String, io::Error>("x".into())`, or call an `async fn`, whose signature names both |
/// | E0505: cannot move out of `key` | the call borrows the key, and the loader takes it | clone the key for the loader, as below |
/// | E0521: borrowed data escapes | the loader borrows `self`, or another reference of the method | clone the handle that it needs, a pool or an `Arc`, before the closure |
/// | E0373: closure may outlive | the closure borrows a local variable | `move \|\| async move { .. }` |
///
/// ```
/// use std::sync::Arc;
/// use lazy_layers_cache::{BoxError, Error, LazyLayersCache};
///
/// # struct Db;
/// # impl Db { async fn page(&self, slug: &str) -> Result<String, BoxError> { Ok(slug.into()) } }
/// struct Pages { db: Arc<Db>, cache: LazyLayersCache<String, String> }
///
/// impl Pages {
///     async fn page(&self, slug: String) -> Result<Arc<String>, Error> {
///         // Clones for the loader, which may outlive this call: not `self.db` and `slug`.
///         let (db, key) = (Arc::clone(&self.db), slug.clone());
///         self.cache.get_or_set(&slug, move || async move { db.page(&key).await }).await
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pages = Pages { db: Arc::new(Db), cache: LazyLayersCache::builder().build()? };
/// # assert_eq!(pages.page("home".to_owned()).await?.as_str(), "home");
/// # Ok(()) }
/// ```
///
/// # A loader with state
///
/// Implement this trait for your own type:
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
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let prices = LazyLayersCache::<u64, f64>::builder().build()?;
/// assert_eq!(prices.get_or_set(&7, LoadPrice { product: 7 }).await?.as_deref(), Some(&9.99));
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a loader of `{V}`",
    label = "pass a closure that returns the future: `move || async move {{ .. }}`",
    note = "a loader is a closure without arguments, and not the future itself: the cache calls \
            it only on a miss",
    note = "or implement `Loader<{V}>` for a type of your own"
)]
pub trait Loader<V>: Send + 'static {
    /// The return type: `V`, `Option<V>`, `Loaded<V>`, ...
    type Loaded: IntoLoaded<V>;
    /// The error type.
    type Error: Into<BoxError>;

    /// Fetches the value. The cache calls it at most once.
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
