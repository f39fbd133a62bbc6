//! With the feature `tracing`: spans around loads, calls of L2 and publications, and a log line per
//! change of state.

use tracing::{Instrument, instrument::Instrumented};

use crate::{
    contain::contain,
    error::{BoxError, Error},
};

/// The span of a caller, for the load that it begins: the load may run in a task of its own.
pub(crate) struct CallerSpan(tracing::Span);

impl CallerSpan {
    pub(crate) fn current() -> Self {
        Self(tracing::Span::current())
    }

    /// Runs a future within the span of the caller, in whichever task: so the spans that it opens
    /// are children of the caller's.
    pub(crate) fn around<F: Future>(self, future: F) -> Instrumented<F> {
        future.instrument(self.0)
    }
}

/// The span of one load, or of one request to L2 or to the bus: a child of the span in which it is
/// created.
pub(crate) struct RequestSpan(tracing::Span);

impl RequestSpan {
    /// Opens the span `lazy_layers.load`.
    pub(crate) fn of_load(cache: Option<&str>, key: &str) -> Self {
        Self(tracing::debug_span!(target: "lazy_layers_cache", "lazy_layers.load", cache, key))
    }

    /// Opens the span `lazy_layers.l2`. `operation` is the method of the store.
    pub(crate) fn of_l2(cache: Option<&str>, operation: &'static str) -> Self {
        Self(tracing::debug_span!(target: "lazy_layers_cache", "lazy_layers.l2", cache, operation))
    }

    /// Opens the span `lazy_layers.publish`.
    pub(crate) fn of_publication(cache: Option<&str>) -> Self {
        Self(tracing::debug_span!(target: "lazy_layers_cache", "lazy_layers.publish", cache))
    }

    /// Runs the load or the request in the span, which ends with it.
    pub(crate) fn run<F: Future>(self, request: F) -> Instrumented<F> {
        request.instrument(self.0)
    }

    /// Polls the request once in the span.
    pub(crate) fn in_scope<T>(&self, poll: impl FnOnce() -> T) -> T {
        self.0.in_scope(poll)
    }
}

pub(crate) fn log_origin_down(cache: Option<&str>, key: &str, error: &Error) {
    // The loader's error is a type of the user, and its `Display` may panic.
    let _ = contain(|| {
        let cause = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(
            target: "lazy_layers_cache",
            cache,
            part = "origin",
            key,
            cause,
            "{error}; further failures are not logged until a load succeeds",
        );
    });
}

pub(crate) fn log_origin_up(cache: Option<&str>, key: &str) {
    tracing::info!(target: "lazy_layers_cache", cache, part = "origin", key, "loads succeed again");
}

pub(crate) fn log_l2_down(cache: Option<&str>, is_shared: bool, error: &BoxError) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "l2",
        concerns = concerned(is_shared),
        cause = %error,
        "L2 failed and its circuit opened: calls skip L2 until a probe succeeds after the cooldown",
    );
}

pub(crate) fn log_l2_up(cache: Option<&str>, is_shared: bool) {
    tracing::info!(
        target: "lazy_layers_cache",
        cache,
        part = "l2",
        concerns = concerned(is_shared),
        "L2 answers again: its circuit closed",
    );
}

/// Names the caches that have the server of L2 together, in the line that one of them logs.
fn concerned(is_shared: bool) -> Option<&'static str> {
    is_shared.then_some("all caches of the manager")
}

pub(crate) fn log_l2_emptied(cache: Option<&str>, is_shared: bool) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "l2",
        concerns = concerned(is_shared),
        "the server of L2 may have lost deletes (it was restarted or replaced, or has evicted the \
         record of that): all keys of the cache were removed from L2, and are loaded again",
    );
}

pub(crate) fn log_l2_overflow(cache: Option<&str>) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "l2",
        "more deletes than 10,000 keys or 100 patterns wait for L2: one delete of all keys \
         replaces them; L2 is read again when it has succeeded; it is retried within 1 s",
    );
}

pub(crate) fn log_bus_down(cache: Option<&str>, error: Option<&BoxError>) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        cause = error.map(tracing::field::display),
        "not subscribed to the bus: L1 entries are looked up again until a new subscription \
         succeeds; it is retried within 1 s",
    );
}

pub(crate) fn log_bus_up(cache: Option<&str>) {
    tracing::info!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        "subscribed to the bus again",
    );
}

pub(crate) fn log_bus_publishing_down(cache: Option<&str>, error: &BoxError) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        cause = %error,
        "publishing failed and its circuit opened: messages wait in the outbox, and are published \
         when the bus answers; that is checked at least every second",
    );
}

pub(crate) fn log_bus_publishing_up(cache: Option<&str>) {
    tracing::info!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        "publishing succeeds again: its circuit closed",
    );
}

pub(crate) fn log_bus_gap(cache: Option<&str>, reason: &str) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        reason,
        "messages of peers were lost, or may have been: each entry of L1 is looked up in L2 before \
         it is served again; the next line for a gap follows after a minute at the earliest",
    );
}

pub(crate) fn log_bus_shared_instance(cache: Option<&str>, instance_id: &str) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        instance_id,
        "two live processes publish under one instance id, so that logs and events cannot tell \
         them apart: give each process its own",
    );
}

pub(crate) fn log_bus_refusing(cache: Option<&str>, error: &BoxError, is_stuck: bool) {
    let next = if is_stuck {
        "the broker refuses even the smallest message: peers are not told of invalidations, and \
         notice that this instance is silent; it is retried every second"
    } else {
        "the broker refuses messages: smaller ones, or invalidations of more keys, are published \
         instead"
    };
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        cause = %error,
        "{next}",
    );
}

pub(crate) fn log_bus_accepting(cache: Option<&str>) {
    tracing::info!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        "the broker accepts messages again",
    );
}

pub(crate) fn log_bus_value_skipped(cache: Option<&str>, key: &str, reason: &str) {
    tracing::info!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        key,
        reason,
        "a value is not sent to peers, which load it themselves; the next line for such a value \
         follows after a minute at the earliest",
    );
}

pub(crate) fn log_bus_widened(cache: Option<&str>, reason: &str) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "event_bus",
        reason,
        "an invalidation that covers more keys replaces queued ones: peers will load keys that \
         were not invalidated",
    );
}

pub(crate) fn log_close_lost(cache: Option<&str>, l2: usize, bus: usize) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "close",
        "the cache ended before {l2} invalidations had reached L2 and {bus} the bus: other \
         instances may serve the old values until their ttl is over",
    );
}

pub(crate) fn log_handler_panicked(cache: Option<&str>, event: &str) {
    tracing::error!(
        target: "lazy_layers_cache",
        cache,
        part = "handler",
        event,
        "an event handler panicked; the other handlers are called",
    );
}

pub(crate) fn log_option_without_effect(cache: Option<&str>, option: &str, reason: &str) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "options",
        option,
        "an option has no effect: {reason}",
    );
}

pub(crate) fn log_unused_section(section: &str, nearest: Option<&str>) {
    let meant = nearest.map(|nearest| format!(", did you mean `{nearest}`?")).unwrap_or_default();
    tracing::warn!(
        target: "lazy_layers_cache",
        part = "options",
        section,
        "no cache was asked for under the name of the section [caches.{section}], so its options \
         have no effect{meant}",
    );
}

pub(crate) fn log_unreadable_type(cache: Option<&str>, name: &str, error: &BoxError, cure: &str) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cache,
        part = "codec",
        "type" = name,
        cause = %error,
        "values of this type cannot be decoded from their own bytes: they stay in L1 and are not \
         sent to peers; {cure}",
    );
}
