//! Subscribes, on a connection of its own.
//!
//! The connection speaks RESP3, in which the client hands each message to a closure as soon as it
//! has decoded it. The closure pushes it into the inbox, so the inbox is the only queue between the
//! socket and the subscriber.
//!
//! # Alternatives considered
//!
//! - The client's connections that subscribe again on their own: they reconnect and give up without
//!   a sign, so lost messages go unnoticed. This subscription ends when its connection breaks.
//! - The client's `PubSub`, which speaks RESP2: it has a queue without a bound.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, ProtocolVersion, PushInfo, PushKind, RedisError,
    RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::sync::{oneshot, watch};

use super::{
    channels,
    options::RedisTransportOptions,
    publisher::{Publisher, RedisProber},
};
use crate::{
    adapters::{
        abort_on_drop::AbortOnDrop,
        client_name::ClientName,
        probe::probe_every,
        redis::endpoint::{
            Endpoint,
            client::set_name,
            role::{Role, refuse_replica},
        },
        task::runtime,
    },
    bus::{
        inbox::Inbox,
        transport::{Delivery, MessageStream},
    },
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) struct RedisMessageStream {
    inbox: Arc<Inbox>,
    probe_channel: Arc<str>,
    /// Gone once the subscription has ended.
    in_force: Weak<()>,
    ends: watch::Receiver<()>,
    _watch: AbortOnDrop,
}

/// A subscribed connection.
struct Subscription {
    connection: MultiplexedConnection,
    /// True if the heartbeat asks for the role of the server. False in a Cluster, and if the user
    /// may not send `ROLE`.
    checks_role: bool,
    inbox: Arc<Inbox>,
    /// Resolves once the client no longer reads from the connection.
    end: oneshot::Receiver<()>,
}

impl RedisMessageStream {
    /// Returns once the server has confirmed the subscription.
    ///
    /// The subscription ends when a heartbeat is not answered in time, or by a replica, when the
    /// sentinels name another master, when the transport signals `ends`, or when the server closes
    /// the connection.
    pub(crate) async fn subscribe(
        endpoint: Arc<Endpoint>,
        options: &RedisTransportOptions,
        name: &ClientName,
        ends: watch::Receiver<()>,
    ) -> Result<Self, BoxError> {
        let runtime = runtime()?;
        let probe_channel = Arc::<str>::from(channels::probe(&options.channel));
        let is_cluster = endpoint.is_cluster();
        let subscribe =
            |client| Subscription::begin(client, is_cluster, options, name, &probe_channel);
        let (subscription, master) =
            endpoint.connect_with(options.connect_timeout, subscribe).await?;
        let Subscription { connection, checks_role, inbox, end } = subscription;
        let heartbeat = options.heartbeat;
        let ask = move || {
            let mut connection = connection.clone();
            async move {
                let question = redis::cmd(if checks_role { "ROLE" } else { "PING" });
                // An error is a reply too: the user may not be allowed to ping.
                let reply = connection.req_packed_command(&question).await?;
                match Role::from_redis_value(reply) {
                    // mutant subscribed-replica: s/Role::Replica/Role::Other/
                    Ok(Role::Replica) => Err(BoxError::from("the server has become a replica")),
                    _ => Ok(()),
                }
            }
        };
        let closing = Arc::clone(&inbox);
        let alive = Arc::new(());
        let in_force = Arc::downgrade(&alive);
        // Made outside of the task: it also runs if the runtime shuts down before the task starts.
        let close = DropGuard::new(move || closing.push(Delivery::Closed));
        let mut told_to_end = ends.clone();
        let watching = async move {
            let _on_end = (close, alive);
            tokio::select! {
                biased;
                _ = end => {}
                // Drops the connection when it ends, and with it the client's task.
                () = probe_every(heartbeat, ask) => {}
                () = endpoint.moved(master.as_ref(), heartbeat) => {}
                // A dropped transport only disables this branch: the subscription outlives it.
                Ok(()) = told_to_end.changed() => {}
            }
        };
        let watch = AbortOnDrop::spawn(&runtime, watching);
        Ok(Self { inbox, probe_channel, in_force, ends, _watch: watch })
    }

    pub(crate) fn prober(&self, publisher: Arc<Publisher>) -> RedisProber {
        let (channel, in_force) = (Arc::clone(&self.probe_channel), Weak::clone(&self.in_force));
        RedisProber { publisher, channel, in_force, ends: self.ends.clone() }
    }
}

impl Subscription {
    async fn begin(
        client: Client,
        is_cluster: bool,
        options: &RedisTransportOptions,
        name: &ClientName,
        probe_channel: &Arc<str>,
    ) -> Result<Self, BoxError> {
        let inbox = Inbox::bounded(options.queue_capacity, options.queue_max_bytes);
        let (ended, end) = oneshot::channel::<()>();
        let (queue, probes) = (Arc::clone(&inbox), Arc::clone(probe_channel));
        let receive = move |push: PushInfo| {
            // The client drops the closure, and so the sender, when it stops reading.
            let _ended = &ended;
            if let Some(delivery) = delivery(push, &probes) {
                queue.push(delivery);
            }
            Ok::<_, Infallible>(())
        };
        let opening = open(&client, options.connect_timeout, receive).await;
        let mut connection = opening.map_err(|error| match speaks_no_resp3(&error) {
            true => format!("{error}; the fix is a server or proxy that offers HELLO 3").into(),
            false => BoxError::from(error),
        })?;
        set_name(&mut connection, name, "subscriber").await;
        let checks_role = !is_cluster && refuse_replica(&mut connection).await?;
        let (messages, beacons) = (&*options.channel, channels::beacons(&options.channel));
        let subscribing = connection.subscribe(&[messages, &beacons, probe_channel]).await;
        subscribing.map_err(|error| channels::with_fix(messages, &error))?;
        Ok(Self { connection, checks_role, inbox, end })
    }
}

/// Connects to the server of a client. `receive` gets what the server pushes.
async fn open(
    client: &Client,
    timeout: Duration,
    receive: impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static,
) -> RedisResult<MultiplexedConnection> {
    let info = client.get_connection_info();
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.clone().set_redis_settings(settings))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(None)
        .set_push_sender(receive);
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn speaks_no_resp3(error: &RedisError) -> bool {
    error.code() == Some("NOPROTO") || error.detail().is_some_and(|it| it.contains("HELLO"))
}

/// Returns what a push is for the subscriber. A push that this connection did not ask for may be a
/// message whose bytes were changed on the way: a gap.
fn delivery(push: PushInfo, probe_channel: &str) -> Option<Delivery> {
    match push.kind {
        PushKind::Message => {}
        // The end has a sign of its own.
        PushKind::Subscribe | PushKind::Disconnection => return None,
        _ => return Some(Delivery::Gap),
    }
    let Ok([Value::BulkString(channel), Value::BulkString(payload)]) =
        <[Value; 2]>::try_from(push.data)
    else {
        return Some(Delivery::Gap);
    };
    if channel != probe_channel.as_bytes() {
        return Some(Delivery::Message(payload));
    }
    std::str::from_utf8(&payload).ok()?.parse().ok().map(Delivery::Probe)
}

impl MessageStream for RedisMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        self.inbox.next()
    }
}
