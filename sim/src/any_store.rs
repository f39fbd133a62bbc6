//! A store of any type, as a manager makes one for each of its caches.

use std::sync::Arc;

use lazy_layers_cache::{Store, StoreFuture, testing::ForwardStore};

pub(crate) struct AnyStore(pub(crate) Arc<dyn Store>);

impl ForwardStore for AnyStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0)
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.0.delete_all(keys)
    }
}
