//! Spans and log lines: real under the feature `tracing`, nothing without it.

#[cfg_attr(feature = "tracing", path = "enabled.rs")]
#[cfg_attr(not(feature = "tracing"), path = "disabled.rs")]
mod imp;

pub(crate) use self::imp::{
    CallerSpan, RequestSpan, log_bus_accepting, log_bus_down, log_bus_gap, log_bus_publishing_down,
    log_bus_publishing_up, log_bus_refusing, log_bus_shared_instance, log_bus_up,
    log_bus_value_skipped, log_bus_widened, log_close_lost, log_handler_panicked, log_l2_down,
    log_l2_emptied, log_l2_overflow, log_l2_up, log_option_without_effect, log_origin_down,
    log_origin_up, log_unreadable_type, log_unused_section,
};
