//! The reports that a cache makes of itself: counters and health.

use std::sync::Arc;

use super::state::CacheState;
use crate::{
    l2::L2,
    observe::{Health, L2Health, Stats},
};

impl<V: 'static> CacheState<V> {
    pub(super) fn stats(&self) -> Stats {
        Stats {
            l1_entries: self.l1.len() as u64,
            l1_weight: self.l1.weight(),
            loads_in_flight: self.flights.running() as u64,
            ..self.observer.stats()
        }
    }

    pub(super) fn health(&self) -> Health {
        let l2 =
            |l2: &Arc<L2<V>>| if l2.is_skipped() { L2Health::Skipped } else { L2Health::Answering };
        Health {
            name: self.options.name.clone(),
            origin: self.observer.origin_health(self.now()),
            l2: self.l2.as_ref().map(l2),
            event_bus: self.bus.as_ref().map(|bus| bus.client.health(self.is_current(self.now()))),
            loads_in_flight: self.flights.running(),
            closed: self.check_open().is_err(),
        }
    }
}
