//! The caches of the service: how they are built, and the keys that a change invalidates.

use lazy_layers_cache::{
    BuildError, CacheManager, CacheManagerBuilder, Error, LazyLayersCache, WriteReport,
};
use tracing::warn;

use crate::database::Product;

/// The manager keeps no cache alive, so the service keeps a handle of each.
#[derive(Clone)]
pub(crate) struct Caches {
    pub(crate) manager: CacheManager,
    /// Products by their number.
    pub(crate) products: LazyLayersCache<u64, Product>,
    /// The numbers of the products of each category.
    pub(crate) categories: LazyLayersCache<str, Vec<u64>>,
    /// The average price of each category.
    pub(crate) averages: LazyLayersCache<str, f64>,
}

impl Caches {
    pub(crate) fn build(manager: CacheManagerBuilder) -> Result<Self, BuildError> {
        let manager = manager.build()?;
        let products = manager.cache("products").build()?;
        let categories = manager.cache("categories").build()?;
        let averages = manager.cache("averages").build()?;
        Ok(Self { manager, products, categories, averages })
    }

    /// Deletes the keys that a change of a product touches. Call it after the commit: a load that
    /// began before it may have read the old row, and does not fill the cache any more.
    ///
    /// It returns no error, because the change is made: this process serves no older value from now
    /// on, and the cache brings the deletes to Redis and to the other processes as soon as they
    /// answer.
    pub(crate) async fn on_product_changed(&self, id: u64, categories: &[&str]) {
        check("products", self.products.delete(&id).await);
        for category in categories {
            check("categories", self.categories.delete(*category).await);
            check("averages", self.averages.delete(*category).await);
        }
    }
}

/// Logs a delete that has not reached Redis or the bus yet.
fn check(cache: &str, result: Result<WriteReport, Error>) {
    match result {
        Ok(report) if report.is_complete() => {}
        Ok(report) => warn!(cache, ?report, "other processes may serve an older value for now"),
        Err(error) => warn!(cache, %error, "the service is shutting down"),
    }
}
