//! The caches of a manager by name: builds each once, and finds those that live.

use std::{
    any::{Any, type_name},
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    live_cache::{AnyCache, LiveCache},
    live_meter::MeterSlot,
    nearest::nearest,
    options::StoreOf,
    shared_options::adopt,
};
use crate::{
    bus::{EventBus, SessionOptions, SharedSession},
    cache::{BuilderBus, CacheBuilder, LazyLayersCache, WeakCache},
    codec::Codec,
    error::BuildError,
    key::CacheKey,
    l2::ServerState,
    observe::{log_option_without_effect, log_unused_section},
    options::CacheOptions,
    time::Clock,
};

/// The state that all handles of a manager share. Its caches do not know it.
pub(super) struct Manager {
    pub(super) instance_id: String,
    pub(super) defaults: CacheOptions,
    /// The options of the caches that have a section.
    sections: BTreeMap<String, CacheOptions>,
    clock: Option<Arc<dyn Clock>>,
    pub(super) l2: Option<SharedL2>,
    /// The bus session of all caches.
    pub(super) bus: Option<Arc<SharedSession>>,
    pub(super) meter: MeterSlot,
    registry: Mutex<Registry>,
    has_warned: AtomicBool,
}

/// L2 of all caches: one server, one circuit.
pub(super) struct SharedL2 {
    pub(super) store_of: StoreOf,
    pub(super) server: Arc<ServerState>,
}

#[derive(Default)]
struct Registry {
    caches: BTreeMap<String, Entry>,
    /// The names that were ever asked for.
    asked: BTreeSet<String>,
    closed: bool,
}

struct Entry {
    cache: Box<dyn AnyCache>,
    /// Keys and values, for errors.
    types: String,
    /// The type of its codec; `None`: a memory cache.
    codec: Option<&'static str>,
    /// Whether its builder was given a store of its own.
    has_own_l2: bool,
    accepts_unnamed: bool,
}

/// A codec, and the name of its type.
pub(super) type NamedCodec<V> = (Arc<dyn Codec<V>>, &'static str);

/// A cache that lives, and its name.
pub(super) type Named = (String, Box<dyn LiveCache>);

impl Manager {
    pub(super) fn new(
        instance_id: String,
        defaults: CacheOptions,
        sections: BTreeMap<String, CacheOptions>,
        clock: Option<Arc<dyn Clock>>,
        l2: Option<SharedL2>,
        bus: Option<EventBus>,
    ) -> Self {
        let (meter, registry) = (MeterSlot::default(), Mutex::default());
        let has_warned = AtomicBool::new(false);
        let shared = SessionOptions::of_cache(&defaults);
        let bus = bus.map(|bus| Arc::new(SharedSession::new(bus, shared, clock.clone())));
        Self { instance_id, defaults, sections, clock, l2, bus, meter, registry, has_warned }
    }

    /// The options with which the builder of a cache begins.
    pub(super) fn options_of(&self, name: &str) -> CacheOptions {
        let mut options = self.sections.get(name).unwrap_or(&self.defaults).clone();
        options.name = Some(name.to_owned());
        options
    }

    /// Builds a cache, or returns the one that lives under its name. Without a codec it has neither
    /// L2 nor event bus.
    pub(super) fn build<K, V>(
        &self,
        name: &str,
        mut builder: CacheBuilder<K, V>,
        codec: Option<NamedCodec<V>>,
    ) -> Result<LazyLayersCache<K, V>, BuildError>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        self.check_own(name, &mut builder)?;
        let (codec, codec_type) = codec.unzip();
        // Declared before the lock is taken: to drop a handle may be to drop the last one.
        let (mut live, mut same): (Vec<Box<dyn LiveCache>>, _) = (Vec::new(), None);
        let mut registry = self.registry.lock();
        registry.asked.insert(name.to_owned());
        // mutant late-cache: remove
        registry.check_open()?;
        registry.caches.retain(|_, entry| entry.cache.is_live());
        if let Some(entry) = registry.caches.get(name).filter(|entry| entry.is_open(&mut live)) {
            same = entry.downcast::<K, V>(codec_type)?.map(|cache| (cache, entry.has_own_l2));
        }
        if let Some((cache, has_own_l2)) = &same {
            if *cache.options() != builder.options {
                log_option_without_effect(Some(name), "options", SECOND);
            }
            if *has_own_l2 != builder.l2.is_some() {
                log_option_without_effect(Some(name), "l2", SECOND_L2);
            }
            return Ok(cache.clone());
        }
        let accepts_unnamed =
            self.bus.is_some() && codec.is_some() && builder.options.event_bus.accept_unnamed;
        if accepts_unnamed {
            registry.check_unnamed(name, &mut live)?;
        }
        let has_own_l2 = builder.l2.is_some();
        builder.clock.clone_from(&self.clock);
        if let Some(codec) = codec {
            self.lend_l2(name, &mut builder, &codec)?;
            // The one place where a cache gets its bus.
            builder.bus = self.bus.clone().map(|bus| (BuilderBus::Shared(bus), codec));
        }
        let cache = builder.build_alone()?;
        let types = types::<K, V>();
        let (codec, weak) = (codec_type, Box::new(cache.downgrade()));
        let entry = Entry { cache: weak, types, codec, has_own_l2, accepts_unnamed };
        registry.caches.insert(name.to_owned(), entry);
        drop(registry);
        self.meter.register(&cache);
        Ok(cache)
    }

    fn lend_l2<K: ?Sized, V: Send + Sync + 'static>(
        &self,
        name: &str,
        builder: &mut CacheBuilder<K, V>,
        codec: &Arc<dyn Codec<V>>,
    ) -> Result<(), BuildError> {
        if let Some(l2) = self.l2.as_ref().filter(|_| builder.l2.is_none()) {
            builder.l2 = Some(((l2.store_of)(name)?, Arc::clone(codec)));
            // mutant circuit-each: remove
            builder.l2_server = Some(Arc::clone(&l2.server));
        }
        Ok(())
    }

    /// Refuses what a cache cannot have for itself, and sets it to that of the manager.
    fn check_own<K: ?Sized, V: Send + Sync + 'static>(
        &self,
        name: &str,
        builder: &mut CacheBuilder<K, V>,
    ) -> Result<(), BuildError> {
        let belongs = "belongs to the manager, whose caches share it";
        BuildError::refuse_if(
            builder.bus.is_some(),
            "event_bus",
            belongs,
            "call CacheManagerBuilder::event_bus, or build the cache without the manager",
        )?;
        let fix = "call CacheManagerBuilder::clock";
        BuildError::refuse_if(builder.clock.is_some(), "clock", belongs, fix)?;
        let named = builder.options.name.get_or_insert_with(|| name.to_owned());
        BuildError::refuse_if(
            named != name,
            "name",
            "is not the one under which the manager was asked for the cache",
            "leave it out: CacheManager::cache(..) has the name",
        )?;
        adopt(&mut builder.options, &self.defaults)
    }

    /// The caches that live, for a caller that holds no lock when it drops them.
    pub(super) fn live(&self) -> Vec<Named> {
        let registry = self.registry.lock();
        let live = |(name, entry): (&String, &Entry)| Some((name.clone(), entry.cache.upgrade()?));
        registry.caches.iter().filter_map(live).collect()
    }

    /// Refuses caches from now on.
    pub(super) fn close(&self) {
        self.registry.lock().closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.registry.lock().closed
    }

    /// The sections that no cache was asked for.
    pub(super) fn unused_sections(&self) -> Vec<String> {
        let registry = self.registry.lock();
        let is_unused = |name: &&String| !registry.asked.contains(*name);
        self.sections.keys().filter(is_unused).cloned().collect()
    }

    /// Warns of these sections, once.
    pub(super) fn warn_of_unused_sections(&self) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return;
        }
        let unused = self.unused_sections();
        let asked = self.registry.lock().asked.clone();
        for section in unused {
            log_unused_section(&section, nearest(&section, asked.iter().map(String::as_str)));
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.warn_of_unused_sections();
    }
}

/// Why the options of a second builder are ignored.
const SECOND: &str = "the manager has this cache already, built with other options: those of the \
                      second call are not used";

const SECOND_L2: &str = "the manager has this cache already, and only one of the two calls gave \
                         it a store of its own: the cache has the L2 of the first call";

impl Registry {
    fn check_open(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.closed,
            "manager",
            "is closed, so it builds no cache",
            "build all caches before CacheManager::close",
        )
    }

    /// Refuses a second cache that accepts messages without a namespace.
    fn check_unnamed(
        &self,
        name: &str,
        live: &mut Vec<Box<dyn LiveCache>>,
    ) -> Result<(), BuildError> {
        let mut others = self.caches.iter().filter(|(other, _)| *other != name);
        match others.find(|(_, entry)| entry.accepts_unnamed && entry.is_open(live)) {
            Some((other, _)) => Err(BuildError::new(
                "event_bus.accept_unnamed",
                format!(
                    "is on for this cache and for `{other}`, which would take each other's \
                     messages without a namespace"
                ),
                "leave it on for at most one cache of a channel",
            )),
            None => Ok(()),
        }
    }
}

impl Entry {
    /// Whether the cache was neither dropped nor closed. Adds its handle to `live`, which the
    /// caller drops under no lock.
    fn is_open(&self, live: &mut Vec<Box<dyn LiveCache>>) -> bool {
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
    fn downcast<K, V>(
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

fn types<K: ?Sized, V>() -> String {
    format!("{} -> {}", type_name::<K>(), type_name::<V>())
}
