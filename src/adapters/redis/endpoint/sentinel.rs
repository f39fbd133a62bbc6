//! Finds the master that sentinels name.
//!
//! All sentinels are asked at once, each with its own limit, so that a dead one delays nothing. A
//! sentinel that was cut off during a failover names an outdated master. Each failover has a
//! number, the config epoch, so the answer with the highest epoch counts. The server that it names
//! is asked for its role: it may not be promoted yet, or no longer be the master.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{
    Client, ConnectionAddr, ConnectionInfo, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    client::{client, info, open, tcp},
    role::Role,
    tls::TlsMaterial,
};
use crate::{
    adapters::redis::{connection::decode, refusal::is_command_refusal},
    error::{BoxError, BuildError},
};

pub(crate) struct Sentinel {
    sentinels: Vec<Client>,
    tls: TlsMaterial,
    /// The name by which the sentinels know the master.
    name: Arc<str>,
    /// User, password, database and TLS of the master, with its name in place of its address.
    master: ConnectionInfo,
}

/// The server that the sentinels name. It has confirmed that it is a master, if it offers `ROLE`.
pub(crate) struct Master {
    pub(crate) client: Client,
    pub(crate) connection: MultiplexedConnection,
    pub(crate) address: MasterAddress,
}

/// Where a sentinel says that the master is.
#[derive(Debug, Clone)]
pub(crate) struct MasterAddress {
    address: (String, u16),
    /// The number of the failover that made it the master.
    config_epoch: u64,
}

impl Sentinel {
    /// The host of the URL `master` is the name by which the sentinels know the master.
    pub(crate) fn new(urls: &[String], master: &str, tls: TlsMaterial) -> Result<Self, BuildError> {
        let refuse = |problem, fix| BuildError::new("redis.sentinel", problem, fix);
        let sentinels = urls.iter().map(|url| client(url, &tls)).collect::<Result<Vec<_>, _>>()?;
        if sentinels.is_empty() {
            return Err(refuse("names no sentinel", "write one URL or more"));
        }
        let master = info(master)?;
        let name = match master.addr() {
            ConnectionAddr::Tcp(name, _) | ConnectionAddr::TcpTls { host: name, .. } => {
                Arc::from(&**name)
            }
            _ => {
                let fix = "write it as the host of a URL, as in redis://:password@mymaster/0";
                return Err(refuse("needs the master's name", fix));
            }
        };
        Ok(Self { sentinels, tls, name, master })
    }

    /// Connects to the master. Each sentinel and each server that a sentinel names has `limit` to
    /// answer.
    pub(crate) async fn master(&self, limit: Duration) -> Result<Master, BoxError> {
        let mut last: BoxError = "no sentinel answers".into();
        for address in by_config_epoch(self.ask_all(limit, &mut last).await) {
            match self.connect_to(address, limit).await {
                Ok(master) => return Ok(master),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns true if there is another master than the known one. Takes no longer than `limit`.
    ///
    /// The old master may not know yet that it was replaced, and for some seconds accepts writes
    /// that will be lost. An answer with a lower config epoch is ignored: the sentinel that gave
    /// the higher one may merely be late this time.
    pub(crate) async fn has_changed(&self, known: &MasterAddress, limit: Duration) -> bool {
        let named = by_config_epoch(self.ask_all(limit / 2, &mut "".into()).await);
        let Some(first) = named.into_iter().next() else { return false };
        first.address != known.address
            && first.config_epoch >= known.config_epoch
            && self.connect_to(first, limit / 2).await.is_ok()
    }

    /// Returns the answers that arrive within `limit`. After the first answer the other sentinels
    /// have a quarter of the limit left.
    async fn ask_all(&self, limit: Duration, last: &mut BoxError) -> Vec<MasterAddress> {
        let mut asking = JoinSet::new();
        for sentinel in &self.sentinels {
            asking.spawn(ask(sentinel.clone(), Arc::clone(&self.name), limit));
        }
        let mut named = Vec::new();
        let mut until = Instant::now() + limit;
        while let Ok(Some(answer)) = timeout_at(until, asking.join_next()).await {
            match answer {
                Ok(Ok(address)) => {
                    named.push(address);
                    until = until.min(Instant::now() + limit / 4);
                }
                Ok(Err(error)) => *last = error,
                Err(panicked) => *last = panicked.into(),
            }
        }
        named
    }

    /// The URL of the master, with an address that sentinels have named.
    fn info_of(&self, master: &MasterAddress) -> ConnectionInfo {
        let (host, port) = master.address.clone();
        let server = match *self.master.addr() {
            ConnectionAddr::TcpTls { insecure, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.master.clone().set_addr(server).set_tcp_settings(tcp())
    }

    async fn connect_to(&self, master: MasterAddress, limit: Duration) -> Result<Master, BoxError> {
        let client = self.tls.client(self.info_of(&master))?;
        let asking = async {
            let mut connection = open(&client, limit).await?;
            match redis::cmd("ROLE").query_async(&mut connection).await {
                Ok(Role::Replica | Role::Other) => {
                    Err("the server that the sentinels name is no master yet".into())
                }
                // Without `ROLE` the word of the sentinels must do. A replica refuses writes.
                Err(error) if !is_command_refusal(&error) => Err(error.into()),
                Ok(Role::Master) | Err(_) => Ok(Master { client, connection, address: master }),
            }
        };
        timeout(limit, asking)
            .await
            .map_err(|_| "the server that the sentinels name does not answer")?
    }
}

/// Asks one sentinel two questions in one round trip: the first answer is up to date as soon as a
/// replica is promoted, the second contains the config epoch.
async fn ask(sentinel: Client, name: Arc<str>, limit: Duration) -> Result<MasterAddress, BoxError> {
    let asking = async {
        let mut sentinel = open(&sentinel, limit).await?;
        let mut questions = redis::pipe();
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*name);
        questions.cmd("SENTINEL").arg("MASTER").arg(&*name);
        let mut answers = sentinel.req_packed_commands(&questions, 0, 2).await?.into_iter();
        let address = decode::<Option<_>>(answers.next().unwrap_or(Value::Nil))?
            .ok_or_else(|| format!("the sentinel knows no master named `{name}`"))?;
        // Servers that imitate a sentinel may have no config epoch. It counts as 0.
        let details: HashMap<String, String> =
            answers.next().and_then(|it| decode(it).ok()).unwrap_or_default();
        let config_epoch = details.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        Ok(MasterAddress { address, config_epoch: config_epoch.unwrap_or(0) })
    };
    timeout(limit, asking).await.map_err(|_| "a sentinel does not answer")?
}

/// Returns each address once: the highest config epoch first, and within one epoch the address
/// that most sentinels name.
fn by_config_epoch(named: Vec<MasterAddress>) -> Vec<MasterAddress> {
    let mut ranks: HashMap<(String, u16), (u64, usize)> = HashMap::new();
    for MasterAddress { address, config_epoch } in named {
        let (highest, votes) = ranks.entry(address).or_default();
        *highest = config_epoch.max(*highest);
        *votes += 1;
    }
    let mut servers: Vec<_> = ranks.into_iter().map(|(address, rank)| (rank, address)).collect();
    servers.sort_by(|one, other| other.cmp(one));
    let servers = servers.into_iter();
    servers.map(|((config_epoch, _), address)| MasterAddress { address, config_epoch }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_config_epoch_comes_first_and_then_the_most_votes() {
        for (named, first) in [
            (&[(1, 4), (1, 4), (2, 5)][..], 2),
            (&[(1, 5), (2, 4), (2, 4)], 1),
            (&[(1, 0), (2, 0), (2, 0)], 2),
            (&[(3, 0)], 3),
        ] {
            let named = named.iter().map(|&(port, config_epoch)| MasterAddress {
                address: ("h".to_owned(), port),
                config_epoch,
            });
            assert_eq!(by_config_epoch(named.collect())[0].address.1, first);
        }
        assert!(by_config_epoch(Vec::new()).is_empty());
    }

    #[test]
    fn the_master_has_the_tls_that_its_url_asks_for() {
        for (url, is_tls, is_insecure) in [
            ("redis://main/3", false, false),
            ("valkey://main/3", false, false),
            ("rediss://main/3", true, false),
            ("valkeys://main/3", true, false),
            ("rediss://main/3#insecure", true, true),
        ] {
            if info(url).is_err() {
                assert!(is_tls, "the client refuses TLS without its feature: {url}");
                continue;
            }
            let urls = ["redis://sentinel/".to_owned()];
            let sentinel = Sentinel::new(&urls, url, TlsMaterial::default()).unwrap();
            let address = MasterAddress { address: ("h".to_owned(), 7), config_epoch: 1 };
            let info = sentinel.info_of(&address);
            assert_eq!((info.redis_settings().db(), url), (3, url));
            let found = match info.addr() {
                ConnectionAddr::Tcp(host, port) => (&**host, *port, false, false),
                ConnectionAddr::TcpTls { host, port, insecure, .. } => {
                    (&**host, *port, true, *insecure)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(found, ("h", 7, is_tls, is_insecure), "{url}");
        }
    }
}
