//! Events over NATS core: fast, to whoever listens at the moment.

mod connection;
mod connection_slot;
pub(crate) mod jetstream;
mod message_stream;
mod options;

use async_nats::Client;

use self::message_stream::NatsEvents;
pub use self::options::{NatsConnection, NatsOptions};
pub(crate) use self::{
    connection::Link,
    connection_slot::Links,
    options::{SUBJECT, check_subject},
};
use super::task::within;
use crate::bus::transport::{Subscribed, Transport, TransportFuture};
use crate::error::BuildError;

/// A [`Transport`] over NATS core.
///
/// A publish that has returned was worked off by the server: it is confirmed by a message to
/// ourselves that follows it. Whoever was not connected then never gets it, and a subscription
/// never resumes. Per publisher events arrive in order.
///
/// One connection serves both ways. It is made with the first call that needs it, asked for a
/// sign of life every [`heartbeat`](NatsConnection::heartbeat), and given up at its first
/// weakness: its subscriptions end then. It closes with the transport and the last subscription.
pub struct NatsTransport {
    links: Links,
    options: NatsOptions,
}

impl NatsTransport {
    /// With a connection of its own.
    ///
    /// # Errors
    ///
    /// Wrong options, by name. Nothing is connected yet.
    pub fn new(options: NatsOptions) -> Result<Self, BuildError> {
        options.check()?;
        Ok(Self { links: Links::connecting(options.connection.clone()), options })
    }

    /// With a client of the user's, which is never closed. Of
    /// [`NatsOptions::connection`] only the times count.
    ///
    /// A client that reconnects by itself ends the subscriptions all the same, because what was
    /// sent meanwhile is lost. It must echo (no `no_echo`).
    ///
    /// # Errors
    ///
    /// Wrong options, by name.
    pub fn with_client(client: Client, options: NatsOptions) -> Result<Self, BuildError> {
        options.check()?;
        Ok(Self { links: Links::of(client, options.connection.clone()), options })
    }
}

impl std::fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for NatsTransport {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let link = self.links.get().await?;
            within(self.options.connection.confirm_timeout, "confirm an event", async {
                let client = link.client()?;
                client.publish(self.options.subject.clone(), event.to_vec().into()).await?;
                link.barrier().await
            })
            .await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let link = self.links.get().await?;
            within(self.options.connection.connect_timeout, "subscribe", async {
                let (subject, capacity) = (&self.options.subject, self.options.queue_capacity);
                let events = NatsEvents::of(link.clone(), subject, capacity).await?;
                link.barrier().await?;
                Ok(Subscribed { messages: Box::new(events), resumed: false })
            })
            .await
        })
    }

    fn check(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let link = self.links.get().await?;
            let limit = self.options.connection.confirm_timeout;
            within(limit, "answer", link.barrier()).await
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.links.drop_current().await;
            Ok(())
        })
    }
}
