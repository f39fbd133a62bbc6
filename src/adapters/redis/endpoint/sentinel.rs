//! Which server is the master, by what sentinels say.
//!
//! All are asked at once and each has its own time, so that one which is dead holds nothing up. One
//! that was cut off while the others agreed on another master does not know better: each agreement
//! has a number, and the latest counts. And what they name is asked itself, for it may not know yet
//! that it is the master, or not be it any more.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::{
    Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisResult,
    Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Certificates, client, info, open, tcp};
use crate::error::{BoxError, BuildError};

pub(crate) struct Sentinel {
    sentinels: Vec<Client>,
    certificates: Certificates,
    name: Arc<str>,
    /// What to say to the master; its address is what the sentinels say.
    master: RedisConnectionInfo,
    with_tls: bool,
}

/// The server that the sentinels name, and that agrees.
pub(crate) struct Master {
    pub(crate) client: Client,
    pub(crate) connection: MultiplexedConnection,
    pub(crate) named: Named,
}

/// Host and port of a master, as the sentinels say it.
type Address = (String, u16);

/// Whom a sentinel names, and the number of the agreement by which it does.
pub(crate) type Named = (Address, u64);

impl Sentinel {
    /// `master` has its name for a host.
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
            ConnectionAddr::Tcp(name, _) => (Arc::from(&**name), false),
            ConnectionAddr::TcpTls { host, .. } => (Arc::from(&**host), true),
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

    /// Each sentinel, and each server that is named, has `limit` to answer.
    pub(crate) async fn master(&self, limit: Duration) -> Result<Master, BoxError> {
        let mut last: BoxError = "no sentinel answers".into();
        for named in ranked(self.ask_all(limit, &mut last).await) {
            match self.connect_to(named, limit).await {
                Ok(master) => return Ok(master),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether there is another master than the one known: that may not know yet that it is none
    /// any more, and for some seconds takes writes that will be lost. Known within `limit`.
    ///
    /// An older agreement than the known one says nothing: who has the newer may be late today.
    pub(crate) async fn has_another(&self, known: &Named, limit: Duration) -> bool {
        let named = self.ask_all(limit / 2, &mut BoxError::from("")).await;
        let first = ranked(named).into_iter().next();
        match first.filter(|named| named.0 != known.0 && named.1 >= known.1) {
            Some(other) => self.connect_to(other, limit / 2).await.is_ok(),
            None => false,
        }
    }

    /// What the sentinels say that answer in time. Where one has, the others must not take much
    /// longer.
    async fn ask_all(&self, limit: Duration, last: &mut BoxError) -> Vec<Named> {
        let mut asking = JoinSet::new();
        for sentinel in &self.sentinels {
            asking.spawn(ask(sentinel.clone(), Arc::clone(&self.name), limit));
        }
        let mut named = Vec::new();
        let mut until = Instant::now() + limit;
        while let Ok(Some(answer)) = timeout_at(until, asking.join_next()).await {
            match answer {
                Ok(Ok(one)) => {
                    named.push(one);
                    until = until.min(Instant::now() + limit / 4);
                }
                Ok(Err(error)) => *last = error,
                Err(panicked) => *last = panicked.into(),
            }
        }
        named
    }

    async fn connect_to(&self, named: Named, limit: Duration) -> Result<Master, BoxError> {
        let (host, port) = named.0.clone();
        let server = if self.with_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = server.into_connection_info()?.set_redis_settings(self.master.clone());
        let client = self.certificates.client(info.set_tcp_settings(tcp()))?;
        let asking = async {
            let mut connection = open(&client, limit).await?;
            let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
            match role.first() {
                Some(Value::BulkString(role)) if role == b"master" => {
                    Ok(Master { client, connection, named })
                }
                _ => Err("the server that the sentinels name is no master yet".into()),
            }
        };
        timeout(limit, asking).await.map_err(|_| "the server that the sentinels name is silent")?
    }
}

async fn ask(sentinel: Client, name: Arc<str>, limit: Duration) -> Result<Named, BoxError> {
    let asking = async {
        let mut sentinel = open(&sentinel, limit).await?;
        let mut questions = redis::pipe();
        // The first knows of a master as soon as it is promoted, the second has the number.
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&*name);
        questions.cmd("SENTINEL").arg("MASTER").arg(&*name);
        let mut answers = sentinel.req_packed_commands(&questions, 0, 2).await?.into_iter();
        let address: Option<Address> = read(answers.next().unwrap_or(Value::Nil))?;
        let address =
            address.ok_or_else(|| format!("the sentinel knows no master named `{name}`"))?;
        // What speaks like a sentinel and has no numbers agrees on nothing.
        let more: HashMap<String, String> =
            answers.next().and_then(|it| read(it).ok()).unwrap_or_default();
        let agreement = more.get("config-epoch").and_then(|number| number.parse().ok());
        Ok((address, agreement.unwrap_or(0)))
    };
    timeout(limit, asking).await.map_err(|_| "a sentinel does not answer")?
}

fn read<T: FromRedisValue>(answer: Value) -> RedisResult<T> {
    Ok(T::from_redis_value(answer.extract_error()?)?)
}

/// By the latest agreement first, and of one agreement whom most name.
fn ranked(named: Vec<Named>) -> Vec<Named> {
    let mut servers: HashMap<Address, (u64, usize)> = HashMap::new();
    for (address, agreement) in named {
        let (latest, votes) = servers.entry(address).or_default();
        *latest = agreement.max(*latest);
        *votes += 1;
    }
    let mut servers: Vec<_> = servers.into_iter().map(|(address, rank)| (rank, address)).collect();
    servers.sort_by(|one, other| other.cmp(one));
    servers.into_iter().map(|((agreement, _), address)| (address, agreement)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_agreement_counts_and_then_the_most_votes() {
        for (named, first) in [
            (&[(1, 4), (1, 4), (2, 5)][..], 2),
            (&[(1, 5), (2, 4), (2, 4)], 1),
            (&[(1, 0), (2, 0), (2, 0)], 2),
            (&[(3, 0)], 3),
        ] {
            let named = named.iter().map(|(port, number)| (("h".to_owned(), *port), *number));
            assert_eq!(ranked(named.collect())[0].0.1, first);
        }
        assert!(ranked(Vec::new()).is_empty());
    }
}
