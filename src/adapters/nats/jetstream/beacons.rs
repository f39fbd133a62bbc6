//! The beacons of a JetStream subscription, which travel over NATS core.

use std::{sync::Arc, task::Poll};

use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;

use crate::{
    adapters::{
        abort_on_drop::AbortOnDrop,
        nats::{connection::Connection, denials::is_subscription_to, inline::Inline},
        task::runtime,
    },
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
};

pub(crate) struct Beacons {
    subject: String,
    /// How many denials there were before.
    after: u64,
    inbox: Arc<Inbox>,
    _reader: AbortOnDrop,
}

impl Beacons {
    pub(crate) async fn subscribe(
        connection: &Connection,
        subject: String,
    ) -> Result<Self, BoxError> {
        let after = connection.liveness.denials.count();
        let mut subscriber = connection.client()?.subscribe(subject.clone()).await?;
        let inbox = Inbox::bounded(1_000, 1 << 20);
        let received = Arc::clone(&inbox);
        // Ready with the client's connection. The subscription notices that end by itself.
        let reading = Inline::run(move |context| {
            while let Poll::Ready(beacon) = subscriber.poll_next_unpin(context) {
                let Some(beacon) = beacon else { return Poll::Ready(()) };
                received.push(Delivery::Message(beacon.payload.to_vec()));
            }
            Poll::Pending
        });
        let reader = AbortOnDrop::spawn(&runtime()?, reading);
        Ok(Self { subject, after, inbox, _reader: reader })
    }

    pub(crate) fn check_not_denied(&self, connection: &Connection) -> Result<(), BoxError> {
        let is_ours = |text: &str| is_subscription_to(text, &self.subject);
        let denial = connection.liveness.denials.find(self.after, is_ours);
        denial.map_or(Ok(()), |denial| Err(denial.into()))
    }

    /// Waits for the next beacon. Cancel safe.
    pub(crate) async fn next(&mut self) -> Delivery {
        loop {
            // A beacon may be lost, so its loss is no gap.
            if let beacon @ Delivery::Message(_) = self.inbox.next().await {
                return beacon;
            }
        }
    }
}

/// Checks that the stream does not store the subject of the beacons.
pub(crate) fn check_not_stored(stream: &Stream, subject: &str) -> Result<(), BoxError> {
    let config = &stream.cached_info().config;
    let Some(pattern) = config.subjects.iter().find(|it| covers(it, subject)) else {
        return Ok(());
    };
    let name = &config.name;
    Err(format!(
        "stream {name} has the subject {pattern}, so it would store the beacons of {subject}; \
         leave it only the subject of the messages"
    )
    .into())
}

/// Whether a subject with wildcards covers one without.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, tokens.next()) {
            (">", Some(_)) => return true,
            (_, None) => return false,
            (expected, Some(token)) if expected != "*" && expected != token => return false,
            _ => {}
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn wildcards_cover_as_in_nats() {
        for pattern in [">", "a.>", "a.*.c", "*.b.c", "a.b.c", "a.b.*", "*.*.*"] {
            assert!(covers(pattern, "a.b.c"), "{pattern}");
        }
        for pattern in ["a", "a.b", "a.b.c.>", "*", "*.*", "a.b.d", "a.b.c.d", "b.>"] {
            assert!(!covers(pattern, "a.b.c"), "{pattern}");
        }
    }
}
