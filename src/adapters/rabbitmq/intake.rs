//! The queue between the client's thread, which receives, and the subscriber: bounded in bytes.
//!
//! The client calls the delegate of a consumer in its own thread, message by message. So the bound
//! holds also while the runtime is busy. The prefetch bounds the number of messages: the broker
//! sends no more until the subscriber has processed one.

use std::{
    collections::VecDeque,
    future::{poll_fn, ready},
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
};

use lapin::{Acker, ConsumerDelegate, message};
use parking_lot::Mutex;

use super::probe_message;
use crate::bus::transport::Delivery;

/// A message that the broker considers delivered until it is acknowledged.
pub(crate) struct Item {
    tag: u64,
    pub(crate) acker: Acker,
    /// `None` if the subscriber need not see the message.
    pub(crate) delivery: Option<Delivery>,
    is_beacon: bool,
}

pub(crate) struct Intake(Mutex<Inner>);

struct Inner {
    queue: VecDeque<Item>,
    /// The bytes of the queued messages.
    bytes: usize,
    max_bytes: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

/// Why a subscription ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The consumer or its connection has ended.
    Closed,
    /// This many messages filled the queue, and the broker has sent another one.
    Overflow(u16),
}

/// What a consumer receives.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Messages, and the probes that carry the tag of this consumer.
    Queue(String),
    /// Beacons, which may be dropped.
    Beacons,
}

impl Intake {
    pub(crate) fn bounded(max_bytes: usize) -> Arc<Self> {
        let queue = VecDeque::new();
        Arc::new(Self(Mutex::new(Inner { queue, bytes: 0, max_bytes, end: None, waker: None })))
    }

    /// Queues what a consumer has received.
    pub(crate) fn push(&self, received: message::Delivery, source: &Source) {
        self.update(|inner| inner.push(received, source));
    }

    /// Ends the queue and discards the queued messages: they are not acknowledged.
    fn close(&self) {
        self.update(|inner| inner.close(End::Closed));
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.0.lock().end
    }

    /// Returns the next item, or `None` after the end. Cancel safe.
    pub(crate) async fn next(&self) -> Option<Item> {
        poll_fn(|context| {
            let waker = context.waker().clone();
            let mut inner = self.0.lock();
            if inner.end.is_some() {
                return Poll::Ready(None);
            }
            if let Some(item) = inner.queue.pop_front() {
                inner.bytes -= item.bytes();
                return Poll::Ready(Some(item));
            }
            let old = inner.waker.replace(waker);
            drop(inner);
            drop(old);
            Poll::Pending
        })
        .await
    }

    /// Runs `change` under the lock. Drops what it removes, and wakes the reader, after it.
    fn update(&self, change: impl FnOnce(&mut Inner) -> VecDeque<Item>) {
        let mut inner = self.0.lock();
        let discarded = change(&mut inner);
        let waker = inner.waker.take();
        drop(inner);
        drop(discarded);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Inner {
    fn push(&mut self, received: message::Delivery, source: &Source) -> VecDeque<Item> {
        if self.end.is_some() {
            return VecDeque::new();
        }
        let mut item = Item::new(received, source);
        if item.bytes() > self.max_bytes {
            item.delivery = (!item.is_beacon).then_some(Delivery::Gap);
        }
        if item.bytes() > self.max_bytes.saturating_sub(self.bytes) {
            self.drop_beacons();
        }
        if item.bytes() > self.max_bytes.saturating_sub(self.bytes) {
            if !item.is_beacon {
                // mutant intake-bound: remove
                return self.overflow();
            }
            item.delivery = None;
        }
        self.bytes += item.bytes();
        // A message that came before its consumer had a delegate is pushed late.
        let at = self.queue.partition_point(|queued| queued.tag < item.tag);
        self.queue.insert(at, item);
        VecDeque::new()
    }

    /// Beacons may be lost. They remain in the queue without their bytes, to be acknowledged.
    fn drop_beacons(&mut self) {
        for item in self.queue.iter_mut().filter(|item| item.is_beacon) {
            self.bytes -= item.bytes();
            item.delivery = None;
        }
    }

    fn overflow(&mut self) -> VecDeque<Item> {
        let is_message = |item: &&Item| matches!(item.delivery, Some(Delivery::Message(_)));
        let fitted = self.queue.iter().filter(is_message).count();
        self.close(End::Overflow(u16::try_from(fitted).unwrap_or(u16::MAX)))
    }

    fn close(&mut self, end: End) -> VecDeque<Item> {
        self.end.get_or_insert(end);
        self.bytes = 0;
        std::mem::take(&mut self.queue)
    }
}

impl Item {
    fn new(received: message::Delivery, source: &Source) -> Self {
        let own_probe = |tag: &str| matches!(source, Source::Queue(own) if own.as_str() == tag);
        let delivery = match probe_message::parse(&received) {
            Some((tag, number)) if own_probe(tag) => Some(Delivery::Probe(number)),
            // An earlier subscription to a durable queue has sent it.
            Some(_) => None,
            None => Some(Delivery::Message(Vec::new())),
        };
        let message::Delivery { delivery_tag: tag, acker, mut data, .. } = received;
        // The client collects the frames of a message in a vector that doubles its capacity.
        data.shrink_to_fit();
        let delivery = delivery.map(|delivery| match delivery {
            Delivery::Message(_) => Delivery::Message(data),
            other => other,
        });
        Self { tag, acker, delivery, is_beacon: matches!(source, Source::Beacons) }
    }

    fn bytes(&self) -> usize {
        match &self.delivery {
            Some(Delivery::Message(message)) => message.len(),
            _ => 0,
        }
    }
}

/// The delegate of a consumer.
pub(crate) struct Feed {
    pub(crate) intake: Arc<Intake>,
    pub(crate) source: Source,
}

impl ConsumerDelegate for Feed {
    fn on_new_delivery(
        &self,
        received: message::DeliveryResult,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match received {
            Ok(Some(received)) => self.intake.push(received, &self.source),
            Ok(None) | Err(_) => self.intake.close(),
        }
        Box::pin(ready(()))
    }
}

/// The client drops the delegate of a consumer that has ended.
impl Drop for Feed {
    fn drop(&mut self) {
        self.intake.close();
    }
}
