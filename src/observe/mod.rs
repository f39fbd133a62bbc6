//! What a cache tells about itself: events to handlers, counters, log lines, health.
//!
//! Each step reports once, here; counters, handlers and logs all hang from that one report.

mod event;
mod handlers;
mod health;
mod stats;
mod trace;

pub use self::{
    event::{Event, Level, StaleReason},
    handlers::HandlerGuard,
    health::{BusHealth, Health, L2Health, OriginHealth},
    stats::Stats,
};
pub(crate) use self::{health::OriginState, stats::Counter, trace::in_span};

use self::{handlers::Handlers, stats::Counters};

/// Where every step of the cache reports.
#[derive(Default)]
pub(crate) struct Observer {
    counters: Counters,
    handlers: Handlers,
    origin: OriginState,
}

impl Observer {
    /// Gives what this thread had counted before.
    #[inline]
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters.add(counter, 1)
    }

    pub(crate) fn count_many(&self, counter: Counter, by: u64) {
        self.counters.add(counter, by);
    }

    /// Hands an event to whoever listens. The event is built only if somebody does.
    #[inline]
    pub(crate) fn emit<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if self.handlers.are_any() {
            self.handlers.call(&event());
        }
    }

    pub(crate) fn on(&self, handler: impl Fn(&Event<'_>) + Send + Sync + 'static) -> HandlerGuard {
        self.handlers.add(handler)
    }

    /// A load ended: log where that changes the state of the origin, not at each failure.
    pub(crate) fn origin_answered(&self, key: &str, failure: Option<&crate::Error>, now: u64) {
        use crate::error::ErrorKind::{HardTimeout, Loader, LoaderPanicked};
        // What else can go wrong is not the origin's fault.
        if failure
            .is_some_and(|error| !matches!(error.kind(), HardTimeout | Loader | LoaderPanicked))
        {
            return;
        }
        match (self.origin.note(failure.is_some(), now), failure) {
            (true, Some(error)) => trace::origin_fails(key, error),
            (true, None) => trace::origin_recovered(key),
            (false, _) => {}
        }
    }

    /// The shared level stopped answering, which is logged once.
    pub(crate) fn l2_fails(&self, error: &crate::error::BoxError) {
        trace::l2_fails(error);
    }

    pub(crate) fn l2_recovered(&self) {
        trace::l2_recovered();
    }

    /// Events of others are not heard any more, which is logged once.
    pub(crate) fn bus_fails(&self, error: Option<&crate::error::BoxError>) {
        trace::bus_fails(error);
    }

    pub(crate) fn bus_recovered(&self) {
        trace::bus_recovered();
    }

    pub(crate) fn origin_health(&self, now: u64) -> OriginHealth {
        self.origin.read(now)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.read()
    }
}
