//! Without the feature `tracing`: nothing, at no cost.

pub(crate) fn in_span<F: Future>(_key: &str, load: F) -> F {
    load
}

pub(crate) fn origin_fails(_key: &str, _error: &crate::Error) {}

pub(crate) fn origin_recovered(_key: &str) {}

pub(crate) fn l2_fails(_error: &crate::error::BoxError) {}

pub(crate) fn l2_recovered() {}

pub(crate) fn bus_fails(_error: Option<&crate::error::BoxError>) {}

pub(crate) fn bus_recovered() {}

pub(crate) fn handler_panicked(_event: &str) {}
