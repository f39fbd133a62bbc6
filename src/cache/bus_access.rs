//! Bus access: what the cache asks of its bus client, and how the messages of peers change L1.

use std::{sync::Arc, time::Duration};

use super::{flight_context::Ticket, state::CacheState};
use crate::{
    bus::{PendingBroadcast, Sink},
    contain::Held,
    flight::Origin,
    glob::Pattern,
    observe::Observer,
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Starts the tasks of the bus client, unless they run. To be called by each verb that leaves
    /// L1.
    pub(super) fn ensure_bus_tasks(&self) {
        if let Some(bus) = &self.bus {
            bus.client.ensure_tasks();
        }
    }

    /// To be called before a key, or the keys that match a glob, are deleted or `set` in L1.
    pub(super) fn begin_broadcast<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        is_pattern: bool,
    ) -> PendingBroadcast<'a> {
        match &self.bus {
            Some(bus) => bus.client.begin_invalidation(name, is_pattern),
            None => PendingBroadcast::without_bus(),
        }
    }
}

impl<V: Send + Sync + 'static> Sink for CacheState<V> {
    type Ticket = Ticket<V>;
    type Value = Held<V>;

    fn now(&self) -> u64 {
        Self::now(self)
    }

    fn observer(&self) -> &Observer {
        &self.observer
    }

    async fn unpack(&self, message: Vec<u8>, limit: usize) -> Option<Vec<u8>> {
        self.bus.as_ref()?.codec.unpack(message, limit).await
    }

    fn codec_form(&self) -> Option<(&'static str, usize)> {
        self.bus.as_ref()?.codec.form()
    }

    fn ticket(&self, key: &str) -> Ticket<V> {
        self.flights.ticket(&Arc::from(key))
    }

    fn record_pending(&self, name: &str, is_pattern: bool, generation: Option<u64>) {
        if let Some(l2) = &self.l2 {
            l2.record_for_peer(name, is_pattern, generation);
        }
    }

    fn on_foreign_change(&self, name: &str, is_pattern: bool) {
        if let Some(l2) = &self.l2 {
            l2.record_foreign_change(name, is_pattern);
        }
    }

    fn on_peer_retried(&self, name: &str, is_pattern: bool) -> bool {
        self.l2.as_ref().is_none_or(|l2| l2.on_peer_retried(name, is_pattern))
    }

    fn invalidate(&self, key: &str) {
        self.invalidate_l1(key, Origin::Peer);
    }

    async fn invalidate_matching(&self, pattern: &str) {
        self.invalidate_l1_matching(&Arc::new(Pattern::new(pattern)), Origin::Peer).await;
    }

    async fn decode(&self, value: Vec<u8>) -> Option<Held<V>> {
        self.bus.as_ref()?.codec.decode(value).await.ok().map(|value| Held::new(Arc::new(value)))
    }

    fn offer(
        &self,
        mut ticket: Ticket<V>,
        value: &Held<V>,
        (ttl_ms, stale_ms): (Option<u64>, Option<u64>),
        as_of: u64,
        prime: bool,
    ) -> bool {
        let ttl = ttl_ms.map(Duration::from_millis);
        let stale_for = stale_ms.filter(|_| self.options.fail_safe.enabled).unwrap_or(0);
        let stale_for = Duration::from_millis(stale_for);
        let lifetime = self.options.received_lifetime(ttl, stale_for, fastrand::f64);
        let key = Arc::clone(ticket.key());
        let Some(entry) = self.entry(&key, value, lifetime) else { return false };
        // mutant as-of: remove
        let entry = entry.known_at(as_of);
        let write = || self.l1.insert(&key, entry);
        let displaced =
            if prime { ticket.promote(write) } else { ticket.overwrite(Origin::Peer, write) };
        let is_kept = displaced.is_some();
        self.drop_displaced(displaced);
        is_kept
    }

    fn on_applied(&self, key: &str) {
        self.lock_waiters.wake(key);
    }

    fn revoke_loads(&self) {
        self.flights.invalidate_matching(Origin::Peer, |_| true);
    }

    fn generation(&self, key: &str) -> Option<u64> {
        self.l2.as_ref()?.version_of(key)
    }

    fn adopt_generation(&self, key: &str, generation: u64) {
        if let Some(l2) = &self.l2 {
            l2.observe_remote(key, generation);
        }
    }
}
