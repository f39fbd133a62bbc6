//! With the feature `tracing`: a span around each load, a line per change of state.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

/// Runs the load in a span `lazy_layers.load`, a child of the span of the caller that began it.
pub(crate) fn in_span<F: Future>(key: &str, load: F) -> impl Future<Output = F::Output> {
    let span = tracing::debug_span!(target: "lazy_layers_cache", "lazy_layers.load", key);
    async move {
        let mut load = pin!(load);
        poll_fn(|context| span.in_scope(|| load.as_mut().poll(context))).await
    }
}

pub(crate) fn origin_fails(key: &str, error: &crate::Error) {
    // The loader's error is the user's, and so is what it does to display itself.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let cause = std::error::Error::source(error).map(tracing::field::display);
        tracing::warn!(
            target: "lazy_layers_cache",
            key,
            cause,
            "{error}; the next failures are not logged until a load succeeds",
        );
    }));
}

pub(crate) fn origin_recovered(key: &str) {
    tracing::info!(target: "lazy_layers_cache", key, "loads succeed again");
}

pub(crate) fn l2_fails(error: &crate::error::BoxError) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cause = %error,
        "the shared level fails and is left alone for a while",
    );
}

pub(crate) fn l2_recovered() {
    tracing::info!(target: "lazy_layers_cache", "the shared level answers again");
}

pub(crate) fn bus_fails(error: Option<&crate::error::BoxError>) {
    tracing::warn!(
        target: "lazy_layers_cache",
        cause = error.map(tracing::field::display),
        "events of other instances are not heard: what memory holds is looked up again",
    );
}

pub(crate) fn bus_recovered() {
    tracing::info!(target: "lazy_layers_cache", "events of other instances are heard again");
}

pub(crate) fn handler_panicked(event: &str) {
    tracing::error!(target: "lazy_layers_cache", event, "an event handler panicked");
}
