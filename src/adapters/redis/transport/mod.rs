//! The event bus over Redis Pub/Sub: a message reaches the instances that are subscribed right now.

pub(crate) mod builder;
mod channels;
mod message_stream;
mod options;
mod publisher;
mod publisher_connection;
mod refusals;

use std::{fmt, sync::Arc};

pub use self::{builder::RedisTransportBuilder, options::RedisTransportOptions};
use self::{message_stream::RedisMessageStream, publisher::Publisher};
use crate::bus::transport::{Subscribed, Transport, TransportFuture};

/// A [`Transport`] over Redis Pub/Sub: a single server, a Cluster, or the master that sentinels
/// name.
///
/// ```
/// use lazy_layers_cache::RedisTransport;
///
/// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
/// let transport = RedisTransport::at("redis://127.0.0.1/").channel("shop:invalidations").build()?;
/// # Ok(()) }
/// ```
///
/// # Delivery
///
/// When a publish returns, the server has processed the message, but no subscriber has confirmed
/// it: an instance that was not subscribed at that moment never receives the message, and a
/// subscription never resumes. The messages of one publisher arrive in order while its connection
/// lasts.
///
/// The publisher has one connection, and each subscription has its own. They connect when needed,
/// and are never repaired: a subscription ends when its connection breaks, or when its server has
/// not answered for two and a half [heartbeats](RedisTransportOptions::heartbeat).
///
/// # Channels and permissions
///
/// | channel | carries |
/// | --- | --- |
/// | `{channel}` | the messages, also those of the TypeScript package |
/// | `{channel}:beacons` | beacons: an instance says how far its messages are |
/// | `{channel}:probe:{random}` | the probes that one subscription sends to itself |
///
/// An ACL user needs `&{channel}` and `&{channel}:*`, `+publish` and `+subscribe`. With `+ping` and
/// `+role` the transport detects more faults. A client that may publish on the channels can
/// invalidate any key. A client that may subscribe to them can read the keys and the primed values.
///
/// Requires Redis 6.2 or later, Valkey, or a compatible server that speaks RESP3: subscriptions use
/// it, whatever protocol a URL asks for.
///
/// # Probes
///
/// The connection that publishes sends the probes, and the connection of the subscription receives
/// them, on a channel beside that of the messages. A server passes on what it is sent in order, so
/// a probe that has come back shows that the subscriber has processed all messages that the server
/// had processed before.
///
/// In a Cluster the same holds for the messages that were published to the same node, which are at
/// least those of the own instance. Each node passes messages on over links of its own to the other
/// nodes, so a probe shows nothing about the messages that peers published to other nodes. If such
/// a link fails, peers notice the silence of the instances behind it, whose beacons are missing.
///
/// # Masters and nodes
///
/// A replica of a single server, or of the master that sentinels name, is refused, and the
/// transport leaves a master that becomes one: only the replica's own subscribers would receive
/// the messages that are published to it. In a Cluster any node will do, master or replica. Each
/// connection goes to the next of the nodes whose URLs were given, and skips nodes that do not
/// answer; the transport does not look for other nodes.
///
/// A database in a URL makes no difference: channels belong to the server.
pub struct RedisTransport {
    /// The subscriptions share it, to send their probes.
    publisher: Arc<Publisher>,
}

impl fmt::Debug for RedisTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTransport")
            .field("options", &self.publisher.options)
            .finish_non_exhaustive()
    }
}

impl Transport for RedisTransport {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.publisher.publish(&self.publisher.options.channel, message))
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let channel = channels::beacons(&self.publisher.options.channel);
            self.publisher.publish(&channel, beacon).await
        })
    }

    fn on_used_by(&self, cache: &str) {
        self.publisher.client_name.add(cache);
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let publisher = Arc::clone(&self.publisher);
            let (endpoint, ends) = (Arc::clone(&publisher.endpoint), publisher.ends.subscribe());
            let stream = RedisMessageStream::subscribe(
                endpoint,
                &publisher.options,
                &publisher.client_name,
                ends,
            )
            .await?;
            let prober = Box::new(stream.prober(publisher));
            let messages = Box::new(stream);
            Ok(Subscribed { messages, prober, resumed: false })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move { self.publisher.ping().await })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.publisher.disconnect().await;
            Ok(())
        })
    }
}
