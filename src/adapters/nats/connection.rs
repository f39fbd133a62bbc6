//! One connection to NATS, which ends at the first sign of a disconnect.
//!
//! The client reconnects silently, accepts commands while it is disconnected, and discards commands
//! that it had not written when it reconnects. So our connection ends at the first such sign, its
//! users get an error, and the next call opens a new one.
//!
//! Nor does the client confirm a command: its flush only empties its own buffer. We confirm it by a
//! message to ourselves, because the server processes the commands of one connection in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Message, PublishError, PublishErrorKind, Subscriber, connection::State};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    denials::{is_publish_to, is_subscription_to},
    echo::Echo,
    liveness::Liveness,
    reply_inbox::{PendingReply, ReplyInbox},
};
use crate::{
    adapters::{abort_on_drop::AbortOnDrop, task::runtime},
    bus::transport::MessageRefused,
    error::BoxError,
};

pub(crate) struct Connection {
    /// The watch task empties it when the connection ends, which closes the client at once.
    client: Arc<Mutex<Option<Client>>>,
    pub(crate) liveness: Liveness,
    pub(crate) replies: Arc<ReplyInbox>,
    pub(crate) echo: Echo,
    /// How many denials there had been at the last beacon.
    denials_at_beacon: AtomicU64,
    _watch: AbortOnDrop,
}

impl Connection {
    /// Takes over a connected client, and returns once the server has answered a first message.
    pub(crate) async fn open(
        client: Client,
        mut liveness: Liveness,
        heartbeat: Duration,
    ) -> Result<Self, BoxError> {
        liveness.watch_reconnects(client.statistics());
        if client.connection_state() != State::Connected {
            return Err("the client is not connected just now".into());
        }
        let replies = Arc::new(ReplyInbox::new(client.new_inbox()));
        let subscriber = client.subscribe(replies.subject(&"*")).await?;
        let shared = Arc::new(Mutex::new(Some(client.clone())));
        let watch = {
            let (replies, liveness, shared) =
                (Arc::clone(&replies), liveness.clone(), Arc::clone(&shared));
            async move {
                watch(&client, subscriber, &replies, &liveness, heartbeat).await;
                liveness.end();
                replies.clear();
                shared.lock().take();
            }
        };
        let watch = AbortOnDrop::spawn(&runtime()?, watch);
        let connection = Self {
            client: shared,
            liveness,
            replies,
            echo: Echo::default(),
            denials_at_beacon: AtomicU64::default(),
            _watch: watch,
        };
        connection.barrier().await?;
        Ok(connection)
    }

    pub(crate) fn client(&self) -> Result<Client, BoxError> {
        self.client.lock().clone().filter(|_| !self.liveness.has_ended()).ok_or_else(broken)
    }

    /// Hands a message to the client, which sends it in its turn.
    pub(crate) async fn send(&self, subject: &str, payload: Vec<u8>) -> Result<(), BoxError> {
        let sent = self.client()?.publish(subject.to_owned(), payload.into()).await;
        sent.map_err(refused_if_too_large)
    }

    /// Sends a beacon. Fails instead if the server has denied the one before.
    pub(crate) async fn announce(&self, subject: &str, beacon: Vec<u8>) -> Result<(), BoxError> {
        let denials = &self.liveness.denials;
        let after = self.denials_at_beacon.swap(denials.count(), Ordering::Relaxed);
        match denials.find(after, |text| is_publish_to(text, subject)) {
            Some(denial) => Err(MessageRefused::new(denial).into()),
            None => self.send(subject, beacon).await,
        }
    }

    /// Returns when the server has processed all that was sent before. It may have denied it.
    pub(crate) async fn barrier(&self) -> Result<(), BoxError> {
        // Registered before the client is taken, so that an end of the connection in between is
        // noticed: it clears the registered requests.
        let reply = self.replies.expect();
        let after = self.liveness.denials.count();
        self.send(&reply.subject, Vec::new()).await?;
        let subject = reply.subject.clone();
        self.received(reply, &subject, after).await.map(drop)
    }

    /// Publishes, and returns the first reply.
    pub(crate) async fn request(
        &self,
        subject: &str,
        payload: Vec<u8>,
    ) -> Result<Message, BoxError> {
        self.request_after(self.liveness.denials.count(), subject, payload).await
    }

    /// Publishes, and returns the first reply, or the echo that the connection receives. Denials up
    /// to number `after` are of earlier commands.
    ///
    /// Alternatives considered: the client's `request`, which remembers unanswered ones for ever.
    async fn request_after(
        &self,
        after: u64,
        subject: &str,
        payload: Vec<u8>,
    ) -> Result<Message, BoxError> {
        let reply = self.replies.expect();
        let (to, reply_to) = (subject.to_owned(), reply.subject.clone());
        let sent = self.client()?.publish_with_reply(to, reply_to, payload.into()).await;
        sent.map_err(refused_if_too_large)?;
        self.received(reply, subject, after).await
    }

    /// Publishes to instances, and returns once its echo is back.
    pub(crate) async fn publish(&self, subject: &str, message: Vec<u8>) -> Result<(), BoxError> {
        let after = self.liveness.denials.count();
        let _reader = self.echo.reader(&self.client()?, &self.replies, subject).await?;
        // mutant nats-echo: => self.send(subject, message).await?; self.barrier().await
        self.request_after(after, subject, message).await.map(drop)
    }

    /// Waits for the reply to a message of this subject, or until the server has denied it.
    async fn received(
        &self,
        mut reply: PendingReply<'_>,
        subject: &str,
        after: u64,
    ) -> Result<Message, BoxError> {
        let (denials, inbox) = (&self.liveness.denials, self.replies.subject(&"*"));
        let is_ours = |text: &str| {
            [subject, &reply.subject].iter().any(|it| is_publish_to(text, it))
                || is_subscription_to(text, subject)
        };
        let denial = tokio::select! {
            biased;
            message = &mut reply.receiver => {
                let message = message.map_err(|_| broken())?;
                // A reply over a new connection proves nothing about the writes of the old one.
                return if self.liveness.has_ended() { Err(broken()) } else { Ok(message) };
            }
            denial = denials.wait(after, is_ours) => denial,
            denial = denials.wait(0, |text| is_subscription_to(text, &inbox)) => denial,
        };
        let is_refused = is_publish_to(&denial, subject) && subject != reply.subject;
        Err(if is_refused { MessageRefused::new(denial).into() } else { denial.into() })
    }
}

fn refused_if_too_large(error: PublishError) -> BoxError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => MessageRefused::new(error).into(),
        _ => error.into(),
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.liveness.end();
    }
}

fn broken() -> BoxError {
    "the connection to NATS broke".into()
}

/// How many bytes per heartbeat are a flood, which holds up the reply of a server that works.
const FLOOD: u64 = 1 << 20;

/// Delivers replies, and sends a heartbeat when none has come back for one interval. Returns when a
/// heartbeat stays unanswered for one and a half intervals without a flood, or the connection has
/// ended.
async fn watch(
    client: &Client,
    mut subscriber: Subscriber,
    replies: &ReplyInbox,
    liveness: &Liveness,
    heartbeat: Duration,
) {
    let statistics = client.statistics();
    let received = || statistics.in_bytes.load(Ordering::Relaxed);
    // The bytes received when the last heartbeat was sent, until it is answered.
    let mut unanswered = None;
    let mut next = Instant::now() + heartbeat;
    loop {
        tokio::select! {
            biased;
            message = subscriber.next() => match message {
                Some(message) => if replies.deliver(message) {
                    unanswered = None;
                    next = Instant::now() + heartbeat;
                },
                None => return,
            },
            () = liveness.ended() => {}
            () = sleep_until(next) => {
                next = Instant::now() + heartbeat.mul_f32(1.5);
                if let Some(before) = unanswered.replace(received()) {
                    if received() - before < FLOOD {
                        return;
                    }
                    continue;
                }
                // While the command queue of the client is full, this waits; no reply comes either.
                let subject = replies.subject(&ReplyInbox::HEARTBEAT);
                let publish = client.publish(subject, Vec::new().into());
                let _ = timeout_at(next, publish).await;
            }
        }
        if liveness.has_ended() || client.connection_state() != State::Connected {
            return;
        }
    }
}
