//! The options that all caches of a bus session share.

use std::time::Duration;

use crate::options::{CacheOptions, CircuitBreaker, EventDedupe};

#[derive(Debug, Clone)]
pub(crate) struct SessionOptions {
    pub(crate) instance_id: Option<String>,
    pub(crate) trust_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) event_dedupe: EventDedupe,
    pub(crate) circuit_breaker: CircuitBreaker,
}

impl SessionOptions {
    /// Those of a cache that is built alone.
    pub(crate) fn of_cache(options: &CacheOptions) -> Self {
        Self {
            instance_id: options.instance_id.clone(),
            trust_timeout: options.event_bus.trust_timeout,
            publish_timeout: options.event_bus.publish_timeout,
            event_dedupe: options.event_dedupe.clone(),
            circuit_breaker: options.event_bus_circuit_breaker.clone(),
        }
    }
}
