//! Publishes, over a connection of its own or over one that the application made.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use redis::{
    Cmd, FromRedisValue, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::options::RedisTransportOptions;
use crate::{
    adapters::{
        connection_slot::ConnectionSlot,
        redis::{
            connection::ExternalConnection,
            endpoint::{Endpoint, client::open, role::Role},
        },
        task::{AbortOnDrop, runtime, timeout_named},
    },
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) enum Publisher {
    Own(ConnectionSlot<PublisherConnection>),
    External(Arc<dyn ExternalConnection>),
}

/// The outcome of a command that the server answered.
pub(crate) enum Answer {
    Done,
    Refused(RedisError),
    /// The server is a replica: only its own subscribers received the message.
    NotMaster,
}

impl Publisher {
    /// Sends a command over the current connection, or connects first. A failed command is not
    /// sent again. It ends the connection, unless the server has refused the command.
    pub(crate) async fn send(
        &self,
        command: &Cmd,
        endpoint: &Arc<Endpoint>,
        options: &RedisTransportOptions,
    ) -> Result<Answer, BoxError> {
        let slot = match self {
            Self::Own(slot) => slot,
            Self::External(external) => {
                runtime()?;
                let mut connection = external.clone_boxed();
                return timeout_named(options.confirm_timeout, "answer", async {
                    Ok(Answer::of(connection.req_packed_command(command).await?))
                })
                .await;
            }
        };
        let connecting = PublisherConnection::open(endpoint, options);
        let is_usable = |it: &PublisherConnection| !it.is_unusable.load(Ordering::Relaxed);
        let connection =
            slot.get_or_connect(options.connect_timeout, is_usable, connecting).await?;
        let call = DropGuard::new(|| connection.is_unusable.store(true, Ordering::Relaxed));
        let sending = connection.send(command);
        let answer = timeout_named(options.confirm_timeout, "answer", sending).await;
        call.disarm();
        if !matches!(answer, Ok(Answer::Done | Answer::Refused(_))) {
            slot.forget(&connection).await;
        }
        answer
    }

    pub(crate) async fn disconnect(&self) {
        if let Self::Own(slot) = self {
            slot.take().await;
        }
    }
}

impl Answer {
    fn of(reply: Value) -> Self {
        reply.extract_error().map_or_else(Self::Refused, |_| Self::Done)
    }
}

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
    async fn open(
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
        let watching = async move {
            endpoint.master_moved(master.as_ref(), heartbeat).await;
            has_moved.store(true, Ordering::Relaxed);
        };
        let watch = AbortOnDrop::spawn(&runtime()?, watching);
        Ok(Self { connection, checks_role, is_unusable, _watch: watch })
    }

    async fn send(&self, command: &Cmd) -> Result<Answer, BoxError> {
        let mut connection = self.connection.clone();
        if !self.checks_role {
            return Ok(Answer::of(connection.req_packed_command(command).await?));
        }
        let mut both = redis::pipe();
        both.add_command(command.clone()).cmd("ROLE");
        let replies = connection.req_packed_commands(&both, 0, 2).await?;
        let [reply, role] =
            <[Value; 2]>::try_from(replies).map_err(|_| "the server sent too few replies")?;
        Ok(match Role::from_redis_value(role) {
            Ok(Role::Replica) => Answer::NotMaster,
            _ => Answer::of(reply),
        })
    }
}
