//! A subscription to a NATS subject, its beacons and its probes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;

use super::{
    connection::Connection, connector::CLIENT_QUEUE, denials::is_subscription_to, inline::Inline,
    options::NatsOptions,
};
use crate::{
    adapters::{abort_on_drop::AbortOnDrop, task::runtime},
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream, Prober, TransportFuture},
    },
    error::BoxError,
};

pub(crate) struct NatsMessageStream {
    inbox: Arc<Inbox>,
    _reader: Arc<AbortOnDrop>,
    /// Keeps the connection open for as long as the subscription.
    connection: Arc<Connection>,
    subjects: Subjects,
}

/// The subjects of one subscription, and how many denials there were before it.
#[derive(Clone)]
struct Subjects {
    all: [String; 3],
    after: u64,
}

impl Subjects {
    fn are_denied(&self, text: &str) -> bool {
        self.all.iter().any(|subject| is_subscription_to(text, subject))
    }
}

/// Sends the probes of one subscription to a subject that only it receives.
pub(crate) struct NatsProber {
    connection: Arc<Connection>,
    subject: String,
}

impl NatsMessageStream {
    /// Subscribes, and reads as soon as the client has queued a message, not only when the
    /// subscriber polls: the inbox has a bound in bytes, and turns overflow into a gap.
    pub(crate) async fn open(
        connection: Arc<Connection>,
        options: &NatsOptions,
    ) -> Result<(Self, NatsProber), BoxError> {
        let client = connection.client()?;
        let (subject, probes) = (&options.subject, client.new_inbox());
        let beacons = beacons_of(subject);
        let after = connection.liveness.denials.count();
        let inbox = Inbox::bounded(options.queue_capacity, options.queue_max_bytes);
        let reader = Reader {
            messages: client.subscribe(subject.clone()).await?,
            beacons: client.subscribe(beacons.clone()).await?,
            probes: client.subscribe(probes.clone()).await?,
            connection: Arc::clone(&connection),
            inbox: Arc::clone(&inbox),
            unbroken: 0,
            due: None,
        };
        let subjects = Subjects { all: [subject.clone(), beacons, probes.clone()], after };
        let reading = reader.run(subjects.clone());
        let reader = Arc::new(AbortOnDrop::spawn(&runtime()?, reading));
        connection.echo.use_reader(&reader);
        let prober = NatsProber { connection: Arc::clone(&connection), subject: probes };
        Ok((Self { inbox, _reader: reader, connection, subjects }, prober))
    }

    pub(crate) fn check_not_denied(&self) -> Result<(), BoxError> {
        let denials = &self.connection.liveness.denials;
        let denial = denials.find(self.subjects.after, |text| self.subjects.are_denied(text));
        denial.map_or(Ok(()), |denial| Err(denial.into()))
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

/// Moves what the client queues into the inbox.
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

impl Reader {
    async fn run(mut self, subjects: Subjects) {
        let (liveness, inbox) = (self.connection.liveness.clone(), Arc::clone(&self.inbox));
        tokio::select! {
            biased;
            () = liveness.ended() => {}
            _ = liveness.denials.wait(subjects.after, |text| subjects.are_denied(text)) => {}
            () = Inline::run(move |context| self.poll_read(context)) => {}
        }
        inbox.push(Delivery::Closed);
    }

    /// Is ready when the client has ended the subscription.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(message) = self.messages.poll_next_unpin(context) {
                let Some(message) = self.alive(message) else { return Poll::Ready(()) };
                self.on_message(&message);
                continue;
            }
            self.unbroken = 0;
            if let Some((number, _)) = self.due.take() {
                self.inbox.push(Delivery::Probe(number));
            }
            if let Poll::Ready(probe) = self.probes.poll_next_unpin(context) {
                let Some(probe) = self.alive(probe) else { return Poll::Ready(()) };
                let text = std::str::from_utf8(&probe.payload);
                let number = text.ok().and_then(|number| number.parse().ok());
                self.due = number.map(|number| (number, CLIENT_QUEUE));
            } else if let Poll::Ready(beacon) = self.beacons.poll_next_unpin(context) {
                let Some(beacon) = self.alive(beacon) else { return Poll::Ready(()) };
                self.inbox.push(Delivery::Message(beacon.payload.to_vec()));
            } else {
                return Poll::Pending;
            }
        }
    }

    /// A message that came over a later connection of the client is none of ours.
    fn alive(&self, message: Option<Message>) -> Option<Message> {
        message.filter(|_| !self.connection.liveness.has_ended())
    }

    fn on_message(&mut self, message: &Message) {
        self.connection.replies.confirm(message);
        self.inbox.push(Delivery::Message(message.payload.to_vec()));
        // The client drops a message if its queue is full, which may happen while another thread
        // is reading. Then at least as many messages as the queue holds are taken without a pause,
        // the last of them after the loss.
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
