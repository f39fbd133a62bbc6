//! Events over Redis Pub/Sub: to whoever listens at the moment.

mod builder;
mod message_stream;
mod options;
mod place;
mod publisher;
#[cfg(feature = "redis-tls")]
mod tls;

use std::{fmt, sync::Arc};

use redis::{Client, Cmd};
use tokio::sync::watch;

use self::{
    builder::Origin,
    message_stream::RedisEvents,
    place::Place,
    publisher::{Answer, Limits, Publisher},
};
pub use self::{builder::RedisTransportBuilder, options::RedisTransportOptions};
use crate::bus::transport::{Subscribed, Transport, TransportFuture};
use crate::error::BoxError;

/// A [`Transport`] over Redis Pub/Sub: a single server, a Cluster, or whatever server a Sentinel
/// names.
///
/// ```
/// use lazy_layers_cache::RedisTransport;
///
/// # fn main() -> Result<(), lazy_layers_cache::BuildError> {
/// let transport = RedisTransport::at("redis://127.0.0.1/").channel("shop:invalidations").build()?;
/// # Ok(()) }
/// ```
///
/// A publish that has returned was worked off by the server. Nobody has confirmed that it was
/// received: whoever was not subscribed at that moment never gets it, and a subscription never
/// resumes. Per publisher events arrive in order, for as long as its connection lasts.
///
/// Publishing has a connection of its own, and so has each subscription. They are made when
/// needed, and given up at their first weakness: a subscription that breaks, or whose server does
/// not answer for two and a half [heartbeats](RedisTransportOptions::heartbeat), is over.
///
/// Needs Redis 5 or later, or what speaks like it. A user of its ACL has to have `&` and the name
/// of the channel, `+publish`, `+subscribe`; with `+ping` and `+role` more is noticed.
///
/// # Masters and nodes
///
/// A replica of a single server, or of one that a Sentinel names, is refused, and left when a
/// master becomes one: its subscribers alone would hear what is published to it. In a Cluster any
/// node will do, master or not; each connection is to another one of those that were named, and
/// those that do not answer are passed over.
pub struct RedisTransport {
    place: Arc<Place>,
    publisher: Publisher,
    options: RedisTransportOptions,
    /// Counts how often all subscriptions were ended.
    ends: watch::Sender<u64>,
}

impl RedisTransport {
    /// A single server, by its URL: `redis://[user:password@]host[:port]`, or `rediss://` for TLS
    /// with the feature `redis-tls`. A database in it makes no difference: channels belong to
    /// the server.
    pub fn at(url: impl Into<String>) -> RedisTransportBuilder {
        RedisTransportBuilder::new(Origin::One(url.into()))
    }

    /// A Cluster, by the URLs of some of its nodes: of several, since nodes that are not named are
    /// not found.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisTransportBuilder {
        RedisTransportBuilder::new(Origin::Cluster(urls.into_iter().map(Into::into).collect()))
    }

    /// The server that sentinels name, by their URLs and that of the master, which has its name as
    /// the host: `redis://:password@mymaster/0`.
    pub fn sentinel(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> RedisTransportBuilder {
        let urls = urls.into_iter().map(Into::into).collect();
        RedisTransportBuilder::new(Origin::Sentinel(urls, master.into()))
    }

    /// A single server, by connections that a client of the application makes.
    pub fn over(client: Client) -> RedisTransportBuilder {
        RedisTransportBuilder::new(Origin::Client(client))
    }

    async fn ask(&self, command: &Cmd) -> Result<(), BoxError> {
        let limits = Limits {
            connect: self.options.connect_timeout,
            confirm: self.options.confirm_timeout,
            heartbeat: self.options.heartbeat,
        };
        match self.publisher.ask(command, &self.place, &limits).await? {
            Answer::Done => Ok(()),
            Answer::Refused(error) => Err(error.into()),
            Answer::ByReplica => {
                // They are subscribed to the same server, or were.
                self.end_subscriptions();
                Err("the server has become a replica".into())
            }
        }
    }

    fn end_subscriptions(&self) {
        self.ends.send_modify(|ends| *ends += 1);
    }
}

impl fmt::Debug for RedisTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for RedisTransport {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&self.options.channel).arg(event);
            self.ask(&publish).await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let (place, ends) = (Arc::clone(&self.place), self.ends.subscribe());
            let events = RedisEvents::of(place, &self.options, ends).await?;
            Ok(Subscribed { messages: Box::new(events), resumed: false })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move { self.ask(&redis::cmd("PING")).await })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.end_subscriptions();
            self.publisher.disconnect().await;
            Ok(())
        })
    }
}
