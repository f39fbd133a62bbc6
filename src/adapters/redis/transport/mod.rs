//! The event bus over Redis Pub/Sub: a message reaches the instances that are subscribed right now.

pub(crate) mod builder;
mod message_stream;
mod options;
mod publisher;

use std::{fmt, sync::Arc};

use redis::Cmd;
use tokio::sync::watch;

pub use self::{builder::RedisTransportBuilder, options::RedisTransportOptions};
use self::{message_stream::RedisMessageStream, publisher::PublisherConnection};
use super::{connection::ExternalConnection, endpoint::Endpoint};
use crate::{
    adapters::{
        connection_slot::ConnectionSlot,
        task::{runtime, timeout_named},
    },
    bus::transport::{Subscribed, Transport, TransportFuture},
    error::BoxError,
};

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
/// When a publish returns, the server has processed the message, but no subscriber has confirmed
/// it: an instance that was not subscribed at that moment never receives the message, and a
/// subscription never resumes. The messages of one publisher arrive in order while its connection
/// lasts.
///
/// The publisher has one connection, and each subscription has its own. They connect when needed,
/// and are never repaired: a subscription ends when its connection breaks, or when its server has
/// not answered for two and a half [heartbeats](RedisTransportOptions::heartbeat).
///
/// Requires Redis 6.2 or later, Valkey, or a compatible server. An ACL user needs `&` with the name
/// of the channel, `+publish` and `+subscribe`. With `+ping` and `+role` the transport detects more
/// faults.
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
    endpoint: Arc<Endpoint>,
    options: RedisTransportOptions,
    publisher: ConnectionSlot<PublisherConnection>,
    /// A connection of the application, which publishes instead.
    external: Option<Arc<dyn ExternalConnection>>,
    /// Tells all current subscriptions to end.
    ends: watch::Sender<()>,
}

impl RedisTransport {
    /// Sends a command over the current connection, or connects first. A failed command is not
    /// sent again. It ends the connection, unless the server has refused the command.
    async fn send(&self, command: &Cmd) -> Result<(), BoxError> {
        let (slot, limit) = (&self.publisher, self.options.confirm_timeout);
        if let Some(external) = &self.external {
            runtime()?;
            let mut connection = external.clone_boxed();
            let sending = async { Ok(connection.req_packed_command(command).await?) };
            timeout_named(limit, "answer", sending).await?.extract_error()?;
            return Ok(());
        }
        let connecting = || PublisherConnection::open(&self.endpoint, &self.options);
        let is_usable = PublisherConnection::is_usable;
        let connection =
            slot.get_or_connect(self.options.connect_timeout, is_usable, connecting).await?;
        let call = connection.begin_call();
        let reply = timeout_named(limit, "answer", connection.send(command)).await;
        call.disarm();
        if !matches!(reply, Ok(Some(_))) {
            slot.take_if(|it| Arc::ptr_eq(it, &connection)).await;
        }
        let Some(reply) = reply? else {
            // The subscriptions are probably connected to the same server.
            self.ends.send_replace(());
            return Err("the server has become a replica".into());
        };
        reply.extract_error()?;
        Ok(())
    }
}

impl fmt::Debug for RedisTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for RedisTransport {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&self.options.channel).arg(message);
            self.send(&publish).await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let (endpoint, ends) = (Arc::clone(&self.endpoint), self.ends.subscribe());
            let stream = RedisMessageStream::subscribe(endpoint, &self.options, ends).await?;
            Ok(Subscribed {
                messages: Box::new(stream),
                prober: Box::new(crate::adapters::no_prober::NoProber),
                resumed: false,
            })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move { self.send(&redis::cmd("PING")).await })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.ends.send_replace(());
            self.publisher.take_if(|_| true).await;
            Ok(())
        })
    }
}
