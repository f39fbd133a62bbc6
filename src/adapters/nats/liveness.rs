//! Whether a connection to NATS still stands.

use std::sync::{Arc, atomic::Ordering};

use async_nats::{Event, ServerError, Statistics};
use tokio::sync::watch;

use super::denials::Denials;

/// The state of one connection. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Liveness {
    has_ended: Arc<watch::Sender<bool>>,
    /// What the server has denied, as far as the client reports it to us.
    pub(crate) denials: Denials,
    /// The client's own count of its connects, and the count when this connection was opened: a
    /// difference reveals a reconnect that no event has reported.
    connects: Option<(Arc<Statistics>, u64)>,
}

impl Liveness {
    /// From now on a reconnect of the client counts as the end.
    pub(crate) fn watch_reconnects(&mut self, statistics: Arc<Statistics>) {
        let now = statistics.connects.load(Ordering::Relaxed);
        self.connects = Some((statistics, now));
    }

    pub(crate) fn on_event(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed | Event::Draining => self.end(),
            // Any other error may mean that a command was ignored, a subscription for example.
            Event::ServerError(error) => match error {
                ServerError::Other(text) if self.denials.record(text) => {}
                _ => self.end(),
            },
            _ => {}
        }
    }

    pub(crate) fn end(&self) {
        self.has_ended.send_replace(true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        let has_reconnected =
            |(now, then): &(Arc<Statistics>, u64)| now.connects.load(Ordering::Relaxed) != *then;
        self.connects.as_ref().is_some_and(has_reconnected) || *self.has_ended.borrow()
    }

    /// Waits for the end. Cancel safe.
    pub(crate) async fn ended(&self) {
        let _ = self.has_ended.subscribe().wait_for(|has_ended| *has_ended).await;
    }
}
