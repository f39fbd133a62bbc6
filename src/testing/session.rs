//! A bus session that a test gives to several caches.

use std::sync::Arc;

use crate::{
    bus::{EventBus, SessionOptions, SharedSession},
    cache::{BuilderBus, CacheBuilder},
    codec::Codec,
    options::CacheOptions,
    time::Clock,
};

/// One bus session for several caches: one subscription, one publisher, one set of beacons. What a
/// gap is for one of the caches is one for all of them.
///
/// The session ends with its last cache. Another cache then begins another session.
#[derive(Clone)]
pub struct SharedBusSession(Arc<SharedSession>);

impl SharedBusSession {
    /// Creates a session that does not connect yet. It takes from `options` what its caches share:
    /// `instance_id`, `event_dedupe`, `event_bus_circuit_breaker`, `trust_timeout` and
    /// `publish_timeout`. Its caches have `clock`.
    pub fn new(bus: impl Into<EventBus>, options: &CacheOptions, clock: impl Clock) -> Self {
        let options = SessionOptions::of_cache(options);
        Self(Arc::new(SharedSession::new(bus.into(), options, Some(Arc::new(clock)))))
    }

    /// Gives the session to a cache that is being built, in the place of an event bus.
    pub fn give<K: ?Sized, V: Send + Sync + 'static>(
        &self,
        mut builder: CacheBuilder<K, V>,
        codec: impl Codec<V>,
    ) -> CacheBuilder<K, V> {
        builder.bus = Some((BuilderBus::Shared(Arc::clone(&self.0)), Arc::new(codec)));
        builder
    }
}
