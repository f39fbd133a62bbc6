//! The transport over RabbitMQ: a queue per instance, which can outlive a disconnect.

mod address;
mod connection;
mod intake;
#[cfg_attr(feature = "tracing", path = "log_enabled.rs")]
#[cfg_attr(not(feature = "tracing"), path = "log_disabled.rs")]
mod log;
mod message_stream;
mod options;
mod prefetch;
mod probe_message;
mod prober;
mod publisher;
mod publisher_slot;
mod refusal;
mod shutdown;
mod subscribe;
mod topology;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use lapin::Connection;
use parking_lot::Mutex;

pub use self::options::{RabbitMqExchangeType, RabbitMqOptions};
use self::{
    connection::{BrokerConnection, Origin},
    log::warn_of_waiting_messages,
    message_stream::RabbitMqMessageStream,
    prefetch::Prefetch,
    prober::RabbitMqProber,
    publisher::{Publisher, check_exchange},
    publisher_slot::PublisherSlot,
    shutdown::Shutdown,
    subscribe::subscribe,
};
use super::{client_name::ClientName, task::timeout_named};
use crate::{
    bus::transport::{Subscribed, Transport, TransportFuture},
    error::BuildError,
};

/// A [`Transport`] over RabbitMQ.
///
/// When a publish returns, the broker has confirmed that the message is in every bound queue, on
/// disk if the queue and the message are durable. Messages of one publisher arrive in order, except
/// for redelivered ones.
///
/// With [`durable_invalidation_mode`](RabbitMqOptions::durable_invalidation_mode) the queue remains
/// while its instance is disconnected, and a subscription resumes if the queue is still the same
/// and has no other consumer. To know that, the queue is bound to a second exchange, named after
/// the queue with the suffix `.kept`. Without the mode a queue is deleted with its subscription.
///
/// A probe goes to the queue of its own instance, and is never written to disk. Beacons travel by a
/// second exchange, `{exchange}.beacons`, to a queue that ends with the subscription: nothing is
/// stored for an absent instance, and instances of the TypeScript package do not read them.
///
/// Publishing has one connection and each subscription has one: a broker that runs out of memory
/// stops reading from connections that publish. Calls connect when they need to; a broken
/// connection is replaced, not recovered.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, RabbitMqOptions, RabbitMqTransport, WireCodec};
///
/// let options = RabbitMqOptions::new("amqp://guest:guest@127.0.0.1:5672/%2f");
/// let bus = RabbitMqTransport::new(options)?;
/// // Neither line connects: the cache subscribes with its first call that leaves L1.
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(bus, WireCodec::new())
///     .build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
///
/// # Bounds
///
/// At most [`queue_max_bytes`](RabbitMqOptions::queue_max_bytes) of messages wait in memory, and
/// the client holds one more message while it arrives. The rest waits at the broker, where a policy
/// bounds it (see [`queue_expires`](RabbitMqOptions::queue_expires)). If the memory is full the
/// subscription ends, and the next one takes fewer messages at a time: a durable queue delivers the
/// rest to it. A message that is larger than the memory for all is skipped with a
/// [`Gap`](crate::Delivery::Gap).
///
/// # Refusals
///
/// A publish fails with [`MessageRefused`](crate::MessageRefused) if the message is larger than the
/// broker's `max_message_size`, if the user may not write to the exchange, or if a queue rejects
/// messages (`overflow: reject-publish`). A broker that is out of memory or disk is an ordinary
/// error.
///
/// # Permissions
///
/// | permission | names |
/// | --- | --- |
/// | configure | `{exchange}`, `{exchange}.beacons`, `{queue}`, `{queue}.kept`, `amq.gen-.*` |
/// | write | `{exchange}`, `{exchange}.beacons`, `{queue}`, `amq.gen-.*`, `amq.default` (probes) |
/// | read | `{exchange}`, `{exchange}.beacons`, `{queue}`, `{queue}.kept`, `amq.gen-.*` |
pub struct RabbitMqTransport {
    publisher: Arc<PublisherSlot>,
    prefetch: Arc<Prefetch>,
    options: RabbitMqOptions,
    /// Ends the last subscription. `None` before the first one.
    subscription: Mutex<Option<Shutdown>>,
    /// Whether a warning of messages that waited for this instance was logged.
    has_warned: AtomicBool,
}

/// A durable queue whose instance was absent for long has more messages than this number.
const MANY_MESSAGES: u32 = 10_000;

impl RabbitMqTransport {
    /// Creates a transport with connections of its own. It connects with the first call.
    ///
    /// ```
    /// use lazy_layers_cache::{RabbitMqOptions, RabbitMqTransport};
    ///
    /// let refused = RabbitMqTransport::new(RabbitMqOptions::default()).unwrap_err();
    /// assert_eq!(refused.option(), "url");
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn new(options: RabbitMqOptions) -> Result<Self, BuildError> {
        let mut options = options;
        let address = Box::new(options.check_url()?);
        let limit = address.connect_timeout.unwrap_or(options.connect_timeout);
        options.connect_timeout = limit;
        let (tls, name) = (options.tls.clone(), ClientName::default());
        Self::build(Origin::Connect { address, tls, limit, name }, options)
    }

    /// Creates a transport over a connection of the application, which is never closed. The
    /// [`url`](RabbitMqOptions::url) is not used.
    ///
    /// The connection must not recover automatically (the default), because recovery loses messages
    /// silently. Once it has broken, every call fails.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    /// use lapin::{Connection, ConnectionProperties};
    /// use lazy_layers_cache::{RabbitMqOptions, RabbitMqTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let url = "amqp://127.0.0.1:5672/%2f";
    /// let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    /// let options = RabbitMqOptions::default();
    /// let bus = RabbitMqTransport::with_connection(Arc::new(connection), options)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn with_connection(
        connection: Arc<Connection>,
        options: RabbitMqOptions,
    ) -> Result<Self, BuildError> {
        Self::build(Origin::Connection(connection), options)
    }

    fn build(origin: Origin, options: RabbitMqOptions) -> Result<Self, BuildError> {
        let topology = options.check()?;
        let limits = (options.connect_timeout, options.confirm_timeout);
        let publisher = Arc::new(PublisherSlot::new(origin, topology, limits));
        let prefetch = Arc::new(Prefetch::new(options.prefetch, options.queue_max_bytes));
        let (subscription, has_warned) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { publisher, prefetch, options, subscription, has_warned })
    }

    fn live_subscription(&self) -> Option<Shutdown> {
        self.subscription.lock().clone().filter(|shutdown| !shutdown.is_triggered())
    }
}

impl fmt::Debug for RabbitMqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for RabbitMqTransport {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let topology = &self.publisher.topology;
            let publish = async |publisher: Arc<Publisher>| {
                let subscription = self.live_subscription();
                let must_arrive = subscription.is_some();
                let is_routed = publisher.publish(topology, message, must_arrive).await?;
                Ok((is_routed, subscription))
            };
            let (is_routed, subscription) =
                self.publisher.call("confirm a message", publish).await?;
            if is_routed {
                return Ok(());
            }
            // At least our own queue should have been bound, so our subscription is broken.
            if let Some(shutdown) = subscription {
                shutdown.trigger();
            }
            Err("no queue is bound to the exchange any more".into())
        })
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.publisher.call("confirm a beacon", async |publisher: Arc<Publisher>| {
            publisher.announce(&self.publisher.topology, beacon).await
        }))
    }

    fn on_used_by(&self, cache: &str) {
        if let Origin::Connect { name, .. } = &self.publisher.origin {
            name.add(cache);
        }
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let PublisherSlot { origin, topology, .. } = &*self.publisher;
            // A queue with a name has one consumer at a time.
            if topology.queue.is_some()
                && let Some(last) = self.live_subscription()
            {
                last.trigger();
            }
            let connection = BrokerConnection::open(origin).await?;
            let limits = (self.options.heartbeat, self.options.confirm_timeout);
            timeout_named(self.options.confirm_timeout, "subscribe", async {
                let start = (self.prefetch.next(), self.options.confirm_timeout);
                let started = subscribe(&connection, topology, start).await?;
                let (queue, tag) = (started.queue.clone(), started.tag.clone());
                let found = started.found;
                if found.waiting >= MANY_MESSAGES && !self.has_warned.swap(true, Ordering::Relaxed)
                {
                    warn_of_waiting_messages(&queue, found.waiting);
                }
                let prefetch = Arc::clone(&self.prefetch);
                let stream =
                    RabbitMqMessageStream::open(connection, started, topology, prefetch, limits);
                let stream = stream.await?;
                let before = self.subscription.lock().replace(stream.shutdown.clone());
                let publisher = Arc::downgrade(&self.publisher);
                let subscription = stream.shutdown.clone();
                Ok(Subscribed {
                    messages: Box::new(stream),
                    prober: Box::new(RabbitMqProber { publisher, queue, tag, subscription }),
                    resumed: before.is_some() && found.is_same,
                })
            })
            .await
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(self.publisher.call("answer", async |publisher: Arc<Publisher>| {
            let topology = &self.publisher.topology;
            // A missing exchange closes the channel, so each ping uses a new one.
            let channel = publisher.connection.channel().await?;
            Ok(check_exchange(&channel, &topology.exchange, &topology.kind).await?)
        }))
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if let Some(shutdown) = self.live_subscription() {
                shutdown.trigger();
            }
            self.publisher.disconnect().await;
            Ok(())
        })
    }
}
