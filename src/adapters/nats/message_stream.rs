//! A subscription to a NATS subject.

use std::{pin::Pin, sync::Arc};

use async_nats::Subscriber;
use futures_util::StreamExt;

use super::{connection::Connection, liveness::Liveness, options::NatsOptions};
use crate::{
    adapters::task::{AbortOnDrop, runtime},
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
};

pub(crate) struct NatsMessageStream {
    inbox: Arc<Inbox>,
    _reader: AbortOnDrop,
    /// Keeps the connection open for as long as the subscription.
    _connection: Arc<Connection>,
}

impl NatsMessageStream {
    /// Subscribes, and reads in a task of its own, not only when the subscriber polls: overflow of
    /// the client's queue is silent, overflow of our inbox becomes a gap.
    pub(crate) async fn open(
        connection: Arc<Connection>,
        options: &NatsOptions,
    ) -> Result<Self, BoxError> {
        let subscriber = connection.client()?.subscribe(options.subject.clone()).await?;
        let inbox = Inbox::bounded(options.queue_capacity, 32 << 20);
        let reading = read(subscriber, connection.liveness.clone(), Arc::clone(&inbox));
        let reader = AbortOnDrop::spawn(&runtime()?, reading);
        Ok(Self { inbox, _reader: reader, _connection: connection })
    }
}

async fn read(mut subscriber: Subscriber, liveness: Liveness, inbox: Arc<Inbox>) {
    let mut dropped = liveness.dropped();
    loop {
        tokio::select! {
            biased;
            () = liveness.wait_end_or_drop(dropped) => {}
            message = subscriber.next() => match message {
                Some(message) if !liveness.has_ended() => {
                    inbox.push(Delivery::Message(message.payload.to_vec()));
                }
                _ => return inbox.push(Delivery::Closed),
            },
        }
        if liveness.has_ended() {
            return inbox.push(Delivery::Closed);
        }
        if dropped != liveness.dropped() {
            dropped = liveness.dropped();
            inbox.push(Delivery::Gap);
        }
    }
}

impl MessageStream for NatsMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}
