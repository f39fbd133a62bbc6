//! Verifies the data under prefixes before the first call on a new connection: data that may be old
//! is removed.

use std::sync::Arc;

use super::{
    connection::Connection,
    run_id::RunIds,
    store::{clear::clear, context::StoreContext, options::RestartPolicy},
};
use crate::error::BoxError;

/// Verifies those of the prefixes that are not verified yet. Fails if none of them all can be
/// served: one that fails does not keep the others from their data.
pub(super) async fn verify(
    connection: &Connection,
    ids: &RunIds,
    prefixes: &[Arc<StoreContext>],
) -> Result<(), BoxError> {
    let mut failure = None;
    let mut fail = |context: &StoreContext, error: BoxError| {
        context.prefix_state.on_failed(&error);
        failure = Some(error);
    };
    let mut old = Vec::new();
    let mut verified = Vec::new();
    for context in prefixes.iter().filter(|context| !context.prefix_state.is_verified()) {
        let clears = context.options.after_restart == RestartPolicy::Clear;
        match ids.judge(connection, context).await {
            Ok(judgement) => {
                // mutant restart: if false
                if judgement.may_be_old && clears {
                    old.push((&**context, judgement));
                } else {
                    verified.push((&**context, judgement));
                }
            }
            Err(error) => fail(context, error),
        }
    }
    let to_clear: Vec<&StoreContext> = old.iter().map(|(context, _)| *context).collect();
    for ((context, judgement), cleared) in old.into_iter().zip(clear(connection, &to_clear).await) {
        match cleared {
            Ok(()) => {
                context.prefix_state.on_emptied();
                verified.push((context, judgement));
            }
            Err(error) => fail(context, error),
        }
    }
    for (context, judgement) in verified {
        match judgement.store(connection, context).await {
            Ok(()) => context.prefix_state.on_verified(),
            Err(error) => fail(context, error),
        }
    }
    let is_one_served = prefixes.iter().any(|context| context.prefix_state.is_verified());
    failure.filter(|_| !is_one_served).map_or(Ok(()), Err)
}
