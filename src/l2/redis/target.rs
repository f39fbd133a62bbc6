//! Where Redis is, and how to get a connection to it.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::{
    connection::{Connection, Given},
    sentinel::Sentinel,
    tls::Certificates,
};
use crate::error::{BoxError, BuildError};

pub(super) enum Target {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Sentinel),
    Given(Arc<dyn Given>),
    GivenCluster(ClusterConnection),
}

/// What a command of a Cluster may take beyond our own deadlines, which come first.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

impl Target {
    pub(super) fn one(url: &str, certificates: &Certificates) -> Result<Self, BuildError> {
        Ok(Self::One(Box::new(client(url, certificates)?)))
    }

    pub(super) fn cluster(
        urls: &[String],
        certificates: &Certificates,
        timeout: Duration,
    ) -> Result<Self, BuildError> {
        let nodes = urls.iter().map(|url| info(url)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(BuildError::new("redis.cluster", "names no node", "write one URL or more"));
        }
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

    pub(super) fn sentinel(
        sentinels: &[String],
        master: &str,
        certificates: Certificates,
    ) -> Result<Self, BuildError> {
        let sentinels = sentinels.iter().map(|url| client(url, &certificates));
        let sentinels = sentinels.collect::<Result<Vec<_>, _>>()?;
        if sentinels.is_empty() {
            let fix = "write one URL or more";
            return Err(BuildError::new("redis.sentinel", "names no sentinel", fix));
        }
        Sentinel::new(sentinels, &info(master)?, certificates).map(Self::Sentinel)
    }

    pub(super) async fn connect(&self, timeout: Duration) -> Result<Connection, BoxError> {
        match self {
            Self::One(client) => Ok(Connection::One(open(client, timeout).await?)),
            Self::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
            Self::Sentinel(sentinel) => Ok(Connection::One(sentinel.connect(timeout).await?)),
            Self::Given(given) => Ok(Connection::Given(Arc::clone(given))),
            Self::GivenCluster(cluster) => Ok(Connection::Cluster(cluster.clone())),
        }
    }

    /// Whether it is the user's connection, which nobody but the user can make anew.
    pub(super) fn is_given(&self) -> bool {
        matches!(self, Self::Given(_) | Self::GivenCluster(_))
    }

    /// Whether there is a better server by now than the one connected to. Takes no longer than
    /// `timeout` to find out.
    pub(super) async fn has_another(&self, timeout: Duration) -> bool {
        match self {
            Self::Sentinel(sentinel) => sentinel.has_another(timeout).await,
            _ => false,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::GivenCluster(_))
    }
}

pub(super) async fn open(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        // Each call has its own deadline.
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A small command is sent at once, and not held back to be sent with the next. A peer that is gone
/// without a word is noticed by the kernel too, where nobody asks: by a Cluster's connections to
/// nodes that are not in use, say.
pub(super) fn tcp() -> TcpSettings {
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(IDLE / 2);
    with_user_timeout(TcpSettings::default().set_nodelay(true).set_keepalive(probes))
}

/// How long a connection is idle before it is probed.
const IDLE: Duration = Duration::from_secs(10);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings.set_user_timeout(IDLE * 2)
}

/// Elsewhere the system has no such setting, or the client does not know it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings
}

fn client(url: &str, certificates: &Certificates) -> Result<Client, BuildError> {
    let info = info(url)?.set_tcp_settings(tcp());
    certificates.client(info).map_err(|error| refused(&error))
}

fn info(url: &str) -> Result<ConnectionInfo, BuildError> {
    url.into_connection_info().map_err(|error| refused(&error))
}

fn refused(error: &RedisError) -> BuildError {
    let fix = "write redis://[user:password@]host[:port][/database], or rediss:// for TLS, which \
               needs the feature `redis-tls`";
    BuildError::new("redis.url", format!("is refused ({error})"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_probed_and_given_up_by_the_kernel_too() {
        let settings = tcp();
        assert!(settings.nodelay() && settings.keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(settings.user_timeout(), Some(IDLE * 2));
    }
}
