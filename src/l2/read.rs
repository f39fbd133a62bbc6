//! Reads values from the store, and takes leases for loads.

use std::{sync::Arc, time::Duration};

use super::{
    facade::L2,
    store::{Lease, LeaseRequest, LeaseResponse, StoredValue},
};
use crate::codec::offloading::Unreadable;

/// A fresh value of L2.
pub(crate) struct FreshValue<V> {
    pub(crate) value: Arc<V>,
    /// The rest of its time as a fresh value; `None`: it has no end.
    pub(crate) fresh_for: Option<Duration>,
    /// Time since the request was sent: a caller may be polled late for the answer.
    pub(crate) elapsed: Duration,
}

/// L2's answer to a load that begins.
pub(crate) enum LoadStart<V> {
    Fresh(FreshValue<V>),
    Load {
        lease: Option<NamedLease>,
        /// A stale copy, and the rest of its time.
        stale: Option<(Arc<V>, Duration)>,
        /// Whether the store holds any bytes of the key, readable or not.
        held: bool,
    },
}

/// The right to publish a load's result, under the store's name of the key at that time.
pub(crate) struct NamedLease {
    pub(super) lease: Lease,
    pub(super) name: String,
}

/// Lease time of a load that has no hard timeout.
const LEASE_WITHOUT_TIMEOUT: Duration = Duration::from_secs(3_600);

impl<V: Send + Sync + 'static> L2<V> {
    /// Reads a fresh value. Every failure is `None`.
    pub(crate) async fn get(self: &Arc<Self>, key: &str) -> Option<FreshValue<V>> {
        self.ensure_retry_task();
        let name = self.name(key);
        if !self.may_read(key) {
            return None;
        }
        let asked_at = self.now();
        let read = self.call(key, self.limits.read, |store| store.get(&name));
        let stored = read.await.ok()??;
        self.fresh(key, stored, asked_at).await
    }

    /// Reads a fresh value, or takes a lease for a load. `hard` is the load's hard timeout. Every
    /// failure is a load without a lease and without a stale copy.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        key: &str,
        refresh: bool,
        hard: Option<Duration>,
    ) -> LoadStart<V> {
        self.ensure_retry_task();
        // The longest time of the load and of its publication.
        let calls = self.limits.read.saturating_add(self.limits.write);
        let lease_for = hard.map_or(LEASE_WITHOUT_TIMEOUT, |hard| hard.saturating_add(calls));
        let mut decodes = true;
        let mut request = LeaseRequest { stale_for: self.stale_for, lease_for, refresh };
        for _ in 0..2 {
            let name = self.name(key);
            if !self.may_read(key) {
                break;
            }
            let asked_at = self.now();
            let read = self.call(key, self.limits.read, |store| store.get_or_lease(&name, request));
            match read.await {
                Ok(LeaseResponse::Fresh(stored)) => match self.fresh(key, stored, asked_at).await {
                    Some(fresh) => return LoadStart::Fresh(fresh),
                    // The bytes do not decode, or the store takes a stale value for fresh: ask
                    // again for a lease, with which the load replaces the value.
                    None => {
                        decodes = false;
                        request.refresh = true;
                    }
                },
                Ok(LeaseResponse::Load { lease, stale }) => {
                    let held = stale.is_some();
                    let mut copy = None;
                    if let Some(stored) = stale.filter(|_| decodes) {
                        let ttl = stored.ttl.unwrap_or(self.stale_for);
                        let value = self.decode(key, stored.value).await;
                        copy = value.map(|value| (value, ttl));
                    }
                    let lease = lease.map(|lease| NamedLease { lease, name: name.into_owned() });
                    return LoadStart::Load { lease, stale: copy, held };
                }
                Err(_) => break,
            }
        }
        LoadStart::Load { lease: None, stale: None, held: false }
    }

    /// `None`: the bytes are not fresh any more, or do not decode.
    async fn fresh(&self, key: &str, stored: StoredValue, asked_at: u64) -> Option<FreshValue<V>> {
        let fresh_for = match stored.ttl {
            Some(ttl) if ttl <= self.stale_for => return None,
            Some(ttl) => Some(ttl - self.stale_for),
            None => None,
        };
        let value = self.decode(key, stored.value).await?;
        let elapsed = Duration::from_millis(self.now().saturating_sub(asked_at));
        let fresh_for = fresh_for.map(|fresh_for| fresh_for.saturating_sub(elapsed));
        Some(FreshValue { value, fresh_for, elapsed })
    }

    /// Decodes a value of the store. Bytes that the codec rejects are reported and deleted.
    async fn decode(&self, key: &str, bytes: Vec<u8>) -> Option<Arc<V>> {
        let Unreadable(error, bytes) = match self.codec.decode(bytes).await {
            Ok(value) => return Some(Arc::new(value)),
            Err(unreadable) => unreadable,
        };
        self.report(key, &error);
        let (bytes, name, limit) = (bytes?, self.name(key), self.limits.write);
        // Boxed, so that the future of a hit does not reserve space for it.
        let _ =
            Box::pin(self.call(key, limit, |store| store.delete_if_equals(&name, &bytes))).await;
        None
    }

    /// The number of values in the store, `None` if the store does not answer.
    pub(crate) async fn size(&self) -> Option<u64> {
        self.call("*", self.limits.read, |store| store.size()).await.ok()
    }
}
