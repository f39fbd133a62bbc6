//! Configuration of one prefix of a store, shared with the supervisor task of its connection.

use std::sync::{Arc, OnceLock};

use super::{
    keyspace::KeySpace,
    options::RedisOptions,
    prefix_claims::{PrefixClaim, PrefixClaims},
};
use crate::{
    adapters::{
        byte_limit::MAX_BYTES,
        redis::{endpoint::Endpoint, prefix_state::PrefixState},
    },
    error::BuildError,
};

/// The server of a store, its options and key names; and whether the data under its prefix may be
/// used.
pub(crate) struct StoreContext {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) options: RedisOptions,
    pub(crate) keys: KeySpace,
    pub(crate) prefix_state: PrefixState,
    /// Of all stores over this connection.
    claims: Arc<PrefixClaims>,
    claim: OnceLock<Arc<PrefixClaim>>,
}

/// Maximum number of keys of one request: Redis takes a million arguments at most, and a script
/// that deletes keys has two for each.
const MAX_KEYS: usize = 100_000;

/// The prefix of a cache without a name.
const UNNAMED: &str = "cache:";

impl RedisOptions {
    pub(crate) fn prefix_or_default(&self) -> &str {
        self.prefix.as_deref().unwrap_or(UNNAMED)
    }
}

impl StoreContext {
    pub(crate) fn new(endpoint: Arc<Endpoint>, options: RedisOptions) -> Self {
        Self::with_claims(endpoint, options, Arc::default())
    }

    fn with_claims(
        endpoint: Arc<Endpoint>,
        options: RedisOptions,
        claims: Arc<PrefixClaims>,
    ) -> Self {
        let options = RedisOptions {
            max_payload_bytes: options.max_payload_bytes.min(MAX_BYTES),
            scan_count: options.scan_count.min(MAX_KEYS),
            batch_size: options.batch_size.min(MAX_KEYS),
            ..options
        };
        let keys = KeySpace::new(options.prefix_or_default().to_owned());
        let (prefix_state, claim) = (PrefixState::default(), OnceLock::new());
        Self { endpoint, options, keys, prefix_state, claims, claim }
    }

    /// Returns a context with the same options but for the prefix.
    pub(crate) fn with_prefix(&self, prefix: String) -> Self {
        let options = RedisOptions { prefix: Some(prefix), ..self.options.clone() };
        Self::with_claims(Arc::clone(&self.endpoint), options, Arc::clone(&self.claims))
    }

    /// Makes the prefix belong to a cache, for as long as the context lives. Returns an error if
    /// it belongs to another one.
    pub(crate) fn claim(&self, cache: Option<&str>) -> Result<(), BuildError> {
        let claim = self.claims.claim(self.keys.prefix(), cache)?;
        // A claim that is here already is the same one.
        self.claim.get_or_init(|| claim);
        Ok(())
    }

    /// Returns the names of the index, of the sorted set of sidecars, and the start of the names of
    /// the lease sets, if the store maintains them. A Cluster has none.
    pub(crate) fn index_keys(&self) -> Option<[&str; 3]> {
        let has_index = self.options.use_index && !self.endpoint.is_cluster();
        let KeySpace { index, sidecars, lease_sets, .. } = &self.keys;
        has_index.then(|| [&**index, &**sidecars, &**lease_sets])
    }
}
