//! Chooses nodes of a Cluster in turn, for connections to any node.

use std::sync::atomic::{AtomicUsize, Ordering};

use redis::Client;

/// The nodes that the application named.
pub(crate) struct Nodes {
    clients: Vec<Client>,
    /// Index of the node that is tried first next time. It starts at random and moves with each
    /// connection: instances spread over the nodes, and a reconnect leaves a node that accepts
    /// connections but fails later.
    next: AtomicUsize,
}

impl Nodes {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let next = AtomicUsize::new(fastrand::usize(..clients.len().max(1)));
        Self { clients, next }
    }

    /// Returns all nodes, in the order in which they are to be tried.
    pub(crate) fn round_robin(&self) -> Vec<Client> {
        let mut clients = self.clients.clone();
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let first = next.checked_rem(clients.len()).unwrap_or(0);
        clients.rotate_left(first);
        clients
    }
}
