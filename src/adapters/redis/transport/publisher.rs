//! The connection over which a transport publishes, unless the application gave it one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use redis::{
    Cmd, FromRedisValue, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::options::RedisTransportOptions;
use crate::{
    adapters::{
        redis::endpoint::{Endpoint, client::open, role::Role},
        task::{AbortOnDrop, runtime},
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
    ) -> Result<Self, BoxError> {
        let (limit, heartbeat) = (options.connect_timeout, options.heartbeat);
        let is_cluster = endpoint.is_cluster();
        let connect = |client| async move {
            let mut connection = open(&client, limit).await?;
            if is_cluster {
                return Ok((connection, false));
            }
            let role = redis::cmd("ROLE").query_async(&mut connection).await;
            match role.map(Role::from_redis_value) {
                Ok(Ok(Role::Replica)) => Err("the server is a replica".into()),
                Ok(_) => Ok((connection, true)),
                // The user may not send `ROLE`, or the server does not know it.
                Err(error) if error.code().is_some() => Ok((connection, false)),
                Err(error) => Err(error.into()),
            }
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
        let mut connection = self.connection.clone();
        if !self.checks_role {
            return Ok(Some(connection.req_packed_command(command).await?));
        }
        let mut both = redis::pipe();
        both.add_command(command.clone()).cmd("ROLE");
        let replies = connection.req_packed_commands(&both, 0, 2).await?;
        let [reply, role] =
            <[Value; 2]>::try_from(replies).map_err(|_| "the server sent too few replies")?;
        let is_replica = matches!(Role::from_redis_value(role), Ok(Role::Replica));
        Ok((!is_replica).then_some(reply))
    }
}
