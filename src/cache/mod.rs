//! The cache: its builder, its handle, and the verbs of the handle. Only this module calls all
//! stages (L1, flights, loads, L2, bus), and so knows their order.

mod builder;
mod builder_options;
mod builder_setters;
mod bus_access;
mod close;
mod distributed_lock;
mod explain;
mod explain_text;
#[cfg(feature = "metrics")]
mod export_metrics;
mod flight_context;
mod flight_watch;
mod follow;
mod guarantees;
mod handle;
mod handle_service;
mod handle_writes;
mod l1_access;
mod load;
mod load_end;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod metric_source;
mod outcome;
mod read;
#[cfg(feature = "opentelemetry")]
mod register_metrics;
mod registry;
mod reports;
mod request;
mod set_request;
mod state;
mod weak;
mod write;
mod write_report;

#[cfg(feature = "metrics")]
pub use self::export_metrics::MetricsExport;
pub(crate) use self::{builder::BuilderBus, weak::WeakCache};
pub use self::{
    builder::CacheBuilder,
    explain::{Explanation, KeyInL1, NextStep, RunningLoad},
    guarantees::{DeleteAck, Guarantees},
    handle::LazyLayersCache,
    outcome::{Outcome, Source},
    request::{GetOrSet, GetOrSetFuture, OutcomeFuture},
    set_request::SetRequest,
    write_report::{BusEffect, L1Effect, L2Effect, WriteReport},
};
