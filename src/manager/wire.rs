//! Caches whose values have the wire format, the default with the feature `wire`.

use serde::{Serialize, de::DeserializeOwned};

use super::cache_manager::CacheManager;
use crate::{cache::CacheBuilder, codec::WireCodec, key::CacheKey};

impl CacheManager {
    /// Returns the builder of a cache whose values have the wire format (`WireCodec`) in L2 and on
    /// the bus. It begins with the options of the cache's section, else with the defaults.
    ///
    /// `build()` returns the cache that has the name already, if there is one of the same types and
    /// with the same codec.
    ///
    /// ```
    /// use lazy_layers_cache::CacheManager;
    ///
    /// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
    /// let manager = CacheManager::builder().build()?;
    /// let users = manager.cache::<u64, String>("users").build()?;
    /// let same = manager.cache::<u64, String>("users").build()?;
    ///
    /// let refused = manager.cache::<u64, f64>("users").build().unwrap_err();
    /// assert!(refused.to_string().starts_with(
    ///     "cache `users`: name is that of a cache of u64 -> alloc::string::String already"
    /// ));
    /// # Ok(()) }
    /// ```
    pub fn cache<K, V>(&self, name: &str) -> CacheBuilder<K, V>
    where
        K: CacheKey + ?Sized + 'static,
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.cache_with_codec(name, WireCodec::new())
    }
}
