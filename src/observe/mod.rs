//! Reports of the cache: events to handlers, counters, metrics, log lines, health.

mod event;
mod handlers;
mod health;
mod metrics;
mod observer;
mod stats;
mod trace;

#[cfg(feature = "metrics")]
pub(crate) use self::metrics::export_metrics;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
pub(crate) use self::metrics::{Label, MetricSource, Snapshot};
pub use self::{
    event::{Event, Level, StaleReason},
    handlers::HandlerGuard,
    health::{BusHealth, Health, L2Health, OriginHealth},
    stats::Stats,
};
pub(crate) use self::{
    metrics::Timed,
    observer::Observer,
    stats::Counter,
    trace::{
        CallerSpan, RequestSpan, log_bus_accepting, log_bus_down, log_bus_gap,
        log_bus_publishing_down, log_bus_publishing_up, log_bus_refusing, log_bus_shared_instance,
        log_bus_up, log_bus_value_skipped, log_bus_widened, log_l2_down, log_l2_emptied,
        log_l2_overflow, log_l2_up, log_option_without_effect, log_unreadable_type,
        log_unused_section,
    },
};
