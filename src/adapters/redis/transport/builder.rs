//! Builds a [`RedisTransport`] from an address and options, and checks both.

use std::{sync::Arc, time::Duration};

use redis::{Client, aio::ConnectionLike};

use super::{RedisTransport, options::RedisTransportOptions, publisher::Publisher};
use crate::{
    adapters::redis::{
        builder::redis_builder,
        connection::ExternalConnection,
        endpoint::{Address, Endpoint, tls::TlsMaterial},
    },
    error::BuildError,
};

redis_builder!(
    RedisTransport,
    RedisTransportBuilder { external: Option<Arc<dyn ExternalConnection>> = None },
    RedisTransportOptions {
        channel: impl Into<String>,
        queue_capacity: usize,
        queue_max_bytes: usize,
        connect_timeout: Duration,
        confirm_timeout: Duration,
        heartbeat: Duration,
    }
);

impl RedisTransport {
    /// Uses a single server, with connections that a client of the application makes.
    pub fn over(client: Client) -> RedisTransportBuilder {
        RedisTransportBuilder::new(Address::Ready(Box::new(Endpoint::Server(client))))
    }
}

impl RedisTransportBuilder {
    /// Publishes over a connection of the application: a `MultiplexedConnection`, or better a
    /// `ConnectionManager` or a `ClusterConnection`, since the transport never replaces or closes
    /// it, and does not check which server it leads to. Subscriptions still have connections of
    /// their own, because a connection that is subscribed may be unable to do anything else.
    pub fn publish_over(
        mut self,
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Self {
        self.external = Some(Arc::new(connection));
        self
    }

    /// Builds the transport. Connects to nothing.
    ///
    /// # Errors
    ///
    /// Fails if a URL or an option is invalid. The error names the option and the fix.
    pub fn build(self) -> Result<RedisTransport, BuildError> {
        self.options.check()?;
        let endpoint = self.address.build(self.tls, self.options.connect_timeout)?;
        let publisher = Arc::new(Publisher::new(endpoint, self.options, self.external));
        Ok(RedisTransport { publisher })
    }
}
