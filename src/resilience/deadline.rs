//! Waiting no longer than so long.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late;

/// Waits for `future`, no longer than `limit` from now.
///
/// Where there is no timer to wait with, outside of a tokio runtime or in one that was built
/// without, it waits for as long as it takes: a late answer is better than a panic.
pub(crate) async fn within<F: Future>(
    limit: Option<Duration>,
    future: F,
) -> Result<F::Output, Late> {
    let Some(limit) = limit.filter(|_| there_is_a_timer()) else { return Ok(future.await) };
    timeout(limit, future).await.map_err(|_| Late)
}

/// Tokio has no question for this: it panics where a timer is made and there is none.
pub(crate) fn there_is_a_timer() -> bool {
    Handle::try_current().is_ok()
        && catch_unwind(AssertUnwindSafe(|| drop(tokio::time::sleep(Duration::ZERO)))).is_ok()
}
