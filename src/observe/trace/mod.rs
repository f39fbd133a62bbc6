//! Spans and log lines: real under the feature `tracing`, nothing without it.
//!
//! The rest of the crate calls these functions and never asks which it got.

#[cfg_attr(feature = "tracing", path = "enabled.rs")]
#[cfg_attr(not(feature = "tracing"), path = "disabled.rs")]
mod chosen;

pub(crate) use self::chosen::{
    bus_fails, bus_recovered, handler_panicked, in_span, l2_fails, l2_recovered, origin_fails,
    origin_recovered,
};
