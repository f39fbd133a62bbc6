//! Whether a connection to NATS still stands, and how many messages its client has dropped.

use std::sync::{Arc, atomic::Ordering};

use async_nats::{Event, Statistics};
use tokio::sync::watch;

/// The state of one connection. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Liveness {
    state: Arc<watch::Sender<State>>,
    /// The client's own count of its connects, and the count when this connection was opened: a
    /// difference reveals a reconnect that no event has reported.
    connects: Option<(Arc<Statistics>, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    has_ended: bool,
    /// How many messages the client has dropped, over all its subscriptions.
    dropped: u64,
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
            Event::SlowConsumer(_) => self.state.send_modify(|state| state.dropped += 1),
            _ => {}
        }
    }

    pub(crate) fn end(&self) {
        self.state.send_modify(|state| state.has_ended = true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        let has_reconnected =
            |(now, then): &(Arc<Statistics>, u64)| now.connects.load(Ordering::Relaxed) != *then;
        self.connects.as_ref().is_some_and(has_reconnected) || self.state.borrow().has_ended
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.state.borrow().dropped
    }

    /// Waits for the end. Cancel safe.
    pub(crate) async fn ended(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.has_ended).await;
    }

    /// Waits for the end, or until the count of dropped messages is not `dropped`. Cancel safe.
    pub(crate) async fn wait_end_or_drop(&self, dropped: u64) {
        let is_worse = |state: &State| state.has_ended || state.dropped != dropped;
        let _ = self.state.subscribe().wait_for(is_worse).await;
    }
}
