//! Confirms a publish by its own echo.
//!
//! A message to ourselves that is sent after a publish shows that the server has processed it, but
//! not that the server had no objection: the error of a publish without permission reaches us on
//! another way, and may do so later. The echo is the proof: a message that comes back was
//! distributed. So a publish carries a reply subject of ours, by which its echo is recognised.
//!
//! Alternatives considered: a second message to ourselves, after which the error has most probably
//! arrived. "Most probably" would lose an invalidation under load, and a client of the application
//! never tells us of errors.

use std::sync::{Arc, Weak};

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use parking_lot::Mutex;

use super::reply_inbox::ReplyInbox;
use crate::{
    adapters::{abort_on_drop::AbortOnDrop, task::runtime},
    error::BoxError,
};

/// The reader of the messages of one connection, which confirms the echoes among them. A publish
/// keeps it until its echo is back.
#[derive(Default)]
pub(crate) struct Echo(Mutex<Weak<AbortOnDrop>>);

impl Echo {
    /// From now on a publish waits for its echo at this reader, of a subscription.
    pub(crate) fn use_reader(&self, reader: &Arc<AbortOnDrop>) {
        *self.0.lock() = Arc::downgrade(reader);
    }

    /// Returns the reader, or subscribes for as long as the returned value is kept.
    pub(crate) async fn reader(
        &self,
        client: &Client,
        replies: &Arc<ReplyInbox>,
        subject: &str,
    ) -> Result<Arc<AbortOnDrop>, BoxError> {
        if let Some(reader) = self.0.lock().upgrade() {
            return Ok(reader);
        }
        let subscriber = client.subscribe(subject.to_owned()).await?;
        let reading = read(subscriber, Arc::clone(replies));
        let reader = Arc::new(AbortOnDrop::spawn(&runtime()?, reading));
        self.use_reader(&reader);
        Ok(reader)
    }
}

async fn read(mut messages: Subscriber, replies: Arc<ReplyInbox>) {
    while let Some(message) = messages.next().await {
        replies.confirm(&message);
    }
}
