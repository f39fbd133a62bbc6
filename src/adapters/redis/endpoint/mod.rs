//! Where Redis is, and how to connect to it: the same for the store and for the transport.

pub(crate) mod client;
pub(crate) mod role;
mod sentinel;
pub(crate) mod tls;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, RedisResult,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};
use tokio::time::{sleep, timeout};

use self::{
    client::{client, open, tcp},
    sentinel::{MasterAddress, Sentinel},
    tls::TlsMaterial,
};
use super::connection::{Connection, ExternalConnection};
use crate::{
    adapters::task::timeout_named,
    error::{BoxError, BuildError},
};

/// An address as the application gave it, not checked yet.
pub(crate) enum Address {
    Server(String),
    Cluster(Vec<String>),
    /// The URLs of the sentinels and of the master, whose host is the name that sentinels know.
    Sentinel(Vec<String>, String),
    /// Made from a client or a connection of the application.
    Ready(Box<Endpoint>),
}

impl Address {
    /// Checks the address and makes the clients. Connects to nothing. The nodes of a Cluster have
    /// `timeout` each to connect for commands about keys.
    pub(crate) fn build(self, tls: TlsMaterial, timeout: Duration) -> Result<Endpoint, BuildError> {
        Ok(match self {
            Self::Ready(endpoint) => *endpoint,
            Self::Server(url) => Endpoint::Server(client(&url, &tls)?),
            Self::Sentinel(urls, master) => Endpoint::Sentinel(Sentinel::new(&urls, &master, tls)?),
            Self::Cluster(urls) => {
                let fix = "write one URL or more";
                BuildError::refuse_if(urls.is_empty(), "redis.cluster", "names no node", fix)?;
                let nodes = urls.iter().map(|url| client(url, &tls));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                let commands = ClusterClientBuilder::new(urls)
                    .connection_timeout(timeout)
                    // Half of the longest read timeout. The store has its own rules for retries.
                    .response_timeout(MAX_COMMAND_TIME)
                    .overall_response_timeout(Some(MAX_COMMAND_TIME))
                    .retries(4)
                    .min_retry_wait(10)
                    .max_retry_wait(100)
                    .tcp_settings(tcp());
                Endpoint::Cluster {
                    commands: tls.cluster(commands).build().map(Box::new),
                    next: AtomicUsize::new(fastrand::usize(..nodes.len())),
                    nodes,
                }
            }
        })
    }
}

/// Limit of a command to a Cluster, its retries included. Callers have shorter deadlines.
const MAX_COMMAND_TIME: Duration = Duration::from_secs(60);

/// One Redis: a server, a Cluster, the master that sentinels name, or a connection of the
/// application.
pub(crate) enum Endpoint {
    Server(Client),
    Cluster {
        /// Sends each command to the node of its key. An error if the URLs of the nodes
        /// contradict each other, for example in the password.
        commands: RedisResult<Box<ClusterClient>>,
        /// The nodes that the application named, for connections to any node.
        nodes: Vec<Client>,
        /// Index of the node that is tried first next time. It starts at random and moves with
        /// each connection: instances spread over the nodes, and a reconnect leaves a node that
        /// accepts connections but fails later.
        next: AtomicUsize,
    },
    Sentinel(Sentinel),
    /// A connection that only the application can replace.
    External(Arc<dyn ExternalConnection>),
    ExternalCluster(ClusterConnection),
}

/// A connection that was just made, and the address of its server if sentinels named it.
pub(crate) type Connected<C = Connection> = (C, Option<MasterAddress>);

/// Servers that are tried in sequence share a limit: each may use up a third of it, so that two
/// that do not answer leave time for a third.
const SERVERS_TO_TRY: u32 = 3;

impl Endpoint {
    /// Connects for commands about keys. A sentinel and the server that it names have `limit` each
    /// to answer.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Connected, BoxError> {
        let connection = match self {
            Self::Server(client) => Connection::Server(open(client, limit).await?),
            Self::Cluster { commands, .. } => {
                let client = commands.as_ref().map_err(Clone::clone)?;
                Connection::Cluster(client.get_async_connection().await?)
            }
            Self::Sentinel(sentinel) => {
                let master = sentinel.master(limit).await?;
                return Ok((Connection::Server(master.connection), Some(master.address)));
            }
            Self::External(external) => Connection::External(Arc::clone(external)),
            Self::ExternalCluster(cluster) => Connection::Cluster(cluster.clone()),
        };
        Ok((connection, None))
    }

    /// Connects to one server by calling `connect` with its client. Takes no longer than `limit`.
    ///
    /// In a Cluster any node will do: it forwards each message to the subscribers of all nodes.
    ///
    /// # Alternatives considered
    ///
    /// The client's own connection to a Cluster: it looks for the node of a key, and a channel
    /// needs no particular one.
    pub(crate) async fn connect_with<C, F>(
        &self,
        limit: Duration,
        connect: impl Fn(Client) -> F,
    ) -> Result<Connected<C>, BoxError>
    where
        F: Future<Output = Result<C, BoxError>>,
    {
        timeout_named(limit, "connect", async {
            match self {
                Self::Server(client) => Ok((connect(client.clone()).await?, None)),
                Self::Sentinel(sentinel) => {
                    let master = sentinel.master(limit / SERVERS_TO_TRY).await?;
                    Ok((connect(master.client).await?, Some(master.address)))
                }
                Self::Cluster { nodes, next, .. } => {
                    let next = next.fetch_add(1, Ordering::Relaxed);
                    let first = next.checked_rem(nodes.len()).unwrap_or(0);
                    let mut last: BoxError = "no node was asked".into();
                    for node in nodes.iter().cycle().skip(first).take(nodes.len()) {
                        match timeout(limit / SERVERS_TO_TRY, connect(node.clone())).await {
                            Ok(Ok(connection)) => return Ok((connection, None)),
                            Ok(Err(error)) => last = error,
                            Err(_) => last = "a node does not answer".into(),
                        }
                    }
                    Err(last)
                }
                Self::External(_) | Self::ExternalCluster(_) => {
                    Err("only the application can make another connection".into())
                }
            }
        })
        .await
    }

    /// Returns true if the sentinels name another master than this one. Takes no longer than
    /// `limit`.
    pub(crate) async fn has_moved(&self, from: Option<&MasterAddress>, limit: Duration) -> bool {
        match (self, from) {
            (Self::Sentinel(sentinel), Some(known)) => sentinel.has_changed(known, limit).await,
            _ => false,
        }
    }

    /// Returns once the sentinels name another master. Without sentinels it never returns.
    pub(crate) async fn moved(&self, from: Option<&MasterAddress>, every: Duration) {
        if from.is_none() {
            return pending().await;
        }
        sleep(every).await;
        while !self.has_moved(from, every).await {
            sleep(every).await;
        }
    }

    /// Returns true if only the application can replace the connection.
    pub(crate) fn is_external(&self) -> bool {
        matches!(self, Self::External(_) | Self::ExternalCluster(_))
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. } | Self::ExternalCluster(_))
    }
}
