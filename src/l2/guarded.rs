//! How a store is called: behind the breaker, within a deadline, each failure reported once.

use std::time::Duration;

use super::{Asker, L2, store::StoreFuture};
use crate::{
    error::BoxError,
    observe::{Counter, Event},
    resilience::{Late, within},
};

/// Why a call of the store came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The breaker is open: it was not called.
    Skipped,
    Failed(BoxError),
}

/// Which failures of a call say that the store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    Everything,
    /// Not that there was no answer in time.
    Errors,
    Nothing,
}

#[derive(Debug)]
struct NoAnswer(Duration);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for NoAnswer {}

impl<V: Send + Sync + 'static> L2<V> {
    pub(super) async fn guarded<'a, T>(
        &self,
        asker: Asker<'_>,
        limit: Duration,
        call: impl FnOnce() -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        self.called(asker, limit, Blame::Everything, call).await
    }

    /// The only place that calls a store: breaker, deadline, report.
    pub(super) async fn called<'a, T>(
        &self,
        asker: Asker<'_>,
        limit: Duration,
        blame: Blame,
        call: impl FnOnce() -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        let permit = self.breaker.permit(asker.clock.now(), self.store.connection());
        let Some(permit) = permit else {
            asker.observer.count(Counter::L2Skipped);
            asker.observer.emit(|| Event::L2Skipped { key: asker.key });
            return Err(Failure::Skipped);
        };
        let answer = within(Some(limit), call()).await;
        let is_blamed = match blame {
            Blame::Everything => true,
            Blame::Errors => answer.is_ok(),
            Blame::Nothing => false,
        };
        match answer.unwrap_or_else(|Late| Err(NoAnswer(limit).into())) {
            Ok(answer) => {
                if permit.succeeded() {
                    asker.observer.l2_recovered();
                }
                Ok(answer)
            }
            Err(error) => {
                report(asker, &error);
                if is_blamed && permit.failed(asker.clock.now()) {
                    asker.observer.l2_fails(&error);
                }
                Err(Failure::Failed(error))
            }
        }
    }
}

pub(super) fn report(asker: Asker<'_>, error: &BoxError) {
    asker.observer.count(Counter::L2Errors);
    asker.observer.emit(|| Event::L2Error { key: asker.key, error: &**error });
}
