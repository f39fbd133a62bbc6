//! Which server to connect to.

use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::Client;
use tokio::time::{sleep, timeout};

use crate::{
    adapters::{
        redis::endpoint::{Named, Sentinel},
        task::timeout_named,
    },
    error::BoxError,
};

pub(crate) enum Place {
    One(Client),
    Cluster(Nodes),
    Sentinel(Sentinel),
}

/// Nodes of a Cluster. Whatever is published to one of them comes to subscribers of all, so the
/// client's own way to a Cluster, which would look for the right one, was refused: any that works
/// will do.
pub(crate) struct Nodes {
    clients: Vec<Client>,
    /// Who is asked first, another one each time: so instances spread, and one that fails in a way
    /// that only shows later is left.
    turn: AtomicUsize,
}

/// A connection.
pub(crate) struct Reached<T> {
    pub(crate) connection: T,
    /// Where it leads, if a sentinel named it.
    pub(crate) address: Option<Named>,
}

impl Nodes {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let turn = AtomicUsize::new(fastrand::usize(..clients.len().max(1)));
        Self { clients, turn }
    }

    fn in_turn(&self) -> Vec<Client> {
        let mut clients = self.clients.clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = turn.checked_rem(clients.len()).unwrap_or(0);
        clients.rotate_left(first);
        clients
    }
}

/// How many servers that do not answer still leave time for one that does.
const PATIENCE: u32 = 3;

impl Place {
    /// Connects in the way that is given, within the limit.
    pub(crate) async fn reach<T, F>(
        &self,
        limit: Duration,
        connect: impl Fn(Client) -> F,
    ) -> Result<Reached<T>, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        timeout_named(limit, "connect", async {
            match self {
                Self::One(client) => {
                    Ok(Reached { connection: connect(client.clone()).await?, address: None })
                }
                Self::Sentinel(sentinel) => {
                    let master = sentinel.master(limit / PATIENCE).await?;
                    let connection = connect(master.client).await?;
                    Ok(Reached { connection, address: Some(master.named) })
                }
                Self::Cluster(nodes) => {
                    let mut last: BoxError = "no node was asked".into();
                    for node in nodes.in_turn() {
                        match timeout(limit / PATIENCE, connect(node)).await {
                            Ok(Ok(connection)) => return Ok(Reached { connection, address: None }),
                            Ok(Err(error)) => last = error,
                            Err(_) => last = "a node does not answer".into(),
                        }
                    }
                    Err(last)
                }
            }
        })
        .await
    }

    /// Returns when a sentinel names another master than the one at that address; elsewhere never.
    pub(crate) async fn moved(&self, from: Option<&Named>, every: Duration) {
        let (Self::Sentinel(sentinel), Some(from)) = (self, from) else { return pending().await };
        loop {
            sleep(every).await;
            let asking = sentinel.has_another(from, every);
            if timeout(every * PATIENCE, asking).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Whether every server that is not a master is a wrong one. In a Cluster replicas pass on
    /// what is published to them, elsewhere they keep it to themselves.
    pub(crate) fn wants_master(&self) -> bool {
        !matches!(self, Self::Cluster(_))
    }
}
