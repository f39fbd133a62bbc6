//! Configuration of one prefix of a store, shared with the supervisor task of its connection.

use std::sync::Arc;

use super::{keyspace::KeySpace, options::RedisOptions};
use crate::adapters::redis::{endpoint::Endpoint, prefix_state::PrefixState};

/// The server of a store, its options and key names; and whether the data under its prefix may be
/// used.
pub(crate) struct StoreContext {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) options: RedisOptions,
    pub(crate) keys: KeySpace,
    pub(crate) prefix_state: PrefixState,
}

/// The prefix of a cache without a name.
const UNNAMED: &str = "cache:";

impl RedisOptions {
    pub(crate) fn prefix_or_default(&self) -> &str {
        self.prefix.as_deref().unwrap_or(UNNAMED)
    }
}

impl StoreContext {
    pub(crate) fn new(endpoint: Arc<Endpoint>, options: RedisOptions) -> Self {
        let keys = KeySpace::new(options.prefix_or_default().to_owned());
        Self { endpoint, options, keys, prefix_state: PrefixState::default() }
    }

    /// Returns a context with the same options but for the prefix.
    pub(crate) fn with_prefix(&self, prefix: String) -> Self {
        let options = RedisOptions { prefix: Some(prefix), ..self.options.clone() };
        Self::new(Arc::clone(&self.endpoint), options)
    }

    /// Returns the names of the index, of the sorted set of sidecars, and the start of the names of
    /// the lease sets, if the store maintains them. A Cluster has none.
    pub(crate) fn index_keys(&self) -> Option<[&str; 3]> {
        let has_index = self.options.use_index && !self.endpoint.is_cluster();
        let KeySpace { index, sidecars, lease_sets, .. } = &self.keys;
        has_index.then(|| [&**index, &**sidecars, &**lease_sets])
    }
}
