//! The way out: a connection of our own, or one that the application has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    Cmd, RedisError, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};

use super::place::Place;
use crate::{
    adapters::{
        redis::endpoint::{Given, open},
        task::{AbortOnDrop, runtime, timeout_named},
    },
    error::BoxError,
    resilience::DropGuard,
};

pub(crate) enum Publisher {
    Own(tokio::sync::Mutex<Option<Arc<Link>>>),
    Given(Arc<dyn Given>),
}

/// What became of a command.
pub(crate) enum Answer {
    Done,
    Refused(RedisError),
    /// Done by a replica, to whose subscribers alone.
    ByReplica,
}

impl Publisher {
    /// Asks on the connection that there is, else on a new one. What failed on is not asked again.
    pub(crate) async fn ask(
        &self,
        command: &Cmd,
        place: &Arc<Place>,
        limits: &Limits,
    ) -> Result<Answer, BoxError> {
        runtime()?;
        let current = match self {
            Self::Own(current) => current,
            Self::Given(given) => {
                let mut connection = given.another();
                return timeout_named(limits.confirm, "answer", async {
                    Ok(Answer::of(connection.req_packed_command(command).await?))
                })
                .await;
            }
        };
        let link = timeout_named(limits.connect, "connect", async {
            let mut current = current.lock().await;
            if let Some(link) = current.as_ref().filter(|link| !link.is_over()) {
                return Ok(Arc::clone(link));
            }
            *current = None;
            let link = Arc::new(Link::open(place, limits).await?);
            *current = Some(Arc::clone(&link));
            Ok(link)
        })
        .await?;
        let call = DropGuard::new(|| link.in_doubt.store(true, Ordering::Relaxed));
        let answer = timeout_named(limits.confirm, "answer", link.ask(command)).await;
        call.disarm();
        if !matches!(answer, Ok(Answer::Done | Answer::Refused(_))) {
            let mut current = current.lock().await;
            if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, &link)) {
                *current = None;
            }
        }
        answer
    }

    pub(crate) async fn disconnect(&self) {
        if let Self::Own(current) = self {
            *current.lock().await = None;
        }
    }
}

impl Answer {
    fn of(value: Value) -> Self {
        value.extract_error().map_or_else(Self::Refused, |_| Self::Done)
    }
}

pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) confirm: Duration,
    pub(crate) heartbeat: Duration,
}

pub(crate) struct Link {
    connection: MultiplexedConnection,
    /// Whether each command is followed by a question for the server's role: a master that was
    /// demoted goes on answering, and nobody hears what is published to it.
    asks_role: bool,
    /// Whether a sentinel names another master by now.
    moved: Arc<AtomicBool>,
    /// Whether somebody stopped waiting for an answer.
    in_doubt: AtomicBool,
    _watch: AbortOnDrop,
}

impl Link {
    async fn open(place: &Arc<Place>, limits: &Limits) -> Result<Self, BoxError> {
        let (limit, heartbeat) = (limits.connect, limits.heartbeat);
        let wants_master = place.wants_master();
        let connect = |client| async move {
            let mut connection = open(&client, limit).await?;
            if !wants_master {
                return Ok((connection, false));
            }
            match redis::cmd("ROLE").query_async(&mut connection).await {
                Ok(role) if is_replica(&role) => Err("the server is a replica".into()),
                Ok(_) => Ok((connection, true)),
                // The user may not ask for it, or the server knows no such question.
                Err(error) if error.code().is_some() => Ok((connection, false)),
                Err(error) => Err(error.into()),
            }
        };
        let reached = place.reach(limit, connect).await?;
        let (connection, asks_role) = reached.connection;
        let moved = Arc::new(AtomicBool::new(false));
        let watch = {
            let (place, moved) = (Arc::clone(place), Arc::clone(&moved));
            async move {
                place.moved(reached.address.as_ref(), heartbeat).await;
                moved.store(true, Ordering::Relaxed);
            }
        };
        let (in_doubt, watch) = (AtomicBool::new(false), AbortOnDrop::spawn(&runtime()?, watch));
        Ok(Self { connection, asks_role, moved, in_doubt, _watch: watch })
    }

    fn is_over(&self) -> bool {
        self.moved.load(Ordering::Relaxed) || self.in_doubt.load(Ordering::Relaxed)
    }

    async fn ask(&self, command: &Cmd) -> Result<Answer, BoxError> {
        let mut connection = self.connection.clone();
        if !self.asks_role {
            return Ok(Answer::of(connection.req_packed_command(command).await?));
        }
        let mut both = redis::pipe();
        both.add_command(command.clone()).cmd("ROLE");
        let answers = connection.req_packed_commands(&both, 0, 2).await?;
        match <[Value; 2]>::try_from(answers) {
            Ok([_, role]) if is_replica(&role) => Ok(Answer::ByReplica),
            Ok([answer, _]) => Ok(Answer::of(answer)),
            Err(_) => Err("the server gave too few answers".into()),
        }
    }
}

fn is_replica(role: &Value) -> bool {
    matches!(role, Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"slave".to_vec())))
}
