//! Verifies the data under prefixes before the first call on a new connection: data that may be old
//! is removed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    connection::Connection,
    run_id::{Judgement, RunIds},
    store::{clear::clear, context::StoreContext, options::RestartPolicy},
};
use crate::error::BoxError;

/// Verifies those of the prefixes that are not verified yet. Fails if none of them all can be
/// served: one that fails does not keep the others from their data. Calls `on_good` once the
/// prefixes whose data is good are verified, before the others are cleared, which may take long.
/// Prefixes that are cleared together share a number, which `times_cleared` counts.
pub(super) async fn verify(
    connection: &Connection,
    ids: &RunIds,
    prefixes: &[Arc<StoreContext>],
    on_good: impl Fn(),
    times_cleared: &AtomicU64,
) -> Result<(), BoxError> {
    let is_new = |context: &&StoreContext| !context.prefix_state.is_verified();
    let new: Vec<&StoreContext> =
        prefixes.iter().map(|context| &**context).filter(is_new).collect();
    let mut outcome = Outcome { connection, failure: None };
    let mut old = Vec::new();
    for (context, judgement) in new.iter().zip(ids.judge(connection, &new).await) {
        let clears = context.options.after_restart == RestartPolicy::Clear;
        match judgement {
            Ok(judgement) => {
                // mutant restart: if false
                if judgement.may_be_old && clears {
                    old.push((*context, judgement));
                } else {
                    outcome.accept(context, &judgement).await;
                }
            }
            Err(error) => outcome.fail(context, error),
        }
    }
    on_good();
    let number = times_cleared.fetch_add(old.len().min(1) as u64, Ordering::Relaxed) + 1;
    let to_clear: Vec<&StoreContext> = old.iter().map(|(context, _)| *context).collect();
    for ((context, judgement), cleared) in old.iter().zip(clear(connection, &to_clear).await) {
        match cleared {
            Ok(()) => {
                context.prefix_state.on_emptied(number);
                outcome.accept(context, judgement).await;
            }
            Err(error) => outcome.fail(context, error),
        }
    }
    let is_one_served = prefixes.iter().any(|context| context.prefix_state.is_verified());
    outcome.failure.filter(|_| !is_one_served).map_or(Ok(()), Err)
}

struct Outcome<'a> {
    connection: &'a Connection,
    failure: Option<BoxError>,
}

impl Outcome<'_> {
    /// The data of a prefix is good.
    async fn accept(&mut self, context: &StoreContext, judgement: &Judgement<'_>) {
        match judgement.store(self.connection, context).await {
            Ok(()) => context.prefix_state.on_verified(),
            Err(error) => self.fail(context, error),
        }
    }

    fn fail(&mut self, context: &StoreContext, error: BoxError) {
        context.prefix_state.on_failed(&error);
        self.failure = Some(error);
    }
}
