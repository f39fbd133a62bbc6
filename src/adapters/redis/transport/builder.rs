//! How a transport over Redis is made.

use std::{fmt, sync::Arc, time::Duration};

use redis::{Client, aio::ConnectionLike};
use tokio::sync::watch;

use super::{
    RedisTransport,
    options::RedisTransportOptions,
    place::{Nodes, Place},
    publisher::Publisher,
};
use crate::{
    adapters::redis::endpoint::{Certificates, Given, Sentinel, check_nodes, client},
    error::BuildError,
};

/// Makes a [`RedisTransport`].
#[must_use = "nothing happens before build()"]
pub struct RedisTransportBuilder {
    origin: Origin,
    pub(crate) certificates: Certificates,
    given: Option<Arc<dyn Given>>,
    options: RedisTransportOptions,
}

pub(crate) enum Origin {
    One(String),
    Cluster(Vec<String>),
    Sentinel(Vec<String>, String),
    Client(Client),
}

impl RedisTransportBuilder {
    pub(crate) fn new(origin: Origin) -> Self {
        let (certificates, options) = (Certificates::default(), RedisTransportOptions::default());
        Self { origin, certificates, given: None, options }
    }

    /// Publishes by a connection that the application has: a `MultiplexedConnection`, or better a
    /// `ConnectionManager` or a `ClusterConnection`, for it is not made anew here when it breaks,
    /// and never closed. Where it leads is not checked. Subscriptions have connections of their
    /// own all the same: one that is subscribed may be good for nothing else.
    pub fn publish_over(
        mut self,
        connection: impl ConnectionLike + Clone + Send + Sync + 'static,
    ) -> Self {
        self.given = Some(Arc::new(connection));
        self
    }

    /// Replaces all options, for example by those read from a config file.
    pub fn options(mut self, options: RedisTransportOptions) -> Self {
        self.options = options;
        self
    }

    /// See [`RedisTransportOptions::channel`].
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.options = self.options.channel(channel);
        self
    }

    /// See [`RedisTransportOptions::queue_capacity`].
    pub fn queue_capacity(mut self, events: usize) -> Self {
        self.options = self.options.queue_capacity(events);
        self
    }

    /// See [`RedisTransportOptions::connect_timeout`].
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options = self.options.connect_timeout(limit);
        self
    }

    /// See [`RedisTransportOptions::confirm_timeout`].
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.options = self.options.confirm_timeout(limit);
        self
    }

    /// See [`RedisTransportOptions::heartbeat`].
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.options = self.options.heartbeat(every);
        self
    }

    /// Builds the transport. Connects to nothing.
    ///
    /// # Errors
    ///
    /// A URL that is none, and wrong options; the error names the option and the fix.
    pub fn build(self) -> Result<RedisTransport, BuildError> {
        let Self { origin, certificates, given, options } = self;
        options.check()?;
        let place = match origin {
            Origin::One(url) => Place::One(client(&url, &certificates)?),
            Origin::Client(client) => Place::One(client),
            Origin::Sentinel(urls, master) => {
                Place::Sentinel(Sentinel::new(&urls, &master, certificates)?)
            }
            Origin::Cluster(urls) => {
                check_nodes(&urls)?;
                let nodes = urls.iter().map(|url| client(url, &certificates));
                Place::Cluster(Nodes::new(nodes.collect::<Result<_, _>>()?))
            }
        };
        let own = || Publisher::Own(tokio::sync::Mutex::default());
        Ok(RedisTransport {
            place: Arc::new(place),
            publisher: given.map_or_else(own, Publisher::Given),
            options,
            ends: watch::channel(0).0,
        })
    }
}

impl fmt::Debug for RedisTransportBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTransportBuilder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
