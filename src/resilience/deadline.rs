//! Waiting no longer than so long.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::unconstrained,
    time::{Sleep, sleep},
};

/// The time was over first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Waits for `future`, no longer than `limit` from now.
///
/// Where there is no timer to wait with, outside of a tokio runtime or in one that was built
/// without, it waits for as long as it takes: a late answer is better than a panic.
pub(crate) async fn timeout<F: Future>(
    limit: Option<Duration>,
    future: F,
) -> Result<F::Output, Elapsed> {
    let Some(timer) = limit.and_then(timer) else { return Ok(future.await) };
    // One that has used up its turn must not put the timer off too.
    let (mut timer, mut future) = (pin!(unconstrained(timer)), pin!(future));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}

/// Runs `future` until `stop` ends, whichever is first; `stop` if both are.
pub(crate) async fn unless<F: Future>(
    stop: impl Future<Output = ()>,
    future: F,
) -> Option<F::Output> {
    let (mut stop, mut future) = (pin!(stop), pin!(future));
    poll_fn(|context| {
        if stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs `future` to its end, and `side` beside it for as long.
pub(crate) async fn run_alongside<F: Future>(
    side: impl Future<Output = ()>,
    future: F,
) -> F::Output {
    let (mut side, mut future) = (pin!(side), pin!(future));
    let mut is_over = false;
    poll_fn(|context| {
        is_over = is_over || side.as_mut().poll(context).is_ready();
        future.as_mut().poll(context)
    })
    .await
}

pub(crate) fn has_timer() -> bool {
    timer(Duration::ZERO).is_some()
}

/// Tokio has no question whether there is one: it panics where it is made and there is none.
fn timer(limit: Duration) -> Option<Sleep> {
    Handle::try_current().ok()?;
    catch_unwind(AssertUnwindSafe(|| sleep(limit))).ok()
}
