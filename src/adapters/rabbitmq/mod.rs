//! The transport over RabbitMQ: a queue per instance, which can outlive a disconnect.

mod connection;
mod message_stream;
mod options;
mod publisher;
mod subscribe;
mod topology;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use lapin::Connection;
use parking_lot::Mutex;

pub use self::options::{RabbitMqExchangeType, RabbitMqOptions};
use self::{
    connection::{BrokerConnection, Origin},
    message_stream::{RabbitMqMessageStream, Shutdown},
    publisher::{Publisher, check_exchange},
    subscribe::subscribe,
    topology::Topology,
};
use super::{connection_slot::ConnectionSlot, task::timeout_named};
use crate::{
    bus::transport::{Subscribed, Transport, TransportFuture},
    error::{BoxError, BuildError},
    resilience::DropGuard,
};

/// A [`Transport`] over RabbitMQ.
///
/// When a publish returns, the broker has confirmed that the message is in every bound queue, on
/// disk if the queue and the message are durable. Messages of one publisher arrive in order, except
/// for redelivered ones.
///
/// With [`durable_invalidation_mode`](RabbitMqOptions::durable_invalidation_mode) the queue remains
/// while its instance is disconnected, and a subscription resumes if the queue is still the same.
/// To know that, the queue is bound to a second exchange, named after the queue with the suffix
/// `.kept`. If a policy of the broker limits the length of the queue, this transport does not
/// notice the messages that the queue loses. Without the mode a queue is deleted with its
/// subscription.
///
/// Publishing has one connection and each subscription has one: a broker that runs out of memory
/// stops reading from connections that publish. Calls connect when they need to; a broken
/// connection is replaced, not recovered.
pub struct RabbitMqTransport {
    origin: Origin,
    options: RabbitMqOptions,
    topology: Topology,
    publisher: ConnectionSlot<Publisher>,
    /// Ends the last subscription. `None` before the first one.
    subscription: Mutex<Option<Shutdown>>,
}

impl RabbitMqTransport {
    /// Creates a transport with connections of its own. It connects with the first call.
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn new(options: RabbitMqOptions) -> Result<Self, BuildError> {
        let uri = Box::new(options.check_url()?);
        let (tls, limit) = (options.tls.clone(), options.connect_timeout);
        Self::build(Origin::Connect { uri, tls, limit }, options)
    }

    /// Creates a transport over a connection of the application, which is never closed. The
    /// [`url`](RabbitMqOptions::url) is not used.
    ///
    /// The connection must not recover automatically (the default), because recovery loses messages
    /// silently. Once it has broken, every call fails.
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
        let (publisher, subscription) = (ConnectionSlot::new(), Mutex::default());
        Ok(Self { origin, options, topology, publisher, subscription })
    }

    /// Runs a call on the publisher's connection, and replaces the connection if the call fails.
    async fn call<F, T>(
        &self,
        act: &str,
        call: impl FnOnce(Arc<Publisher>) -> F,
    ) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let connect = || Publisher::open(&self.origin, &self.topology);
        let limit = self.options.connect_timeout;
        let publisher = self.publisher.get_or_connect(limit, Publisher::is_usable, connect).await?;
        // The client would queue a message for a blocked connection in memory.
        if publisher.connection.is_blocked() {
            return Err("the broker accepts no messages: it is out of memory or disk".into());
        }
        let in_doubt = DropGuard::new(|| publisher.in_doubt.store(true, Ordering::Relaxed));
        let result =
            timeout_named(self.options.confirm_timeout, act, call(publisher.clone())).await;
        in_doubt.disarm();
        // A blocked connection may stay: the broker reports the end of the block on it.
        if result.is_err() && !(publisher.connection.is_blocked() && publisher.is_usable()) {
            self.publisher.take_if(|it| Arc::ptr_eq(it, &publisher)).await;
        }
        result
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
            let publish = async |publisher: Arc<Publisher>| {
                let subscription = self.live_subscription();
                let must_arrive = subscription.is_some();
                let is_routed = publisher.publish(&self.topology, message, must_arrive).await?;
                Ok((is_routed, subscription))
            };
            let (is_routed, subscription) = self.call("confirm a message", publish).await?;
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

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let connection = BrokerConnection::open(&self.origin).await?;
            let limits = (self.options.heartbeat, self.options.confirm_timeout);
            timeout_named(self.options.confirm_timeout, "subscribe", async {
                let (consumer, same_queue) = subscribe(&connection, &self.topology).await?;
                let open =
                    RabbitMqMessageStream::open(connection, consumer, &self.topology, limits);
                let stream = open.await?;
                let before = self.subscription.lock().replace(stream.shutdown.clone());
                let resumed = before.is_some() && same_queue;
                Ok(Subscribed {
                    messages: Box::new(stream),
                    prober: Box::new(crate::adapters::no_prober::NoProber),
                    resumed,
                })
            })
            .await
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(self.call("answer", async |publisher: Arc<Publisher>| {
            // A missing exchange closes the channel, so each ping uses a new one.
            let channel = publisher.connection.channel().await?;
            Ok(check_exchange(&channel, &self.topology.exchange, &self.topology.kind).await?)
        }))
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if let Some(shutdown) = self.live_subscription() {
                shutdown.trigger();
            }
            self.publisher.take_if(|_| true).await;
            Ok(())
        })
    }
}
