//! Which cache each prefix belongs to. Two caches under one prefix would return each other's
//! values, and the `clear()` of one would empty the other.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::error::BuildError;

/// The prefixes that belong to a cache, among all stores over one connection.
#[derive(Default)]
pub(crate) struct PrefixClaims(Mutex<Vec<Weak<PrefixClaim>>>);

/// A prefix that belongs to a cache. It does for as long as a store with this prefix lives, because
/// the values stay in Redis when the cache is closed.
pub(crate) struct PrefixClaim {
    prefix: String,
    /// The name of the cache, if it has one.
    cache: Option<String>,
}

const ONE_EACH: &str = "give each cache a store of its own or a view by RedisStore::with_prefix, \
                        or build all of them with a CacheManager, which keeps them apart";

impl PrefixClaims {
    /// Returns the claim of a cache to a prefix. Caches of one name are instances of one cache, so
    /// they share it; so do caches without a name.
    ///
    /// # Errors
    ///
    /// Another cache has this prefix, or a prefix that begins with it or with which it begins.
    pub(crate) fn claim(
        &self,
        prefix: &str,
        cache: Option<&str>,
    ) -> Result<Arc<PrefixClaim>, BuildError> {
        let mut claims = self.0.lock();
        claims.retain(|claim| claim.strong_count() > 0);
        let mut live = claims.iter().filter_map(Weak::upgrade);
        let overlaps =
            |it: &PrefixClaim| it.prefix.starts_with(prefix) || prefix.starts_with(&it.prefix);
        let Some(found) = live.find(|it| overlaps(it)) else {
            let claim = PrefixClaim { prefix: prefix.to_owned(), cache: cache.map(str::to_owned) };
            let claim = Arc::new(claim);
            claims.push(Arc::downgrade(&claim));
            return Ok(claim);
        };
        let (owner, name) = (name_of(found.cache.as_deref()), name_of(cache));
        let problem = if found.prefix != prefix {
            let other = &found.prefix;
            format!("is `{prefix}`, which overlaps `{other}`, the prefix of {owner}")
        } else if found.cache.as_deref() != cache {
            format!("is `{prefix}`, which belongs to {owner}; it cannot be that of {name}")
        } else {
            return Ok(found);
        };
        Err(BuildError::new("redis.prefix", problem, ONE_EACH))
    }
}

fn name_of(cache: Option<&str>) -> String {
    cache.map_or_else(|| "a cache without a name".to_owned(), |name| format!("the cache `{name}`"))
}
