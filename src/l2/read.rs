//! Reads values from the store, and takes leases for loads.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    facade::{BreakerCounts, L2},
    store::Store,
    store_types::{Lease, LeaseRequest, LeaseResponse, StaleValue, StoredValue},
};
use crate::{codec::offloading::Unreadable, contain::Held, resilience::has_timer};

/// A fresh value of L2.
pub(crate) struct FreshValue<V> {
    pub(crate) value: Held<V>,
    /// The rest of its time as a fresh value; `None`: it has no end.
    pub(crate) fresh_for: Option<Duration>,
    /// Its stale window after that; zero if none is known.
    pub(crate) stale_for: Duration,
    /// Time since the request was sent: a caller may be polled late for the answer.
    pub(crate) elapsed: Duration,
}

/// How a load asks L2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadRequest {
    /// Load even if there is a fresh value.
    pub(crate) refresh: bool,
    /// The load's caller can express that the key does not exist.
    pub(crate) accepts_none: bool,
    /// The hard timeout of the load.
    pub(crate) hard: Option<Duration>,
}

/// L2's answer to a load that begins.
pub(crate) enum LoadStart<V> {
    Fresh(FreshValue<V>),
    /// The key does not exist; a peer found that, and it holds for this long.
    Missing(Duration),
    Load {
        lease: Option<NamedLease>,
        /// A stale copy, and the rest of its time.
        stale: Option<(Held<V>, Duration)>,
        /// Whether the store holds any bytes of the key, readable or not.
        held: bool,
    },
}

/// The right to publish a load's result, under the store's name of the key at that time.
pub(crate) struct NamedLease {
    pub(super) lease: Lease,
    pub(super) name: String,
}

impl<V> LoadStart<V> {
    pub(crate) fn lease(&self) -> Option<Lease> {
        match self {
            Self::Load { lease, .. } => lease.as_ref().map(NamedLease::lease),
            Self::Fresh(_) | Self::Missing(_) => None,
        }
    }
}

impl NamedLease {
    pub(crate) fn lease(&self) -> Lease {
        self.lease.clone()
    }
}

/// The longest time for which a lease is requested. A load that takes longer extends its lease, so
/// that the lease of a load whose instance died is soon gone. (Redis keeps a lease for up to 25 %
/// longer.)
pub(super) const MAX_LEASE: Duration = Duration::from_secs(32);

/// A decoded value of the store.
enum Decoded<V> {
    Value(Held<V>),
    /// A null of the TypeScript package, which `V` cannot hold.
    Null,
    Unreadable,
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Reads a fresh value. Every failure is `None`.
    pub(crate) async fn get(self: &Arc<Self>, key: &str) -> Option<FreshValue<V>> {
        self.ensure_retry_task();
        let name = self.name(key);
        if !self.may_read(key) {
            return None;
        }
        let (asked_at, with_window) = (self.now(), self.with_windows);
        let read = self.call("get", key, self.limits.read, |store| store.get(&name, with_window));
        let stored = read.await.ok()??;
        match self.decode(key, stored.value).await {
            Decoded::Value(value) => {
                Some(self.fresh(value, stored.ttl, stored.stale_for, asked_at))
            }
            Decoded::Null | Decoded::Unreadable => None,
        }
    }

    /// Reads a fresh value, or takes a lease for a load. Every failure is a load without a lease
    /// and without a stale copy.
    pub(crate) async fn begin(self: &Arc<Self>, key: &str, load: LoadRequest) -> LoadStart<V> {
        self.ensure_retry_task();
        let LoadRequest { refresh, accepts_none, hard } = load;
        // The longest time of the load and of its publication.
        let calls = self.limits.read.saturating_add(self.limits.write);
        let lease_for = hard.map_or(MAX_LEASE, |hard| hard.saturating_add(calls).min(MAX_LEASE));
        let with_missing = accepts_none && self.with_missing;
        let with_window = self.with_windows;
        let mut request = LeaseRequest { lease_for, refresh, with_window, with_missing };
        let mut decodes = true;
        for _ in 0..2 {
            let name = self.name(key);
            if !self.may_read(key) {
                break;
            }
            let asked_at = self.now();
            let read = self.call("get_or_lease", key, self.limits.read, |store| {
                store.get_or_lease(&name, request)
            });
            match read.await {
                Ok(LeaseResponse::Fresh(StoredValue { value, ttl, stale_for })) => {
                    match self.decode(key, value).await {
                        Decoded::Value(value) => {
                            return LoadStart::Fresh(self.fresh(value, ttl, stale_for, asked_at));
                        }
                        Decoded::Null if accepts_none => {
                            return LoadStart::Missing(ttl.unwrap_or(Duration::MAX));
                        }
                        // Ask again for a lease, with which the load replaces the value.
                        Decoded::Null | Decoded::Unreadable => {
                            decodes = false;
                            request.refresh = true;
                        }
                    }
                }
                Ok(LeaseResponse::Missing(ttl)) if with_missing => return LoadStart::Missing(ttl),
                // A store that breaks its contract.
                Ok(LeaseResponse::Missing(_)) => break,
                Ok(LeaseResponse::Load { lease, stale }) => {
                    let held = stale.is_some();
                    let mut copy = None;
                    if let Some(StaleValue { value, usable_for }) = stale.filter(|_| decodes)
                        && let Decoded::Value(value) = self.decode(key, value).await
                    {
                        copy = Some((value, usable_for));
                    }
                    let lease = lease.map(|lease| NamedLease { lease, name: name.into_owned() });
                    return LoadStart::Load { lease, stale: copy, held };
                }
                Err(_) => break,
            }
        }
        LoadStart::Load { lease: None, stale: None, held: false }
    }

    /// Extends the lease of a load again and again, until it is not valid any more.
    pub(crate) async fn keep_lease(&self, key: &str, NamedLease { lease, name }: &NamedLease) {
        if !has_timer() {
            return;
        }
        loop {
            sleep(MAX_LEASE / 3).await;
            // The load may end without L2, so its failures do not count for the circuit breaker.
            let (counts, limit) = (BreakerCounts::None, self.limits.write);
            let extend = |store| Store::extend_lease(store, name, lease, MAX_LEASE);
            if let Ok(false) = self.call_with(counts, "extend_lease", key, limit, extend).await {
                return;
            }
        }
    }

    /// Whether the store says that a load's lease is not valid any more: the key may have been
    /// changed since the load began. `false` if the store does not answer.
    pub(crate) async fn is_lease_lost(
        &self,
        key: &str,
        NamedLease { lease, name }: &NamedLease,
    ) -> bool {
        let (counts, limit) = (BreakerCounts::None, self.limits.read);
        let extend = |store| Store::extend_lease(store, name, lease, MAX_LEASE);
        self.call_with(counts, "extend_lease", key, limit, extend).await == Ok(false)
    }

    fn fresh(
        &self,
        value: Held<V>,
        ttl: Option<Duration>,
        stale_for: Duration,
        asked_at: u64,
    ) -> FreshValue<V> {
        let elapsed = Duration::from_millis(self.now().saturating_sub(asked_at));
        let fresh_for = ttl.map(|ttl| ttl.saturating_sub(elapsed));
        FreshValue { value, fresh_for, stale_for, elapsed }
    }

    /// Decodes a value of the store. Bytes that the codec rejects are reported and deleted, but for
    /// a null.
    async fn decode(&self, key: &str, bytes: Vec<u8>) -> Decoded<V> {
        let Unreadable(error, bytes) = match self.codec.decode(bytes).await {
            Ok(value) => return Decoded::Value(Held::new(Arc::new(value))),
            Err(unreadable) => unreadable,
        };
        if bytes.as_deref().is_some_and(|bytes| self.codec.is_null(bytes)) {
            return Decoded::Null;
        }
        self.report(key, &error);
        let Some(bytes) = bytes else { return Decoded::Unreadable };
        let (name, limit) = (self.name(key), self.limits.write);
        // Boxed, so that the future of a hit does not reserve space for it.
        let _ =
            Box::pin(self.call("delete_if_equals", key, limit, |store| {
                store.delete_if_equals(&name, &bytes)
            }))
            .await;
        Decoded::Unreadable
    }

    /// The number of values in the store, `None` if the store does not answer.
    pub(crate) async fn size(&self) -> Option<u64> {
        self.call("size", "*", self.limits.read, |store| store.size()).await.ok()
    }
}
