//! The one place to which every step of the cache reports; counters, handlers and log lines follow
//! from the report.

use super::{
    event::Event,
    handlers::{HandlerGuard, Handlers},
    health::{OriginHealth, OriginState},
    metrics::{Metrics, Timed, Timer},
    stats::{Counter, Counters, Stats},
    trace,
};
use crate::error::{Error, ErrorKind};

pub(crate) struct Observer {
    /// The name of the cache, which each log line carries.
    cache: Option<Box<str>>,
    counters: Counters,
    handlers: Handlers,
    origin: OriginState,
    pub(crate) metrics: Metrics,
}

impl Observer {
    pub(crate) fn of_cache(name: Option<&str>) -> Self {
        Self {
            cache: name.map(Box::from),
            counters: Counters::default(),
            handlers: Handlers::default(),
            origin: OriginState::default(),
            metrics: Metrics::of_cache(name),
        }
    }

    /// Returns the name of the cache, if it has one.
    pub(crate) fn cache(&self) -> Option<&str> {
        self.cache.as_deref()
    }

    /// Counts one; returns how many this thread had counted before.
    #[inline]
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters.add(counter, 1)
    }

    pub(crate) fn count_many(&self, counter: Counter, by: u64) {
        self.counters.add(counter, by);
    }

    /// Begins to time a step. Reads no clock unless a feature of metrics wants the duration.
    pub(crate) fn start_timer(&self) -> Timer {
        self.metrics.start()
    }

    /// Records the duration of a step that has ended.
    pub(crate) fn record(&self, timed: Timed, timer: Timer) {
        self.metrics.record(timed, timer);
    }

    /// Passes an event to the handlers. Builds the event only if there are any.
    #[inline]
    pub(crate) fn emit<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if self.handlers.is_active() {
            self.handlers.dispatch(self.cache(), &event());
        }
    }

    pub(crate) fn on(&self, handler: impl Fn(&Event<'_>) + Send + Sync + 'static) -> HandlerGuard {
        self.handlers.add(handler)
    }

    /// Records the end of a load. Logs only where it changes the state of the origin.
    pub(crate) fn on_load_end(&self, key: &str, failure: Option<&Error>, now: u64) {
        use ErrorKind::{HardTimeout, Loader, LoaderPanicked};
        let is_of_origin =
            |error: &Error| matches!(error.kind(), HardTimeout | Loader | LoaderPanicked);
        if failure.is_some_and(|error| !is_of_origin(error)) {
            return;
        }
        match (self.origin.record(failure.is_some(), now), failure) {
            (true, Some(error)) => trace::log_origin_down(self.cache(), key, error),
            (true, None) => trace::log_origin_up(self.cache(), key),
            (false, _) => {}
        }
    }

    /// Records invalidations that nobody retries any more, because the cache has ended.
    pub(crate) fn on_close_lost(&self, l2: usize, bus: usize) {
        if l2 + bus > 0 {
            self.count_many(Counter::InvalidationsLost, (l2 + bus) as u64);
            self.emit(|| Event::CloseLost { l2, bus });
            trace::log_close_lost(self.cache(), l2, bus);
        }
    }

    pub(crate) fn origin_health(&self, now: u64) -> OriginHealth {
        self.origin.read(now)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.read()
    }
}
