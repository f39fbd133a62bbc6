//! Deletes that have not reached the store are made up for, by one caller at a time.

use super::{Blame, CallContext, Failure, L2, PendingInvalidation};
use crate::{observe::Observer, time::Clock};

impl<V: Send + Sync + 'static> L2<V> {
    /// How many deletes have not reached the store.
    pub(crate) fn owes(&self) -> usize {
        self.owed.len()
    }

    /// Whether the caller is to [`repay`](Self::repay), and nobody else.
    pub(crate) fn take_over_debts(&self) -> bool {
        self.owed.take_over()
    }

    /// They will not be repaid by who has taken them over.
    pub(crate) fn give_up_debts(&self) {
        self.owed.give_up();
    }

    /// Makes up for the deletes that have not reached the store, and tells of each that has. One
    /// that fails is passed over; at the third in a row it ends.
    ///
    /// The breaker hears of no failure: one delete that always fails must not keep the store from
    /// serving everything else.
    pub(crate) async fn repay(
        &self,
        observer: &Observer,
        clock: &dyn Clock,
        paid_for: impl Fn(&PendingInvalidation),
    ) -> Result<(), Failure> {
        let mut failures = 0;
        while let Some(debt) = self.owed.next() {
            let context = CallContext { key: &debt.name, observer, clock };
            let paid = if debt.is_pattern {
                // Nobody waits for it, and what took too long once would again.
                let limit = self.pattern_limit.saturating_mul(10);
                self.remove_matching(context, limit, Blame::Nothing).await
            } else {
                self.remove_versions(context, Blame::Nothing).await
            };
            match paid {
                Ok(()) => {
                    failures = 0;
                    self.owed.settle(&debt);
                    paid_for(&debt);
                }
                Err(Failure::Skipped) => return Err(Failure::Skipped),
                Err(failure) => {
                    failures += 1;
                    self.owed.postpone(&debt);
                    if failures >= self.owed.len().min(3) {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }
}
