//! A bounded queue of received messages that turns overflow into a gap.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::transport::{Delivery, MessageStream, Prober, TransportFuture};

/// The queue between a transport, which pushes, and the subscriber, which polls. As a
/// [`MessageStream`] it may have one reader at a time.
pub(crate) struct Inbox(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Messages and probes.
    queue: VecDeque<Delivery>,
    /// The bytes of the queued messages.
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    /// Returned before the queued messages, which all arrived after the gap.
    gap: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Inbox {
    /// A queue of at most this many messages and bytes.
    pub(crate) fn bounded(max_messages: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { max_messages, max_bytes, ..Inner::default() })))
    }

    /// Queues a delivery. A message that would exceed a bound of the queue replaces the queued ones
    /// by one gap, and is queued if it is within the bounds alone. A gap and the end of the
    /// subscription also discard the queued messages, because they cover them; so the end does
    /// not wait for a slow subscriber. A probe that finds the queue full is lost: the subscriber is
    /// behind by a whole queue.
    pub(crate) fn push(&self, delivery: Delivery) {
        let mut inner = self.0.lock();
        let discarded = match delivery {
            Delivery::Message(message) => inner.push_message(message),
            Delivery::Probe(_) => {
                if inner.queue.len() < inner.max_messages {
                    inner.queue.push_back(delivery);
                }
                VecDeque::new()
            }
            Delivery::Gap => inner.turn_into_gap(),
            Delivery::Closed => {
                inner.closed = true;
                inner.clear()
            }
        };
        let waker = inner.waker.take();
        drop(inner);
        drop(discarded);
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
        if let Some(delivery) = inner.queue.pop_front() {
            if let Delivery::Message(message) = &delivery {
                inner.bytes -= message.len();
            }
            return Poll::Ready(delivery);
        }
        let old = inner.waker.replace(waker);
        drop(inner);
        drop(old);
        Poll::Pending
    }
}

impl Inner {
    /// Returns what no longer waits, to be dropped after the lock is released.
    fn push_message(&mut self, message: Vec<u8>) -> VecDeque<Delivery> {
        // mutant inbox-bytes: s/self.max_bytes;/usize::MAX;/
        let is_full = self.queue.len() >= self.max_messages
            || self.bytes.saturating_add(message.len()) > self.max_bytes;
        let discarded = if is_full { self.turn_into_gap() } else { VecDeque::new() };
        if message.len() <= self.max_bytes {
            self.bytes += message.len();
            self.queue.push_back(Delivery::Message(message));
        }
        discarded
    }

    fn turn_into_gap(&mut self) -> VecDeque<Delivery> {
        self.gap = true;
        self.clear()
    }

    fn clear(&mut self) -> VecDeque<Delivery> {
        self.bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

impl MessageStream for Arc<Inbox> {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(poll_fn(|context| self.poll_next(context)))
    }
}

/// The prober of a transport whose publish pushes straight into the inboxes: a probe is behind the
/// messages that were pushed before it.
impl Prober for Arc<Inbox> {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.push(Delivery::Probe(number));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(inbox: &Inbox) -> Vec<Delivery> {
        let context = Context::from_waker(Waker::noop());
        std::iter::from_fn(|| match inbox.poll_next(&context) {
            Poll::Ready(delivery) => Some(delivery),
            Poll::Pending => None,
        })
        .collect()
    }

    #[test]
    fn the_bytes_and_the_count_are_bounded_and_overflow_is_one_gap() {
        let message = |len: usize| Delivery::Message(vec![0; len]);
        let inbox = Inbox::bounded(3, 10);
        [message(4), Delivery::Probe(1), message(6)].into_iter().for_each(|it| inbox.push(it));
        assert_eq!(take_all(&inbox), [message(4), Delivery::Probe(1), message(6)]);
        [message(4), message(6), message(1)].into_iter().for_each(|it| inbox.push(it));
        assert_eq!(take_all(&inbox), [Delivery::Gap, message(1)]);
        [1, 1, 1, 1, 2].into_iter().for_each(|len| inbox.push(message(len)));
        assert_eq!(take_all(&inbox), [Delivery::Gap, message(1), message(2)]);
        inbox.push(message(11));
        inbox.push(message(1));
        assert_eq!(take_all(&inbox), [Delivery::Gap, message(1)], "too large for any queue");
    }
}
