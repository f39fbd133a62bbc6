//! The caches of a manager by name: builds each once, and finds those that live.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
};

use parking_lot::{Condvar, Mutex};

use super::{
    entry::{Entry, NamedCodec, types},
    live_cache::LiveCache,
    live_meter::MeterSlot,
    nearest::nearest,
    options::StoreOf,
    shared_options::adopt,
};
use crate::{
    bus::{EventBus, SessionOptions, SharedSession},
    cache::{BuilderBus, CacheBuilder, LazyLayersCache},
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
    /// Notified when a cache was built, or could not be.
    built: Condvar,
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
    /// The caches that are being built.
    building: BTreeMap<String, Building>,
    /// Names that were asked for: all that have a section, and the first others.
    asked: BTreeSet<String>,
    closed: bool,
}

/// A service may have a cache for each tenant, and so any number of names without a section.
const MAX_ASKED: usize = 1_000;

struct Building {
    thread: ThreadId,
    accepts_unnamed: bool,
}

/// The claim of a caller to build the cache of a name. Others that ask for it wait until it is
/// dropped.
struct Claim<'a> {
    manager: &'a Manager,
    name: &'a str,
}

enum Found<'a, K: ?Sized, V> {
    /// A cache, and whether its builder was given a store of its own.
    Built(LazyLayersCache<K, V>, bool),
    Nothing(Claim<'a>),
}

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
        let built = Condvar::new();
        let has_warned = AtomicBool::new(false);
        let shared = SessionOptions::of_cache(&defaults);
        let bus = bus.map(|bus| Arc::new(SharedSession::new(bus, shared, clock.clone())));
        Self { instance_id, defaults, sections, clock, l2, bus, meter, registry, built, has_warned }
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
        let has_own_l2 = builder.l2.is_some();
        let accepts_unnamed =
            self.bus.is_some() && codec.is_some() && builder.options.event_bus.accept_unnamed;
        let claim = match self.find_or_claim(name, codec_type, accepts_unnamed)? {
            Found::Built(cache, had_own_l2) => {
                if *cache.options() != builder.options {
                    log_option_without_effect(Some(name), "options", SECOND);
                }
                if had_own_l2 != has_own_l2 {
                    log_option_without_effect(Some(name), "l2", SECOND_L2);
                }
                return Ok(cache);
            }
            Found::Nothing(claim) => claim,
        };
        builder.clock.clone_from(&self.clock);
        if let Some(codec) = codec {
            self.lend_l2(name, &mut builder, &codec)?;
            // The one place where a cache gets its bus.
            builder.bus = self.bus.clone().map(|bus| (BuilderBus::Shared(bus), codec));
        }
        // Under no lock: this calls the user's store, transport and subscriber of the log, which
        // may call the manager.
        let cache = builder.build_alone()?;
        let (types, codec, weak) = (types::<K, V>(), codec_type, Box::new(cache.downgrade()));
        claim.fulfil(Entry { cache: weak, types, codec, has_own_l2, accepts_unnamed })?;
        self.meter.register(&cache);
        Ok(cache)
    }

    /// Returns the cache that lives under a name, else the claim of the caller to build it. Waits
    /// while another thread builds it.
    fn find_or_claim<'a, K, V>(
        &'a self,
        name: &'a str,
        codec: Option<&'static str>,
        accepts_unnamed: bool,
    ) -> Result<Found<'a, K, V>, BuildError>
    where
        K: CacheKey + ?Sized + 'static,
        V: Send + Sync + 'static,
    {
        // Declared before the lock is taken: to drop a handle may be to drop the last one.
        let (mut live, mut same): (Vec<Box<dyn LiveCache>>, _) = (Vec::new(), None);
        let (thread, mut registry) = (thread::current().id(), self.registry.lock());
        if self.sections.contains_key(name) || registry.asked.len() < MAX_ASKED {
            registry.asked.insert(name.to_owned());
        }
        while let Some(building) = registry.building.get(name) {
            BuildError::refuse_if(
                building.thread == thread,
                "name",
                "is that of a cache which this thread is building",
                "ask for it after its build() has returned, not in a store, a transport or a \
                 subscriber of the log that build() calls",
            )?;
            self.built.wait(&mut registry);
        }
        // mutant late-cache: remove
        registry.check_open()?;
        registry.caches.retain(|_, entry| entry.cache.is_live());
        if let Some(entry) = registry.caches.get(name).filter(|entry| entry.is_open(&mut live)) {
            same = entry.downcast::<K, V>(codec)?.map(|cache| (cache, entry.has_own_l2));
        }
        if let Some((cache, has_own_l2)) = same.take() {
            return Ok(Found::Built(cache, has_own_l2));
        }
        if accepts_unnamed {
            registry.check_unnamed(name, &mut live)?;
        }
        registry.building.insert(name.to_owned(), Building { thread, accepts_unnamed });
        Ok(Found::Nothing(Claim { manager: self, name }))
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
        let built = self.caches.iter().filter(|(other, _)| *other != name);
        let building = self.building.iter().filter(|(_, building)| building.accepts_unnamed);
        let other = built
            .filter(|(_, entry)| entry.accepts_unnamed && entry.is_open(live))
            .map(|(other, _)| other)
            .chain(building.map(|(other, _)| other))
            .next();
        match other {
            Some(other) => Err(BuildError::new(
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

impl Claim<'_> {
    /// Adds the cache that was built.
    ///
    /// # Errors
    ///
    /// The manager was closed meanwhile, so it would not close the cache.
    fn fulfil(self, entry: Entry) -> Result<(), BuildError> {
        let mut registry = self.manager.registry.lock();
        // mutant late-cache: remove
        registry.check_open()?;
        registry.caches.insert(self.name.to_owned(), entry);
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.manager.registry.lock().building.remove(self.name);
        self.manager.built.notify_all();
    }
}
