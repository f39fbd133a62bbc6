//! Servers that know which server is the master.

use std::time::Duration;

use redis::{
    Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, aio::MultiplexedConnection,
};

use super::{Certificates, client, info, open, tcp};
use crate::error::{BoxError, BuildError};

/// Host and port of a master, as the sentinels say it.
pub(crate) type Address = (String, u16);

pub(crate) struct Sentinel {
    sentinels: Vec<Client>,
    certificates: Certificates,
    name: String,
    /// What to say to the master; its address is what the sentinels say.
    master: RedisConnectionInfo,
    with_tls: bool,
}

/// The server that a sentinel names, and that agrees.
pub(crate) struct Master {
    pub(crate) client: Client,
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: Address,
}

impl Sentinel {
    pub(crate) fn new(
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
        Ok(Self { sentinels, certificates, name, master, with_tls })
    }

    /// Asks one sentinel after the other who the master is, and the master whether it is. Each
    /// connection may take that long.
    pub(crate) async fn master(&self, timeout: Duration) -> Result<Master, BoxError> {
        let mut last: BoxError = "no sentinel was asked".into();
        for sentinel in &self.sentinels {
            match self.master_by(sentinel, timeout).await {
                Ok(master) => return Ok(master),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether a sentinel names another master: the one connected to may not know yet that it is
    /// none any more, and for some seconds takes writes that will be lost.
    pub(crate) async fn has_another(&self, known: &Address, timeout: Duration) -> bool {
        for sentinel in &self.sentinels {
            if let Ok(named) = self.ask(sentinel, timeout).await {
                return *known != named;
            }
        }
        false
    }

    async fn ask(&self, sentinel: &Client, timeout: Duration) -> Result<Address, BoxError> {
        let mut asked = open(sentinel, timeout).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let address: Option<Address> = question.query_async(&mut asked).await?;
        Ok(address.ok_or_else(|| format!("the sentinel knows no master named `{}`", self.name))?)
    }

    async fn master_by(&self, sentinel: &Client, timeout: Duration) -> Result<Master, BoxError> {
        let (host, port) = self.ask(sentinel, timeout).await?;
        let address = (host.clone(), port);
        let server = if self.with_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = server.into_connection_info()?.set_redis_settings(self.master.clone());
        let client = self.certificates.client(info.set_tcp_settings(tcp()))?;
        let mut connection = open(&client, timeout).await?;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        match role.first() {
            Some(redis::Value::BulkString(role)) if role == b"master" => {
                Ok(Master { client, connection, address })
            }
            _ => Err("the server that the sentinel names is no master yet".into()),
        }
    }
}
