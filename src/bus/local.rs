//! The transport within one process: for several caches in it, and for tests.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::transport::{Delivery, MessageStream, Subscribed, Transport, TransportFuture};

/// A [`Transport`] within one process. Clones are the same one.
///
/// A publish that has returned is in the queue of every subscriber; per publisher in order.
/// Nothing is lost but by a subscriber that falls behind by more than its queue holds: it is told
/// so by a [`Delivery::Gap`], and what was queued is dropped, being covered by the gap.
#[derive(Clone)]
pub struct LocalTransport(Arc<Inner>);

struct Inner {
    /// Queues live as long as their subscriptions do.
    queues: Mutex<Vec<Weak<Mutex<Queue>>>>,
    capacity: usize,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Vec<u8>>,
    /// Told before the events that came after it.
    gap: bool,
    waker: Option<Waker>,
}

impl LocalTransport {
    /// How many events a subscriber may fall behind by default.
    pub const CAPACITY: usize = 10_000;

    /// With queues of [`CAPACITY`](Self::CAPACITY).
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// With queues of this length. Zero counts as one.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Inner { queues: Mutex::default(), capacity: capacity.max(1) }))
    }
}

impl Default for LocalTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTransport").finish_non_exhaustive()
    }
}

impl Transport for LocalTransport {
    fn name(&self) -> &'static str {
        "local"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let mut wakers = Vec::new();
            self.0.queues.lock().retain(|queue| {
                let Some(queue) = queue.upgrade() else { return false };
                let mut queue = queue.lock();
                if queue.events.len() == self.0.capacity {
                    queue.events.clear();
                    queue.gap = true;
                }
                queue.events.push_back(event.to_vec());
                wakers.extend(queue.waker.take());
                true
            });
            wakers.into_iter().for_each(Waker::wake);
            Ok(())
        })
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let queue = Arc::new(Mutex::new(Queue::default()));
            let mut queues = self.0.queues.lock();
            queues.retain(|queue| queue.strong_count() > 0);
            queues.push(Arc::downgrade(&queue));
            Ok(Subscribed { messages: Box::new(LocalEvents(queue)), resumed: false })
        })
    }

    fn check(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

struct LocalEvents(Arc<Mutex<Queue>>);

impl LocalEvents {
    fn poll_next(&self, context: &Context<'_>) -> Poll<Delivery> {
        let waker = context.waker().clone();
        let mut queue = self.0.lock();
        if std::mem::take(&mut queue.gap) {
            return Poll::Ready(Delivery::Gap);
        }
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Delivery::Message(event));
        }
        let old = queue.waker.replace(waker);
        drop(queue);
        drop(old);
        Poll::Pending
    }
}

impl MessageStream for LocalEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(poll_fn(|context| self.poll_next(context)))
    }
}
