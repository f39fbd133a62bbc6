//! Waits for several futures at the same time.

use std::{future::poll_fn, pin::Pin, task::Poll};

pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Polls all futures until each is ready. Returns their outputs in the order of the futures.
pub(super) async fn join_all<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    enum Slot<'a, T> {
        Waits(BoxFuture<'a, T>),
        Ready(T),
    }
    let mut slots: Vec<_> = futures.into_iter().map(Slot::Waits).collect();
    poll_fn(|context| {
        let mut is_ready = true;
        for slot in &mut slots {
            if let Slot::Waits(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Ready(output),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let output = |slot| match slot {
        Slot::Ready(output) => Some(output),
        Slot::Waits(_) => None,
    };
    slots.into_iter().filter_map(output).collect()
}
