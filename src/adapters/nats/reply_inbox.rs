//! Matches replies to the requests of one connection: one inbox subject, one number per request.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering},
};

use async_nats::Message;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) struct ReplyInbox {
    prefix: String,
    last: AtomicU64,
    pending: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
}

/// One request that waits. Dropping it forgets the request.
pub(crate) struct PendingReply<'a> {
    inbox: &'a ReplyInbox,
    number: u64,
    pub(crate) subject: String,
    /// Fails if the inbox is cleared.
    pub(crate) receiver: oneshot::Receiver<Message>,
}

impl ReplyInbox {
    /// The number of the heartbeats, for which nobody waits.
    pub(crate) const HEARTBEAT: u64 = 0;

    pub(crate) fn new(prefix: String) -> Self {
        Self { prefix, last: AtomicU64::new(Self::HEARTBEAT), pending: Mutex::default() }
    }

    pub(crate) fn subject(&self, number: &dyn Display) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Registers a request. Its reply is expected on the subject of the returned value.
    pub(crate) fn expect(&self) -> PendingReply<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.pending.lock().insert(number, sender);
        PendingReply { inbox: self, number, subject: self.subject(&number), receiver }
    }

    /// Hands a reply to the request that waits for it. Returns whether it was a heartbeat.
    pub(crate) fn deliver(&self, reply: Message) -> bool {
        let number = self.number(&reply.subject);
        let sender = number.and_then(|number| self.pending.lock().remove(&number));
        if let Some(sender) = sender {
            let _ = sender.send(reply);
        }
        number == Some(Self::HEARTBEAT)
    }

    /// Hands a message to the request that published it, if that was one of ours.
    pub(crate) fn confirm(&self, echo: &Message) {
        let number = echo.reply.as_ref().and_then(|reply| self.number(reply));
        let sender = number.and_then(|number| self.pending.lock().remove(&number));
        if let Some(sender) = sender {
            let _ = sender.send(echo.clone());
        }
    }

    fn number(&self, subject: &str) -> Option<u64> {
        subject.strip_prefix(&self.prefix)?.strip_prefix('.')?.parse().ok()
    }

    pub(crate) fn clear(&self) {
        self.pending.lock().clear();
    }
}

impl Drop for PendingReply<'_> {
    fn drop(&mut self) {
        self.inbox.pending.lock().remove(&self.number);
    }
}
