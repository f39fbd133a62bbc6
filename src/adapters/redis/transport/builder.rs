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
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::RedisTransport;
    ///
    /// let bus = RedisTransport::at("redis://127.0.0.1/")
    ///     .channel("shop:invalidations")
    ///     .queue_capacity(50_000_usize)
    ///     .queue_max_bytes(64_usize << 20)
    ///     .connect_timeout(Duration::from_secs(2))
    ///     .confirm_timeout(Duration::from_secs(2))
    ///     .heartbeat(Duration::from_secs(1))
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::RedisTransport;
    /// use redis::Client;
    ///
    /// let client = Client::open("redis://127.0.0.1/")?;
    /// let bus = RedisTransport::over(client).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn over(client: Client) -> RedisTransportBuilder {
        RedisTransportBuilder::new(Address::Ready(Box::new(Endpoint::Server(client))))
    }
}

impl RedisTransportBuilder {
    /// Publishes over a connection of the application: a `MultiplexedConnection`, or better a
    /// `ConnectionManager` or a `ClusterConnection`, since the transport never replaces or closes
    /// it, and does not check which server it leads to. Subscriptions still have connections of
    /// their own, because a connection that is subscribed may be unable to do anything else.
    ///
    /// ```no_run
    /// use lazy_layers_cache::RedisTransport;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = redis::Client::open("redis://127.0.0.1/")?;
    /// let connection = client.get_multiplexed_async_connection().await?;
    /// let bus = RedisTransport::at("redis://127.0.0.1/").publish_over(connection).build()?;
    /// # Ok(()) }
    /// ```
    pub fn publish_over(
        mut self,
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Self {
        self.external = Some(Arc::new(connection));
        self
    }

    /// Builds the transport. Connects to nothing.
    ///
    /// ```
    /// use lazy_layers_cache::RedisTransport;
    ///
    /// let refused = RedisTransport::at("redis://127.0.0.1/").channel("").build().unwrap_err();
    /// assert_eq!(refused.option(), "channel");
    /// ```
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
