//! Without the feature `tracing`: no spans and no log lines, at no cost.

use crate::error::{BoxError, Error};

pub(crate) fn in_span<F: Future>(_key: &str, load: F) -> F {
    load
}

pub(crate) fn log_origin_down(_key: &str, _error: &Error) {}

pub(crate) fn log_origin_up(_key: &str) {}

pub(crate) fn log_l2_down(_error: &BoxError) {}

pub(crate) fn log_l2_up() {}

pub(crate) fn log_l2_overflow() {}

pub(crate) fn log_bus_down(_error: Option<&BoxError>) {}

pub(crate) fn log_bus_up() {}

pub(crate) fn log_bus_refusing(_error: &BoxError, _is_stuck: bool) {}

pub(crate) fn log_bus_accepting() {}

pub(crate) fn log_bus_value_skipped(_key: &str, _reason: &str) {}

pub(crate) fn log_bus_widened(_reason: &str) {}

pub(crate) fn log_close_lost(_l2: usize, _bus: usize) {}

pub(crate) fn log_handler_panicked(_event: &str) {}

pub(crate) fn log_unreadable_type(_name: &str, _error: &BoxError, _cure: &str) {}
