//! Calls a loader: contains its panics and enforces its hard timeout.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use super::{IntoLoaded, Loaded, Loader};
use crate::{
    error::{Cause, Error},
    resilience::{Elapsed, timeout},
};

/// Calls the loader and returns its answer. Its error, its panic (also one while its future is
/// created or dropped), its hard timeout and a missing runtime become an [`Error`].
///
/// Cancel safe: dropping the future drops the loader.
pub(crate) async fn run_contained<V, L: Loader<V>>(
    key: &Arc<str>,
    loader: L,
    hard: Option<Duration>,
) -> Result<Loaded<V>, Error> {
    let begun = hard.map(|_| Instant::now());
    let mut future = pin!(match catch_unwind(AssertUnwindSafe(|| loader.load())) {
        Ok(future) => Some(future),
        Err(panic) => return Err(Error::of_key(key, Cause::Panicked(message(&*panic)))),
    });
    let mut load = poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let Some(running) = future.as_mut().as_pin_mut() else { return Poll::Pending };
            let result = ready!(running.poll(context));
            future.set(None);
            Poll::Ready(match result {
                Ok(loaded) => Ok(loaded.into_loaded()),
                Err(error) => Err(Error::of_key(key, Cause::Loader(error.into()))),
            })
        }));
        polled.unwrap_or_else(|panic| {
            drop_quietly(future.as_mut());
            Poll::Ready(Err(Error::of_key(key, Cause::Panicked(message(&*panic)))))
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
        drop_quietly(future.as_mut());
        Err(Error::of_key(key, Cause::HardTimeout(hard.unwrap_or_default())))
    })
}

/// Drops a loader that did not end. Ignores a panic in its `Drop`, which the panic hook has
/// reported already.
fn drop_quietly<F>(mut future: Pin<&mut Option<F>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| future.set(None)));
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(a panic without a message)".to_owned())
}
