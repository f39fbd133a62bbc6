//! Configuration of one store, shared with the supervisor task of its connection.

use super::{keyspace::KeySpace, options::RedisOptions, scripts::Scripts};
use crate::adapters::redis::endpoint::Endpoint;

/// The server of a store, its options, key names and scripts. Immutable.
pub(crate) struct StoreContext {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: RedisOptions,
    pub(crate) keys: KeySpace,
    pub(crate) scripts: Scripts,
}

impl StoreContext {
    pub(crate) fn new(endpoint: Endpoint, options: RedisOptions) -> Self {
        let keys = KeySpace::new(options.prefix.clone());
        Self { endpoint, options, keys, scripts: Scripts::new() }
    }

    /// Returns true if the store maintains an index. A Cluster has none.
    pub(crate) fn has_index(&self) -> bool {
        self.options.use_index && !self.endpoint.is_cluster()
    }

    /// Returns the names of the index and of the lease set, if the store maintains them.
    pub(crate) fn index_keys(&self) -> Option<[&str; 2]> {
        self.has_index().then(|| [&*self.keys.index, &*self.keys.lease_set])
    }
}
