//! Builds a [`RedisTransport`] from an address and options, and checks both.

use std::{sync::Arc, time::Duration};

use redis::{Client, aio::ConnectionLike};

use super::{RedisTransport, options::RedisTransportOptions, publisher::Publisher};
use crate::{
    adapters::{
        connection_slot::ConnectionSlot,
        redis::{
            builder::builder_setters,
            endpoint::{Endpoint, EndpointConfig},
        },
    },
    error::BuildError,
};

impl RedisTransport {
    /// Uses a single server. Its URL is `redis://[user:password@]host[:port]`, or `rediss://` for
    /// TLS with the feature `redis-tls`. A database in the URL makes no difference: channels
    /// belong to the server.
    pub fn at(url: impl Into<String>) -> RedisTransportBuilder {
        RedisTransportBuilder::new(EndpointConfig::server(url))
    }

    /// Uses a Cluster. Takes the URLs of several of its nodes: the transport does not look for
    /// others.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisTransportBuilder {
        RedisTransportBuilder::new(EndpointConfig::cluster(urls))
    }

    /// Uses the master that sentinels name. Takes the URLs of the sentinels, and the URL of the
    /// master with its name as the host: `redis://:password@mymaster/0`.
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> RedisTransportBuilder {
        RedisTransportBuilder::new(EndpointConfig::sentinel(urls, master))
    }

    /// Uses a single server, with connections that a client of the application makes.
    pub fn over(client: Client) -> RedisTransportBuilder {
        RedisTransportBuilder::new(EndpointConfig::ready(Endpoint::Server(client)))
    }
}

/// Builds a [`RedisTransport`].
#[must_use = "nothing happens before build()"]
pub struct RedisTransportBuilder {
    pub(crate) endpoint: EndpointConfig,
    publisher: Publisher,
    options: RedisTransportOptions,
}

builder_setters!(RedisTransportBuilder for RedisTransportOptions {
    channel: impl Into<String>,
    queue_capacity: usize,
    connect_timeout: Duration,
    confirm_timeout: Duration,
    heartbeat: Duration,
});

impl RedisTransportBuilder {
    fn new(endpoint: EndpointConfig) -> Self {
        let publisher = Publisher::Own(ConnectionSlot::new());
        Self { endpoint, publisher, options: RedisTransportOptions::default() }
    }

    /// Publishes over a connection of the application: a `MultiplexedConnection`, or better a
    /// `ConnectionManager` or a `ClusterConnection`, since the transport never replaces or closes
    /// it, and does not check which server it leads to. Subscriptions still have connections of
    /// their own, because a connection that is subscribed may be unable to do anything else.
    pub fn publish_over(
        mut self,
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Self {
        self.publisher = Publisher::External(Arc::new(connection));
        self
    }

    /// Builds the transport. Connects to nothing.
    ///
    /// # Errors
    ///
    /// Fails if a URL or an option is invalid. The error names the option and the fix.
    pub fn build(self) -> Result<RedisTransport, BuildError> {
        self.options.check()?;
        Ok(RedisTransport::new(self.endpoint.build()?, self.publisher, self.options))
    }
}
