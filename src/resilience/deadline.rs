//! Timeouts, and other ways to run one future until or beside another.

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

/// The time limit passed before the future was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

/// Waits for `future`, for at most `limit` from the first poll. `None` is no limit.
///
/// Without a tokio timer (outside of a runtime, or in a runtime built without time) there is no
/// limit either: a late answer is better than a panic.
pub(crate) async fn timeout<F: Future>(
    limit: Option<Duration>,
    future: F,
) -> Result<F::Output, Elapsed> {
    let Some(timer) = limit.and_then(timer) else { return Ok(future.await) };
    // Unconstrained: a future that has used up the task's budget must not delay the timer.
    let (mut timer, mut future) = (pin!(unconstrained(timer)), pin!(future));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}

/// Runs `future` until `stop` is ready. Returns `None` if `stop` is ready first, or both at once.
pub(crate) async fn run_until<F: Future>(
    future: F,
    stop: impl Future<Output = ()>,
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

/// Runs `future` to its end, and polls `side` beside it until then. `side` is not polled at all if
/// `future` is ready at once.
pub(crate) async fn run_alongside<F: Future>(
    side: impl Future<Output = ()>,
    future: F,
) -> F::Output {
    let (mut side, mut future) = (pin!(side), pin!(future));
    let mut is_over = false;
    poll_fn(|context| {
        let result = future.as_mut().poll(context);
        is_over = is_over || result.is_pending() && side.as_mut().poll(context).is_ready();
        result
    })
    .await
}

/// Whether the current runtime has a timer.
pub(crate) fn has_timer() -> bool {
    timer(Duration::ZERO).is_some()
}

/// A timer, or `None` where tokio has none. Tokio offers no way to ask: `sleep` panics.
fn timer(limit: Duration) -> Option<Sleep> {
    Handle::try_current().ok()?;
    catch_unwind(AssertUnwindSafe(|| sleep(limit))).ok()
}
