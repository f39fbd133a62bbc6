//! Calls a loader: contains its panics and enforces its hard timeout.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{IntoLoaded, Loaded, Loader};
use crate::{
    contain::{Panicked, QuietDrop, contain},
    error::{Cause, Error, HeldError, into_box_error},
    resilience::{Elapsed, timeout},
};

/// Calls the loader and returns its answer. Its error, its panic (also one while its future is
/// created or dropped), its hard timeout and a missing runtime become an [`Error`].
///
/// Cancel safe: dropping the future drops the loader.
pub(crate) async fn run_contained<V: 'static, L: Loader<V>>(
    key: &Arc<str>,
    loader: QuietDrop<L>,
    hard: Option<Duration>,
) -> Result<Loaded<V>, Error> {
    let begun = hard.map(|_| Instant::now());
    let panicked = |panic: Panicked| Error::of_key(key, Cause::Panicked(panic.message()));
    let future = contain(|| loader.into_inner().load()).map_err(panicked)?;
    let mut running = Running(pin!(Some(future)));
    let mut load = poll_fn(|context| {
        let polled = contain(|| {
            let Some(future) = running.0.as_mut().as_pin_mut() else { return Poll::Pending };
            let result = ready!(future.poll(context));
            running.0.set(None);
            Poll::Ready(match result {
                Ok(loaded) => Ok(loaded.into_loaded()),
                Err(error) => {
                    let error = HeldError::new(into_box_error(error));
                    Err(Error::of_key(key, Cause::Loader(error)))
                }
            })
        });
        polled.unwrap_or_else(|panic| {
            running.end();
            Poll::Ready(Err(panicked(panic)))
        })
    });

    // A loader that is ready at once needs no timer, and no runtime for one.
    let first = poll_fn(|context| Poll::Ready(Pin::new(&mut load).poll(context))).await;
    if let Poll::Ready(result) = first {
        return result;
    }
    if Handle::try_current().is_err() {
        return Err(Error::of_key(key, Cause::NoRuntime));
    }
    // Yields once: the first poll runs in the caller's task, and the caller must not run the part
    // of the loader that follows its first wait.
    let mut yields = true;
    poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::take(&mut yields) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let left = begun.zip(hard).map(|(begun, hard)| hard.saturating_sub(begun.elapsed()));
    let result = timeout(left, &mut load).await;
    result.unwrap_or_else(|Elapsed| {
        running.end();
        Err(Error::of_key(key, Cause::HardTimeout(hard.unwrap_or_default())))
    })
}

/// The future of a loader. A panic in its `Drop` is contained, also if the load is dropped.
struct Running<'a, F>(Pin<&'a mut Option<F>>);

impl<F> Running<'_, F> {
    fn end(&mut self) {
        let _ = contain(|| self.0.set(None));
    }
}

impl<F> Drop for Running<'_, F> {
    fn drop(&mut self) {
        self.end();
    }
}
