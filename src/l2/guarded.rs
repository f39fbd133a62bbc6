//! Calls the store within a deadline and behind the circuit breaker, and reports each failure once.

use std::{sync::Arc, time::Duration};

use super::store::{Store, StoreFuture};
use crate::{
    error::BoxError,
    observe::{Counter, Event, Observer, log_l2_down, log_l2_up},
    resilience::{Breaker, Elapsed, timeout},
    time::Clock,
};

/// Why a call of the store has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The circuit is open: the store was not called.
    Skipped,
    Failed(BoxError),
}

/// Which failures of a call the circuit breaker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerCounts {
    All,
    /// Errors of the store, but not a call that reached its deadline.
    ErrorsOnly,
    None,
}

/// The store, its circuit breaker, and the observer that failures are reported to.
pub(super) struct GuardedStore {
    store: Arc<dyn Store>,
    breaker: Breaker,
    observer: Arc<Observer>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct TimedOut(Duration);

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for TimedOut {}

impl GuardedStore {
    pub(super) fn new(
        store: Arc<dyn Store>,
        breaker: Breaker,
        observer: Arc<Observer>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, breaker, observer, clock }
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// The store's own reason to reject a key. This asks the store for no data: it needs neither
    /// deadline nor breaker.
    pub(super) fn reject_key(&self, key: &str) -> Option<BoxError> {
        self.store.reject_key(key)
    }

    /// Calls the store; the breaker counts every failure.
    pub(super) async fn call<'a, T>(
        &'a self,
        key: &str,
        limit: Duration,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        self.call_with(BreakerCounts::All, key, limit, call).await
    }

    /// Calls the store; the breaker counts the failures that `counts` names. Reports name `key`.
    ///
    /// No other function sends a request to the store.
    pub(super) async fn call_with<'a, T>(
        &'a self,
        counts: BreakerCounts,
        key: &str,
        limit: Duration,
        call: impl FnOnce(&'a dyn Store) -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        let permit = self.breaker.permit(self.now(), self.store.connection_generation());
        let Some(permit) = permit else {
            self.observer.count(Counter::L2Skipped);
            self.observer.emit(|| Event::L2Skipped { key });
            return Err(Failure::Skipped);
        };
        let answer = timeout(Some(limit), call(&*self.store)).await;
        let is_counted = match counts {
            BreakerCounts::All => true,
            BreakerCounts::ErrorsOnly => answer.is_ok(),
            BreakerCounts::None => false,
        };
        match answer.unwrap_or_else(|Elapsed| Err(TimedOut(limit).into())) {
            Ok(answer) => {
                if permit.succeeded() {
                    log_l2_up();
                }
                Ok(answer)
            }
            Err(error) => {
                self.report(key, &error);
                if is_counted && permit.failed(self.now()) {
                    log_l2_down(&error);
                }
                Err(Failure::Failed(error))
            }
        }
    }

    pub(super) fn report(&self, key: &str, error: &BoxError) {
        self.observer.count(Counter::L2Errors);
        self.observer.emit(|| Event::L2Error { key, error: &**error });
    }
}
