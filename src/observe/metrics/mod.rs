//! Metrics of a cache for the features `metrics` and `opentelemetry`; nothing without them.
//!
//! Counters and gauges are read when they are exported, so that a hit pays nothing. The durations
//! of loads, calls of L2 and publications are recorded when they end.

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod label;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod table;
mod timed;

#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
#[cfg_attr(feature = "metrics", path = "facade_enabled.rs")]
#[cfg_attr(not(feature = "metrics"), path = "facade_disabled.rs")]
mod facade;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
#[cfg_attr(feature = "opentelemetry", path = "otel_enabled.rs")]
#[cfg_attr(not(feature = "opentelemetry"), path = "otel_disabled.rs")]
mod otel;
#[cfg_attr(any(feature = "metrics", feature = "opentelemetry"), path = "recorder_enabled.rs")]
#[cfg_attr(not(any(feature = "metrics", feature = "opentelemetry")), path = "recorder_disabled.rs")]
mod recorder;

#[cfg(feature = "metrics")]
pub(crate) use self::facade::export as export_metrics;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(crate) use self::{
    label::Label,
    table::{MetricSource, Snapshot},
};
pub(crate) use self::{
    recorder::{Metrics, Timer},
    timed::Timed,
};
