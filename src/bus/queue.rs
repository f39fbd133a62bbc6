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
pub(super) struct Queue(Arc<Mutex<Inner>>);

struct Inner {
    events: VecDeque<Vec<u8>>,
    capacity: usize,
    /// Told before the events that came after it.
    gap: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            events: VecDeque::new(),
            capacity,
            gap: false,
            closed: false,
            waker: None,
        })))
    }

    /// Beyond the bound all of it becomes one gap.
    pub(super) fn push(&self, event: Vec<u8>) {
        self.change(|inner| {
            if inner.events.len() >= inner.capacity {
                inner.events.clear();
                inner.gap = true;
            }
            inner.events.push_back(event);
        });
    }

    /// What was queued is dropped: the gap covers it.
    pub(super) fn gap(&self) {
        self.change(|inner| {
            inner.events.clear();
            inner.gap = true;
        });
    }

    /// Nothing comes any more. What was queued is dropped: the end covers it, and is not to wait
    /// for a reader who is busy with it.
    pub(super) fn close(&self) {
        self.change(|inner| {
            inner.events.clear();
            inner.closed = true;
        });
    }

    pub(super) fn poll_next(&self, context: &Context<'_>) -> Poll<Delivery> {
        let waker = context.waker().clone();
        let mut inner = self.0.lock();
        if inner.closed {
            return Poll::Ready(Delivery::Closed);
        }
        if std::mem::take(&mut inner.gap) {
            return Poll::Ready(Delivery::Gap);
        }
        if let Some(event) = inner.events.pop_front() {
            return Poll::Ready(Delivery::Event(event));
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
