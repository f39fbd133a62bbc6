//! A bounded queue of received messages that turns overflow into a gap.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::transport::{Delivery, MessageStream};

/// The queue between a transport, which pushes, and the subscriber, which polls. As a
/// [`MessageStream`] it may have one reader at a time.
pub(crate) struct Inbox(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    messages: VecDeque<Vec<u8>>,
    capacity: usize,
    /// Returned before the queued messages, which all arrived after the gap.
    gap: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Inbox {
    pub(crate) fn with_capacity(capacity: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { capacity, ..Inner::default() })))
    }

    /// Queues a delivery. A message that finds the queue full replaces the queued ones by one gap.
    /// A gap and the end of the subscription also discard the queued messages, because they cover
    /// them; so the end does not wait for a slow subscriber.
    pub(crate) fn push(&self, delivery: Delivery) {
        let mut inner = self.0.lock();
        let is_full = inner.messages.len() >= inner.capacity;
        if is_full || !matches!(delivery, Delivery::Message(_)) {
            inner.messages.clear();
        }
        inner.gap |= is_full || delivery == Delivery::Gap;
        match delivery {
            Delivery::Message(message) => inner.messages.push_back(message),
            Delivery::Gap => {}
            Delivery::Closed => inner.closed = true,
        }
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_next(&self, context: &Context<'_>) -> Poll<Delivery> {
        let waker = context.waker().clone();
        let mut inner = self.0.lock();
        if inner.closed {
            return Poll::Ready(Delivery::Closed);
        }
        if std::mem::take(&mut inner.gap) {
            return Poll::Ready(Delivery::Gap);
        }
        if let Some(message) = inner.messages.pop_front() {
            return Poll::Ready(Delivery::Message(message));
        }
        let old = inner.waker.replace(waker);
        drop(inner);
        drop(old);
        Poll::Pending
    }
}

impl MessageStream for Arc<Inbox> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(poll_fn(|context| self.poll_next(context)))
    }
}
