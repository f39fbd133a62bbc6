//! A subscription to a subject.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use async_nats::Subscriber;
use futures_util::StreamExt;

use super::connection::{Link, Vitals};
use crate::{
    adapters::task::{Task, runtime},
    bus::{
        inbox::Queue,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
};

pub(crate) struct NatsEvents {
    queue: Queue,
    _reader: Task,
    /// The connection lives as long as the subscription.
    _link: Arc<Link>,
}

impl NatsEvents {
    /// Reads all the time, not only when asked: what waits in the client's own queue is dropped
    /// in silence where that runs over, in ours it becomes a gap.
    pub(crate) async fn of(
        link: Arc<Link>,
        subject: &str,
        capacity: usize,
    ) -> Result<Self, BoxError> {
        let subscriber = link.client()?.subscribe(subject.to_owned()).await?;
        let queue = Queue::with_capacity(capacity);
        let reading = read(subscriber, link.vitals().clone(), queue.clone());
        Ok(Self { queue, _reader: Task::on(&runtime()?, reading), _link: link })
    }
}

async fn read(mut subscriber: Subscriber, vitals: Vitals, queue: Queue) {
    let mut dropped = vitals.dropped();
    loop {
        tokio::select! {
            biased;
            () = vitals.worse_than(dropped) => {}
            message = subscriber.next() => match message {
                Some(message) if !vitals.is_over() => queue.put(Delivery::Message(message.payload.to_vec())),
                _ => return queue.put(Delivery::Closed),
            },
        }
        if vitals.is_over() {
            return queue.put(Delivery::Closed);
        }
        if dropped != vitals.dropped() {
            dropped = vitals.dropped();
            queue.put(Delivery::Gap);
        }
    }
}

impl MessageStream for NatsEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(poll_fn(|context| self.queue.poll_next(context)))
    }
}
