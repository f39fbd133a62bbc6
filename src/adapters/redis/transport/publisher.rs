//! Publishes messages, beacons and probes over one connection.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use redis::{Cmd, FromRedisValue, Value, aio::ConnectionLike};
use tokio::sync::watch;

use super::{
    options::RedisTransportOptions,
    publisher_connection::PublisherConnection,
    refusals::{Refusals, SIZE_LIMITS, closes_connection, is_large_and_broken},
};
use crate::{
    adapters::{
        client_name::ClientName,
        connection_slot::ConnectionSlot,
        redis::{connection::ExternalConnection, endpoint::Endpoint},
        task::{runtime, timeout_named},
    },
    bus::transport::{MessageRefused, Prober, TransportFuture},
    error::BoxError,
};

pub(crate) struct Publisher {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) options: RedisTransportOptions,
    pub(crate) client_name: ClientName,
    slot: ConnectionSlot<PublisherConnection>,
    refusals: Refusals,
    /// A connection of the application, which publishes instead.
    external: Option<Arc<dyn ExternalConnection>>,
    /// Tells all current subscriptions to end.
    pub(crate) ends: watch::Sender<()>,
}

/// The connection for one command.
enum Route {
    Own(Arc<PublisherConnection>),
    External(Box<dyn ConnectionLike + Send>),
}

impl Publisher {
    pub(crate) fn new(
        endpoint: Endpoint,
        options: RedisTransportOptions,
        external: Option<Arc<dyn ExternalConnection>>,
    ) -> Self {
        let (endpoint, slot, ends) =
            (Arc::new(endpoint), ConnectionSlot::new(), watch::channel(()).0);
        Self {
            endpoint,
            options,
            client_name: ClientName::default(),
            slot,
            refusals: Refusals::default(),
            external,
            ends,
        }
    }

    /// Publishes to a channel.
    pub(crate) async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), BoxError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(payload);
        let route = self.route().await?;
        let before = self.refusals.begin();
        let sent = self.send(route, &publish).await.map(drop);
        let len = payload.len();
        let is_broken = sent.as_ref().is_err_and(|error| is_large_and_broken(len, error));
        let checked = self.refusals.check(before, (&self.options.channel, len), sent);
        match is_broken {
            true => match self.ask_limit_below(len).await {
                Some(limit) => Err(MessageRefused::new(limit).into()),
                None => checked,
            },
            false => checked,
        }
    }

    pub(crate) async fn ping(&self) -> Result<(), BoxError> {
        self.send(self.route().await?, &redis::cmd("PING")).await.map(drop)
    }

    /// Asks for the limits of the server. Returns the reason and the fix if a message is larger
    /// than one of them. Few users are allowed to ask.
    async fn ask_limit_below(&self, len: usize) -> Option<String> {
        for option in SIZE_LIMITS {
            let mut ask = redis::cmd("CONFIG");
            let reply = self.send(self.route().await.ok()?, ask.arg("GET").arg(option)).await;
            let limits = HashMap::<String, usize>::from_redis_value(reply.ok()?).ok()?;
            if let Some(limit) = limits.get(option).filter(|limit| **limit < len) {
                let fix = format!("the fix is: CONFIG SET {option} {}", len.next_power_of_two());
                return Some(format!("{option} is {limit}, the message has {len} bytes; {fix}"));
            }
        }
        None
    }

    /// Returns the current connection, or connects.
    async fn route(&self) -> Result<Route, BoxError> {
        if let Some(external) = &self.external {
            runtime()?;
            return Ok(Route::External(external.clone_boxed()));
        }
        let connecting =
            || PublisherConnection::open(&self.endpoint, &self.options, &self.client_name);
        let is_usable = PublisherConnection::is_usable;
        let limit = self.options.connect_timeout;
        Ok(Route::Own(self.slot.get_or_connect(limit, is_usable, connecting).await?))
    }

    /// Sends a command. A failed command is not sent again. It ends the connection, unless the
    /// server has refused the command and goes on.
    async fn send(&self, route: Route, command: &Cmd) -> Result<Value, BoxError> {
        let (slot, limit) = (&self.slot, self.options.confirm_timeout);
        let connection = match route {
            Route::Own(connection) => connection,
            Route::External(mut external) => {
                let sending = async { Ok(external.req_packed_command(command).await?) };
                return Ok(timeout_named(limit, "answer", sending).await?.extract_error()?);
            }
        };
        let call = connection.begin_call();
        let reply = timeout_named(limit, "answer", connection.send(command)).await;
        call.disarm();
        let reply = reply.map(|reply| reply.map(Value::extract_error));
        let goes_on = match &reply {
            Ok(Some(Err(error))) => !closes_connection(error),
            Ok(Some(Ok(_))) => true,
            Ok(None) | Err(_) => false,
        };
        if !goes_on {
            slot.take_if(|it| Arc::ptr_eq(it, &connection)).await;
        }
        let Some(reply) = reply? else {
            // The subscriptions are probably connected to the same server.
            self.ends.send_replace(());
            return Err("the server has become a replica".into());
        };
        Ok(reply?)
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
    /// Changes when the subscription is told to end.
    pub(crate) ends: watch::Receiver<()>,
}

impl Prober for RedisProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let is_told_to_end = self.ends.has_changed().unwrap_or(true);
            if is_told_to_end || self.in_force.strong_count() == 0 {
                return Err("the subscription has ended".into());
            }
            self.publisher.publish(&self.channel, number.to_string().as_bytes()).await
        })
    }
}
