//! Configuration of one store, shared with the supervisor task of its connection.

use super::{keyspace::KeySpace, options::RedisOptions};
use crate::adapters::redis::endpoint::Endpoint;

/// The server of a store, its options and key names. Immutable.
pub(crate) struct StoreContext {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: RedisOptions,
    pub(crate) keys: KeySpace,
}

impl StoreContext {
    pub(crate) fn new(endpoint: Endpoint, options: RedisOptions) -> Self {
        let keys = KeySpace::new(options.prefix.clone());
        Self { endpoint, options, keys }
    }

    /// Returns the names of the index, of the sorted set of sidecars, and the start of the names of
    /// the lease sets, if the store maintains them. A Cluster has none.
    pub(crate) fn index_keys(&self) -> Option<[&str; 3]> {
        let has_index = self.options.use_index && !self.endpoint.is_cluster();
        let KeySpace { index, sidecars, lease_sets, .. } = &self.keys;
        has_index.then(|| [&**index, &**sidecars, &**lease_sets])
    }
}
