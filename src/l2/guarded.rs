//! How a store is called: behind the breaker, within a deadline, each failure reported once.

use std::time::Duration;

use super::{CallContext, L2, store::StoreFuture};
use crate::{
    error::BoxError,
    observe::{Counter, Event},
    resilience::{Elapsed, timeout},
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
        context: CallContext<'_>,
        limit: Duration,
        call: impl FnOnce() -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        self.called(context, limit, Blame::Everything, call).await
    }

    /// The only place that calls a store: breaker, deadline, report.
    pub(super) async fn called<'a, T>(
        &self,
        context: CallContext<'_>,
        limit: Duration,
        blame: Blame,
        call: impl FnOnce() -> StoreFuture<'a, T>,
    ) -> Result<T, Failure> {
        let permit = self.breaker.permit(context.clock.now(), self.store.connection_generation());
        let Some(permit) = permit else {
            context.observer.count(Counter::L2Skipped);
            context.observer.emit(|| Event::L2Skipped { key: context.key });
            return Err(Failure::Skipped);
        };
        let answer = timeout(Some(limit), call()).await;
        let is_blamed = match blame {
            Blame::Everything => true,
            Blame::Errors => answer.is_ok(),
            Blame::Nothing => false,
        };
        match answer.unwrap_or_else(|Elapsed| Err(NoAnswer(limit).into())) {
            Ok(answer) => {
                if permit.succeeded() {
                    context.observer.l2_recovered();
                }
                Ok(answer)
            }
            Err(error) => {
                report(context, &error);
                if is_blamed && permit.failed(context.clock.now()) {
                    context.observer.l2_fails(&error);
                }
                Err(Failure::Failed(error))
            }
        }
    }
}

pub(super) fn report(context: CallContext<'_>, error: &BoxError) {
    context.observer.count(Counter::L2Errors);
    context.observer.emit(|| Event::L2Error { key: context.key, error: &**error });
}
