//! Where Redis is, and how to get a connection to it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};

use super::{
    connection::{Connection, Given},
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

pub(super) struct Sentinel {
    sentinels: Vec<Client>,
    certificates: Certificates,
    name: String,
    /// What to say to the master; its address is what the sentinels say.
    master: RedisConnectionInfo,
    with_tls: bool,
    /// Where the master was when it was last connected to.
    address: Mutex<Option<(String, u16)>>,
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
        let master = info(master)?;
        let (name, with_tls) = match master.addr() {
            ConnectionAddr::Tcp(name, _) => (name.clone(), false),
            ConnectionAddr::TcpTls { host, .. } => (host.clone(), true),
            _ => {
                return Err(BuildError::new(
                    "redis.sentinel",
                    "needs the master's name",
                    "write it as the host of a URL, as in redis://:password@mymaster/0",
                ));
            }
        };
        let master = master.redis_settings().clone();
        Ok(Self::Sentinel(Sentinel {
            sentinels,
            certificates,
            name,
            master,
            with_tls,
            address: Mutex::new(None),
        }))
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

    /// Whether there is a better server by now than the one connected to.
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

impl Sentinel {
    /// Asks one sentinel after the other who the master is, and the master whether it is.
    async fn connect(&self, timeout: Duration) -> Result<MultiplexedConnection, BoxError> {
        let mut last: BoxError = "no sentinel was asked".into();
        for sentinel in &self.sentinels {
            match self.connect_by(sentinel, timeout).await {
                Ok(master) => return Ok(master),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether a sentinel names another master: the one connected to may not know yet that it is
    /// none any more, and for some seconds takes writes that will be lost.
    async fn has_another(&self, timeout: Duration) -> bool {
        let known = self.address.lock().clone();
        for sentinel in &self.sentinels {
            if let Ok(named) = self.ask(sentinel, timeout).await {
                return known.is_some_and(|known| known != named);
            }
        }
        false
    }

    async fn ask(&self, sentinel: &Client, timeout: Duration) -> Result<(String, u16), BoxError> {
        let mut asked = open(sentinel, timeout).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let address: Option<(String, u16)> = question.query_async(&mut asked).await?;
        Ok(address.ok_or_else(|| format!("the sentinel knows no master named `{}`", self.name))?)
    }

    async fn connect_by(
        &self,
        sentinel: &Client,
        timeout: Duration,
    ) -> Result<MultiplexedConnection, BoxError> {
        let (host, port) = self.ask(sentinel, timeout).await?;
        let known = (host.clone(), port);
        let address = if self.with_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info()?.set_redis_settings(self.master.clone());
        let client = self.certificates.client(info.set_tcp_settings(tcp()))?;
        let mut master = open(&client, timeout).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut master).await?;
        match role.first() {
            Some(redis::Value::BulkString(role)) if role == b"master" => {
                *self.address.lock() = Some(known);
                Ok(master)
            }
            _ => Err("the server that the sentinel names is no master yet".into()),
        }
    }
}

async fn open(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        // Each call has its own deadline.
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Without `TCP_NODELAY`: of calls that overlap, the kernel sends those together that come while
/// the one before is not acknowledged yet, as its answer does. It costs such a call a round trip at
/// most. With it the client sends each command in a packet of its own, and 64 tasks on loopback
/// get a third fewer answers, each of them later.
fn tcp() -> TcpSettings {
    TcpSettings::default()
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
