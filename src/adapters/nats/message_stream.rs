//! A subscription to a NATS subject, its beacons and its probes.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::task::unconstrained;

use super::{connection::Connection, connector::CLIENT_QUEUE, options::NatsOptions};
use crate::{
    adapters::task::{AbortOnDrop, runtime},
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream, Prober, TransportFuture},
    },
    error::BoxError,
};

pub(crate) struct NatsMessageStream {
    inbox: Arc<Inbox>,
    _reader: AbortOnDrop,
    /// Keeps the connection open for as long as the subscription.
    _connection: Arc<Connection>,
}

/// Sends the probes of one subscription to a subject that only it receives.
pub(crate) struct NatsProber {
    connection: Arc<Connection>,
    subject: String,
}

impl NatsMessageStream {
    /// Subscribes, and reads in a task of its own, not only when the subscriber polls: the client
    /// never reports that its queue has overflowed, and our inbox turns overflow into a gap.
    pub(crate) async fn open(
        connection: Arc<Connection>,
        options: &NatsOptions,
    ) -> Result<(Self, NatsProber), BoxError> {
        let client = connection.client()?;
        let probes = client.new_inbox();
        let inbox = Inbox::bounded(options.queue_capacity, 32 << 20);
        let reader = Reader {
            messages: client.subscribe(options.subject.clone()).await?,
            beacons: client.subscribe(beacons_of(&options.subject)).await?,
            probes: client.subscribe(probes.clone()).await?,
            connection: Arc::clone(&connection),
            inbox: Arc::clone(&inbox),
            unbroken: 0,
            due: None,
        };
        let reader = AbortOnDrop::spawn(&runtime()?, unconstrained(reader.run()));
        let prober = NatsProber { connection: Arc::clone(&connection), subject: probes };
        Ok((Self { inbox, _reader: reader, _connection: connection }, prober))
    }
}

/// The subject of the beacons of the instances whose messages have this subject.
pub(crate) fn beacons_of(subject: &str) -> String {
    format!("{subject}.beacons")
}

impl MessageStream for NatsMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}

impl Prober for NatsProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(self.connection.send(&self.subject, number.to_string().into_bytes()))
    }
}

/// Empties the queues of the client into the inbox. It runs outside of tokio's budget, so a queue
/// that is pending is empty.
struct Reader {
    messages: Subscriber,
    beacons: Subscriber,
    probes: Subscriber,
    connection: Arc<Connection>,
    inbox: Arc<Inbox>,
    /// How many messages were taken since the client's queue was last empty.
    unbroken: usize,
    /// A probe that has arrived, and how many more messages may have arrived before it. The client
    /// has a queue for each subscription; the messages that arrived before the probe are in the
    /// queue of the messages by the time that the probe is in its own.
    due: Option<(u64, usize)>,
}

/// How many bytes the reader copies before other tasks have their turn. A message counts as
/// [`MESSAGE_COST`] bytes more.
const BYTES_PER_TURN: usize = 4 << 20;
const MESSAGE_COST: usize = 1 << 10;

impl Reader {
    async fn run(mut self) {
        let connection = Arc::clone(&self.connection);
        tokio::select! {
            biased;
            () = connection.liveness.ended() => {}
            () = poll_fn(|context| self.poll_read(context)) => {}
        }
        self.inbox.push(Delivery::Closed);
    }

    /// Is ready when the client has ended the subscription.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut copied = 0;
        while copied < BYTES_PER_TURN {
            if let Poll::Ready(message) = self.messages.poll_next_unpin(context) {
                let Some(message) = self.alive(message) else { return Poll::Ready(()) };
                copied += message.payload.len() + MESSAGE_COST;
                self.on_message(&message);
                continue;
            }
            self.unbroken = 0;
            if let Some((number, _)) = self.due.take() {
                self.inbox.push(Delivery::Probe(number));
            }
            if let Poll::Ready(probe) = self.probes.poll_next_unpin(context) {
                let Some(probe) = self.alive(probe) else { return Poll::Ready(()) };
                copied += MESSAGE_COST;
                let number =
                    std::str::from_utf8(&probe.payload).ok().and_then(|it| it.parse().ok());
                self.due = number.map(|number| (number, CLIENT_QUEUE));
            } else if let Poll::Ready(beacon) = self.beacons.poll_next_unpin(context) {
                let Some(beacon) = self.alive(beacon) else { return Poll::Ready(()) };
                copied += beacon.payload.len() + MESSAGE_COST;
                self.inbox.push(Delivery::Message(beacon.payload.to_vec()));
            } else {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// A message that came over a later connection of the client is none of ours.
    fn alive(&self, message: Option<Message>) -> Option<Message> {
        message.filter(|_| !self.connection.liveness.has_ended())
    }

    fn on_message(&mut self, message: &Message) {
        self.inbox.push(Delivery::Message(message.payload.to_vec()));
        // The client drops a message if its queue is full. Then at least as many messages as the
        // queue holds are taken without a pause, and the last of them after the loss.
        self.unbroken += 1;
        if self.unbroken == CLIENT_QUEUE {
            self.unbroken = 0;
            self.inbox.push(Delivery::Gap);
        }
        if let Some((number, left)) = &mut self.due {
            *left -= 1;
            if *left == 0 {
                let number = *number;
                self.due = None;
                self.inbox.push(Delivery::Probe(number));
            }
        }
    }
}
