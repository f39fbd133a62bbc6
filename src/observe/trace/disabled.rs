//! Without the feature `tracing`: no spans and no log lines, at no cost.

use crate::error::{BoxError, Error};

pub(crate) struct CallerSpan;

impl CallerSpan {
    pub(crate) const fn current() -> Self {
        Self
    }

    pub(crate) fn around<F: Future>(self, future: F) -> F {
        future
    }
}

pub(crate) struct RequestSpan;

impl RequestSpan {
    pub(crate) const fn of_load(_cache: Option<&str>, _key: &str) -> Self {
        Self
    }

    pub(crate) const fn of_l2(_cache: Option<&str>, _operation: &'static str) -> Self {
        Self
    }

    pub(crate) const fn of_publication(_cache: Option<&str>) -> Self {
        Self
    }

    pub(crate) fn run<F: Future>(self, request: F) -> F {
        request
    }

    pub(crate) fn in_scope<T>(&self, poll: impl FnOnce() -> T) -> T {
        poll()
    }
}

pub(crate) fn log_origin_down(_cache: Option<&str>, _key: &str, _error: &Error) {}

pub(crate) fn log_origin_up(_cache: Option<&str>, _key: &str) {}

pub(crate) fn log_l2_down(_cache: Option<&str>, _is_shared: bool, _error: &BoxError) {}

pub(crate) fn log_l2_up(_cache: Option<&str>, _is_shared: bool) {}

pub(crate) fn log_l2_emptied(_cache: Option<&str>, _is_shared: bool) {}

pub(crate) fn log_l2_overflow(_cache: Option<&str>) {}

pub(crate) fn log_bus_down(_cache: Option<&str>, _error: Option<&BoxError>) {}

pub(crate) fn log_bus_up(_cache: Option<&str>) {}

pub(crate) fn log_bus_publishing_down(_cache: Option<&str>, _error: &BoxError) {}

pub(crate) fn log_bus_publishing_up(_cache: Option<&str>) {}

pub(crate) fn log_bus_gap(_cache: Option<&str>, _reason: &str) {}

pub(crate) fn log_bus_shared_instance(_cache: Option<&str>, _instance_id: &str) {}

pub(crate) fn log_bus_refusing(_cache: Option<&str>, _error: &BoxError, _is_stuck: bool) {}

pub(crate) fn log_bus_accepting(_cache: Option<&str>) {}

pub(crate) fn log_bus_value_skipped(_cache: Option<&str>, _key: &str, _reason: &str) {}

pub(crate) fn log_bus_widened(_cache: Option<&str>, _reason: &str) {}

pub(crate) fn log_close_lost(_cache: Option<&str>, _l2: usize, _bus: usize) {}

pub(crate) fn log_handler_panicked(_cache: Option<&str>, _event: &str) {}

pub(crate) fn log_unused_section(_section: &str, _nearest: Option<&str>) {}

pub(crate) fn log_unreadable_type(
    _cache: Option<&str>,
    _name: &str,
    _error: &BoxError,
    _cure: &str,
) {
}

pub(crate) fn log_option_without_effect(_cache: Option<&str>, _option: &str, _reason: &str) {}
