//! Publishes messages, beacons and probes over one connection.

use std::sync::{Arc, Weak};

use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::sync::watch;

use super::{channels, options::RedisTransportOptions, publisher_connection::PublisherConnection};
use crate::{
    adapters::{
        client_name::ClientName,
        connection_slot::ConnectionSlot,
        redis::{connection::ExternalConnection, endpoint::Endpoint},
        task::{runtime, timeout_named},
    },
    bus::transport::{Prober, TransportFuture},
    error::BoxError,
};

pub(crate) struct Publisher {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) options: RedisTransportOptions,
    pub(crate) client_name: ClientName,
    slot: ConnectionSlot<PublisherConnection>,
    /// A connection of the application, which publishes instead.
    external: Option<Arc<dyn ExternalConnection>>,
    /// Tells all current subscriptions to end.
    pub(crate) ends: watch::Sender<()>,
}

impl Publisher {
    pub(crate) fn new(
        endpoint: Endpoint,
        options: RedisTransportOptions,
        external: Option<Arc<dyn ExternalConnection>>,
    ) -> Self {
        let (endpoint, slot, ends) =
            (Arc::new(endpoint), ConnectionSlot::new(), watch::channel(()).0);
        Self { endpoint, options, client_name: ClientName::default(), slot, external, ends }
    }

    /// Publishes to a channel.
    pub(crate) async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), BoxError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(payload);
        self.send(&publish).await
    }

    /// Sends a command over the current connection, or connects first. A failed command is not
    /// sent again. It ends the connection, unless the server has refused the command.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<(), BoxError> {
        let (slot, limit) = (&self.slot, self.options.confirm_timeout);
        let refusal = |error: RedisError| channels::with_fix(&self.options.channel, error);
        let checked = |reply: RedisResult<Value>| {
            reply.and_then(Value::extract_error).map(drop).map_err(refusal)
        };
        if let Some(external) = &self.external {
            runtime()?;
            let mut connection = external.clone_boxed();
            let sending = async { checked(connection.req_packed_command(command).await) };
            return timeout_named(limit, "answer", sending).await;
        }
        let connecting =
            || PublisherConnection::open(&self.endpoint, &self.options, &self.client_name);
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
        checked(Ok(reply))
    }

    /// Ends all subscriptions and closes the connection.
    pub(crate) async fn disconnect(&self) {
        self.ends.send_replace(());
        self.slot.take_if(|_| true).await;
    }
}

/// Sends the probes of one subscription, over the connection that publishes its instance's
/// messages.
pub(crate) struct RedisProber {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) channel: Arc<str>,
    /// Gone once the subscription has ended.
    pub(crate) in_force: Weak<()>,
}

impl Prober for RedisProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if self.in_force.strong_count() == 0 {
                return Err("the subscription has ended".into());
            }
            self.publisher.publish(&self.channel, number.to_string().as_bytes()).await
        })
    }
}
