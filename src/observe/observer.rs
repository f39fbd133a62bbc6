//! The one place to which every step of the cache reports; counters, handlers and log lines follow
//! from the report.

use super::{
    event::Event,
    handlers::{HandlerGuard, Handlers},
    health::{OriginHealth, OriginState},
    stats::{Counter, Counters, Stats},
    trace,
};
use crate::error::{Error, ErrorKind};

#[derive(Default)]
pub(crate) struct Observer {
    /// The name of the cache, which each log line carries.
    cache: Option<Box<str>>,
    counters: Counters,
    handlers: Handlers,
    origin: OriginState,
}

impl Observer {
    pub(crate) fn of_cache(name: Option<&str>) -> Self {
        Self { cache: name.map(Box::from), ..Self::default() }
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

    pub(crate) fn origin_health(&self, now: u64) -> OriginHealth {
        self.origin.read(now)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.read()
    }
}
