//! What has come in and was not taken yet: bounded, and honest about what it dropped.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::transport::Delivery;

/// A bounded queue between the task that receives and whoever asks for what comes next. Clones
/// are the same one.
#[derive(Clone)]
pub(crate) struct Queue(Arc<Mutex<Inner>>);

struct Inner {
    events: VecDeque<Vec<u8>>,
    capacity: usize,
    /// Told before the events that came after it.
    gap: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            events: VecDeque::new(),
            capacity,
            gap: false,
            closed: false,
            waker: None,
        })))
    }

    /// Events beyond the bound become one gap. A gap, or the end, covers what was queued, which is
    /// dropped: an end is not to wait for a reader who is busy with it.
    pub(crate) fn put(&self, delivery: Delivery) {
        self.change(|inner| {
            let is_over = inner.events.len() >= inner.capacity;
            if is_over || !matches!(delivery, Delivery::Message(_)) {
                inner.events.clear();
            }
            inner.gap |= is_over || delivery == Delivery::Gap;
            match delivery {
                Delivery::Message(event) => inner.events.push_back(event),
                Delivery::Gap => {}
                Delivery::Closed => inner.closed = true,
            }
        });
    }

    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Delivery> {
        let waker = context.waker().clone();
        let mut inner = self.0.lock();
        if inner.closed {
            return Poll::Ready(Delivery::Closed);
        }
        if std::mem::take(&mut inner.gap) {
            return Poll::Ready(Delivery::Gap);
        }
        if let Some(event) = inner.events.pop_front() {
            return Poll::Ready(Delivery::Message(event));
        }
        let old = inner.waker.replace(waker);
        drop(inner);
        drop(old);
        Poll::Pending
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.0.lock();
        change(&mut inner);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
