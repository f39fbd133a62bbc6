//! One connection to NATS, which ends at the first sign of a disconnect.
//!
//! The client reconnects silently, accepts commands while it is disconnected, and discards commands
//! that it had not written when it reconnects. So our connection ends at the first such sign, its
//! users get an error, and the next call opens a new one.
//!
//! Nor does the client confirm a publish: its flush only empties its own buffer. We confirm it by a
//! message to ourselves, because the server processes the commands of one connection in order.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, Message, Subscriber, connection::State};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    liveness::Liveness,
    reply_inbox::{PendingReply, ReplyInbox},
};
use crate::{
    adapters::task::{AbortOnDrop, runtime},
    error::BoxError,
};

pub(crate) struct Connection {
    /// The watch task empties it when the connection ends, which closes the client at once.
    client: Arc<Mutex<Option<Client>>>,
    pub(crate) liveness: Liveness,
    replies: Arc<ReplyInbox>,
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
        let connection = Self { client: shared, liveness, replies, _watch: watch };
        connection.barrier().await?;
        Ok(connection)
    }

    pub(crate) fn client(&self) -> Result<Client, BoxError> {
        self.client.lock().clone().filter(|_| !self.liveness.has_ended()).ok_or_else(broken)
    }

    /// Hands a message to the client, which sends it in its turn.
    pub(crate) async fn send(&self, subject: &str, payload: Vec<u8>) -> Result<(), BoxError> {
        Ok(self.client()?.publish(subject.to_owned(), payload.into()).await?)
    }

    /// Returns when the server has processed all that was sent before.
    pub(crate) async fn barrier(&self) -> Result<(), BoxError> {
        // Registered before the client is taken, so that an end of the connection in between is
        // noticed: it clears the registered requests.
        let reply = self.replies.expect();
        self.client()?.publish(reply.subject.clone(), Vec::new().into()).await?;
        self.received(reply).await.map(drop)
    }

    /// Publishes, and returns the first reply.
    ///
    /// Alternatives considered: the client's `request`, which remembers unanswered ones for ever.
    pub(crate) async fn request(
        &self,
        subject: &str,
        payload: Vec<u8>,
    ) -> Result<Message, BoxError> {
        let reply = self.replies.expect();
        let (subject, reply_to) = (subject.to_owned(), reply.subject.clone());
        self.client()?.publish_with_reply(subject, reply_to, payload.into()).await?;
        self.received(reply).await
    }

    async fn received(&self, mut reply: PendingReply<'_>) -> Result<Message, BoxError> {
        let message = (&mut reply.receiver).await.map_err(|_| broken())?;
        // A reply over a new connection proves nothing about the writes of the old one.
        if self.liveness.has_ended() { Err(broken()) } else { Ok(message) }
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

/// Delivers replies, and sends a heartbeat when none has come back for one interval. Returns when a
/// heartbeat stays unanswered for one and a half intervals, or the connection has ended.
async fn watch(
    client: &Client,
    mut subscriber: Subscriber,
    replies: &ReplyInbox,
    liveness: &Liveness,
    heartbeat: Duration,
) {
    let mut is_unanswered = false;
    let mut next = Instant::now() + heartbeat;
    loop {
        tokio::select! {
            biased;
            message = subscriber.next() => match message {
                Some(message) => if replies.deliver(message) {
                    is_unanswered = false;
                    next = Instant::now() + heartbeat;
                },
                None => return,
            },
            () = liveness.ended() => {}
            () = sleep_until(next) => {
                if is_unanswered {
                    return;
                }
                next = Instant::now() + heartbeat.mul_f32(1.5);
                is_unanswered = true;
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
