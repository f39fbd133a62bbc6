//! A cache of a manager, as the manager remembers it: what later calls for its name must have in
//! common with the first.

use std::{
    any::{Any, type_name},
    sync::Arc,
};

use super::live_cache::{AnyCache, LiveCache};
use crate::{
    cache::{LazyLayersCache, WeakCache},
    codec::Codec,
    error::BuildError,
    key::CacheKey,
};

/// A codec, and the name of its type.
pub(super) type NamedCodec<V> = (Arc<dyn Codec<V>>, &'static str);

/// A cache of a manager.
pub(super) struct Entry {
    pub(super) cache: Box<dyn AnyCache>,
    /// Keys and values, for errors.
    pub(super) types: String,
    /// The type of its codec; `None`: a memory cache.
    pub(super) codec: Option<&'static str>,
    /// Whether its builder was given a store of its own.
    pub(super) has_own_l2: bool,
    pub(super) accepts_unnamed: bool,
}

impl Entry {
    /// Whether the cache was neither dropped nor closed. Adds its handle to `live`, which the
    /// caller drops under no lock.
    pub(super) fn is_open(&self, live: &mut Vec<Box<dyn LiveCache>>) -> bool {
        let Some(cache) = self.cache.upgrade() else { return false };
        let is_open = !cache.is_closed();
        live.push(cache);
        is_open
    }

    /// Returns the cache, unless it was dropped.
    ///
    /// # Errors
    ///
    /// It has other types, or another codec.
    pub(super) fn downcast<K, V>(
        &self,
        codec: Option<&'static str>,
    ) -> Result<Option<LazyLayersCache<K, V>>, BuildError>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        let any: &dyn Any = &*self.cache;
        match any.downcast_ref::<WeakCache<K, V>>() {
            // mutant other-codec: s/codec == self.codec/true/
            Some(cache) if codec == self.codec => Ok(cache.upgrade()),
            Some(_) => Err(BuildError::new(
                "name",
                format!("is that of {} already, not of {}", of_codec(self.codec), of_codec(codec)),
                "give the caches different names, or call the same method of the manager, with \
                 the same codec, everywhere",
            )),
            None => Err(BuildError::new(
                "name",
                format!("is that of a cache of {} already, not of {}", self.types, types::<K, V>()),
                "give the caches different names, or ask for the same types everywhere",
            )),
        }
    }
}

fn of_codec(codec: Option<&'static str>) -> String {
    match codec {
        Some(codec) => format!("a cache with the codec {codec}"),
        None => "a memory cache".to_owned(),
    }
}

/// Keys and values, for errors.
pub(super) fn types<K: ?Sized, V>() -> String {
    format!("{} -> {}", type_name::<K>(), type_name::<V>())
}
