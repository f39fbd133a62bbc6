//! The connection over which a transport publishes, unless the application gave it one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join;
use redis::{
    Cmd, FromRedisValue, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::options::RedisTransportOptions;
use crate::{
    adapters::{
        abort_on_drop::AbortOnDrop,
        client_name::ClientName,
        redis::endpoint::{
            Endpoint,
            client::{open, set_name},
            role::{Role, refuse_replica},
        },
        task::runtime,
    },
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) struct PublisherConnection {
    connection: MultiplexedConnection,
    /// True if each command is followed by `ROLE`. A demoted master still answers, but its former
    /// subscribers no longer receive its messages. False in a Cluster, and if the user may not
    /// send `ROLE`.
    checks_role: bool,
    /// Set by the watch task once the sentinels name another master, and by a caller that stopped
    /// waiting for a reply.
    is_unusable: Arc<AtomicBool>,
    _watch: AbortOnDrop,
}

impl PublisherConnection {
    pub(crate) async fn open(
        endpoint: &Arc<Endpoint>,
        options: &RedisTransportOptions,
        name: &ClientName,
    ) -> Result<Self, BoxError> {
        let (limit, heartbeat) = (options.connect_timeout, options.heartbeat);
        let is_cluster = endpoint.is_cluster();
        let connect = |client| async move {
            let mut connection = open(&client, limit).await?;
            set_name(&mut connection, name, "publisher").await;
            let checks_role = !is_cluster && refuse_replica(&mut connection).await?;
            Ok((connection, checks_role))
        };
        let ((connection, checks_role), master) = endpoint.connect_with(limit, connect).await?;
        let is_unusable = Arc::new(AtomicBool::new(false));
        let (endpoint, has_moved) = (Arc::clone(endpoint), Arc::clone(&is_unusable));
        let watch = AbortOnDrop::spawn(&runtime()?, async move {
            endpoint.moved(master.as_ref(), heartbeat).await;
            has_moved.store(true, Ordering::Relaxed);
        });
        Ok(Self { connection, checks_role, is_unusable, _watch: watch })
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.is_unusable.load(Ordering::Relaxed)
    }

    /// Returns a guard for one call. If the call is dropped without a reply, because its caller
    /// stopped waiting, no further call uses the connection.
    pub(crate) fn begin_call(&self) -> DropGuard<impl FnOnce()> {
        DropGuard::new(|| self.is_unusable.store(true, Ordering::Relaxed))
    }

    /// Returns the reply, which may be an error. `None` if the server is a replica by now: only its
    /// own subscribers received the message.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Option<Value>, BoxError> {
        let (mut connection, mut asking) = (self.connection.clone(), self.connection.clone());
        let replying = connection.req_packed_command(command);
        if !self.checks_role {
            return Ok(Some(replying.await?));
        }
        // Two requests, not one pipeline: of a pipeline the client returns all replies or none, and
        // a server that refuses the command's size answers it and closes the connection.
        let ask = redis::cmd("ROLE");
        let (reply, role) = join(replying, asking.req_packed_command(&ask)).await;
        let reply = reply?;
        if matches!(reply, Value::ServerError(_)) {
            return Ok(Some(reply));
        }
        let is_replica = matches!(Role::from_redis_value(role?), Ok(Role::Replica));
        Ok((!is_replica).then_some(reply))
    }
}
