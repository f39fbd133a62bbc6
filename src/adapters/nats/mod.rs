//! The transport over NATS core: a message reaches the instances that are subscribed at that time.

pub(crate) mod connection;
pub(crate) mod connector;
mod credentials;
mod denials;
mod echo;
mod inline;
pub(crate) mod jetstream;
mod liveness;
mod message_stream;
pub(crate) mod options;
mod reply_inbox;

use std::fmt;

use async_nats::Client;

pub use self::options::{NatsConnection, NatsOptions};
use self::{
    connector::Connector,
    message_stream::{NatsMessageStream, beacons_of},
};
use super::task::timeout_named;
use crate::bus::transport::{Subscribed, Transport, TransportFuture};
use crate::error::BuildError;

/// A [`Transport`] over NATS core.
///
/// When a publish returns, the server has distributed it: its echo has come back. A server without
/// any subscriber says so, which also confirms it. An instance that is not connected at that time
/// never gets the message, and a subscription never resumes. Messages of one publisher arrive in
/// order.
///
/// | subject | carries | needs permission to |
/// | --- | --- | --- |
/// | [`subject`](NatsOptions::subject) | messages | publish and subscribe, also if the cache only writes: the echo confirms |
/// | `{subject}.beacons` | beacons, which are not confirmed | publish and subscribe |
/// | `_INBOX.>` | heartbeats and probes, each to a private subject | publish and subscribe |
///
/// A message that is larger than the server's `max_payload`, or that the user may not publish, is
/// [refused](crate::MessageRefused); a subscription that the user may not make is an error. A probe
/// comes back after all messages that its server had accepted before. Servers of a cluster pass
/// messages on to each other without an order between their publishers, so a probe says nothing
/// about messages that are still on their way from another server: beacons reveal those.
///
/// A subscriber that is slow receives a gap when
/// [`queue_capacity`](NatsOptions::queue_capacity) or
/// [`queue_max_bytes`](NatsOptions::queue_max_bytes) is exceeded. Each message is in that queue as
/// soon as the client has read it; the client's own queues stay empty.
///
/// One connection serves publishing and subscriptions. The first call that needs it opens it. It
/// sends a heartbeat every [`heartbeat`](NatsConnection::heartbeat), and ends at the first sign of
/// a disconnect; its subscriptions end with it. It closes with the transport and the last
/// subscription.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, NatsConnection, NatsOptions, NatsTransport, WireCodec};
///
/// let connection = NatsConnection::default().servers(["nats://127.0.0.1:4222"]);
/// let bus = NatsTransport::new(NatsOptions::default().connection(connection))?;
/// // Neither line connects: the cache subscribes with its first call that leaves L1.
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(bus, WireCodec::new())
///     .build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
pub struct NatsTransport {
    connector: Connector,
    options: NatsOptions,
}

impl NatsTransport {
    /// Creates a transport with a connection of its own. It connects with the first call.
    ///
    /// ```
    /// use lazy_layers_cache::{NatsOptions, NatsTransport};
    ///
    /// assert!(NatsTransport::new(NatsOptions::default()).is_ok());
    /// let refused = NatsTransport::new(NatsOptions::default().subject("cache.*")).unwrap_err();
    /// assert_eq!(refused.option(), "subject");
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn new(options: NatsOptions) -> Result<Self, BuildError> {
        Self::build(None, options)
    }

    /// Creates a transport over a client of the application, which is never closed. Of
    /// [`NatsOptions::connection`] only the durations apply.
    ///
    /// If the client reconnects by itself, subscriptions end all the same, because messages were
    /// lost in between. The client must echo (no `no_echo`), and must not have a smaller
    /// `subscription_capacity` than its default, 65,536: its overflow would not be noticed. It
    /// tells only the application what the server has denied; so a message without permission is
    /// an error after [`confirm_timeout`](NatsConnection::confirm_timeout), and a subscription
    /// without permission receives nothing.
    ///
    /// ```no_run
    /// use lazy_layers_cache::{NatsOptions, NatsTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
    /// let bus = NatsTransport::with_client(client, NatsOptions::default())?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn with_client(client: Client, options: NatsOptions) -> Result<Self, BuildError> {
        Self::build(Some(client), options)
    }

    fn build(client: Option<Client>, options: NatsOptions) -> Result<Self, BuildError> {
        options.check()?;
        Ok(Self { connector: Connector::new(client, options.connection.clone()), options })
    }
}

impl fmt::Debug for NatsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for NatsTransport {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.connector.call("confirm a message", async move |connection| {
            connection.publish(&self.options.subject, message.to_vec()).await
        }))
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.connector.call("send a beacon", async move |connection| {
            connection.announce(&beacons_of(&self.options.subject), beacon.to_vec()).await
        }))
    }

    fn on_used_by(&self, cache: &str) {
        self.connector.client_name.add(cache);
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let connection = self.connector.get().await?;
            timeout_named(self.options.connection.connect_timeout, "subscribe", async {
                let (messages, prober) =
                    NatsMessageStream::open(connection.clone(), &self.options).await?;
                // The error of a denied subscription is before the first reply. After the second
                // one the client has had the time to report it; later, it ends the subscription.
                connection.barrier().await?;
                connection.barrier().await?;
                messages.check_not_denied()?;
                let (messages, prober) = (Box::new(messages), Box::new(prober));
                Ok(Subscribed { messages, prober, resumed: false })
            })
            .await
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(self.connector.call("answer", async |connection| connection.barrier().await))
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.connector.disconnect()
    }
}
