//! Where Redis is, and how to get a connection to it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{
    Client,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};

use super::connection::Connection;
use super::endpoint::{
    Certificates, Given, Named, Sentinel, check_nodes, client, info, open, refused, tcp,
};
use crate::error::{BoxError, BuildError};

pub(crate) enum Target {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Followed),
    Given(Arc<dyn Given>),
    GivenCluster(ClusterConnection),
}

pub(crate) struct Followed {
    sentinel: Sentinel,
    /// Where the master was when it was last connected to.
    address: Mutex<Option<Named>>,
}

/// What a command of a Cluster may take beyond our own deadlines, which come first.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

impl Target {
    pub(crate) fn one(url: &str, certificates: &Certificates) -> Result<Self, BuildError> {
        Ok(Self::One(Box::new(client(url, certificates)?)))
    }

    pub(crate) fn cluster(
        urls: &[String],
        certificates: &Certificates,
        timeout: Duration,
    ) -> Result<Self, BuildError> {
        check_nodes(urls)?;
        let nodes = urls.iter().map(|url| info(url)).collect::<Result<Vec<_>, _>>()?;
        let client = ClusterClientBuilder::new(nodes)
            .connection_timeout(timeout)
            // Half of what a read may take at most; what fails is tried anew by our own rules.
            .response_timeout(LONGEST_COMMAND)
            .overall_response_timeout(Some(LONGEST_COMMAND))
            .retries(4)
            .min_retry_wait(10)
            .max_retry_wait(100)
            .tcp_settings(tcp());
        let client = certificates.cluster(client).build();
        client.map(Box::new).map(Self::Cluster).map_err(|error| refused(&error))
    }

    pub(crate) fn sentinel(
        sentinels: &[String],
        master: &str,
        certificates: Certificates,
    ) -> Result<Self, BuildError> {
        let sentinel = Sentinel::new(sentinels, master, certificates)?;
        Ok(Self::Sentinel(Followed { sentinel, address: Mutex::new(None) }))
    }

    pub(crate) async fn connect(&self, timeout: Duration) -> Result<Connection, BoxError> {
        match self {
            Self::One(client) => Ok(Connection::One(open(client, timeout).await?)),
            Self::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
            Self::Sentinel(Followed { sentinel, address }) => {
                let master = sentinel.master(timeout).await?;
                *address.lock() = Some(master.named);
                Ok(Connection::One(master.connection))
            }
            Self::Given(given) => Ok(Connection::Given(Arc::clone(given))),
            Self::GivenCluster(cluster) => Ok(Connection::Cluster(cluster.clone())),
        }
    }

    /// Whether it is the user's connection, which nobody but the user can make anew.
    pub(crate) fn is_given(&self) -> bool {
        matches!(self, Self::Given(_) | Self::GivenCluster(_))
    }

    /// Whether there is a better server by now than the one connected to. Takes no longer than
    /// `timeout` to find out.
    pub(crate) async fn has_another(&self, timeout: Duration) -> bool {
        let Self::Sentinel(Followed { sentinel, address }) = self else { return false };
        let known = address.lock().clone();
        match known {
            Some(known) => sentinel.has_another(&known, timeout).await,
            None => false,
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::GivenCluster(_))
    }
}
