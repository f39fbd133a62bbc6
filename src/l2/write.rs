//! Publishes and writes values in the store.

use std::{sync::Arc, time::Duration};

use super::{
    facade::{BreakerCounts, Failure, L2},
    read::NamedLease,
};

/// Result of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishOutcome {
    Stored,
    /// An invalidation voided the lease: the value must not be kept anywhere.
    Refused,
    /// The store may have the value or not. No invalidation is known either.
    Unknown,
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Publishes the result of a load under its lease.
    pub(crate) async fn publish(
        &self,
        key: &str,
        lease: &NamedLease,
        value: &Arc<V>,
        ttl: Duration,
    ) -> PublishOutcome {
        let Some(bytes) = self.encode(key, value).await else { return PublishOutcome::Unknown };
        self.publish_bytes(key, lease, bytes, ttl).await.unwrap_or(PublishOutcome::Unknown)
    }

    /// Writes a value that the caller passed to `set`. If it cannot be encoded, or the store has no
    /// room for it, the key is deleted instead, because the value in the store is old now.
    pub(crate) async fn set(
        self: &Arc<Self>,
        key: &str,
        value: &Arc<V>,
        ttl: Duration,
    ) -> Result<PublishOutcome, Failure> {
        self.ensure_retry_task();
        if !self.accepts_key(key) {
            return Ok(PublishOutcome::Unknown);
        }
        // Before the value is encoded: that takes time, in which the caller may drop this future.
        let intent = self.intend(key, false);
        let bytes = if ttl.is_zero() { None } else { self.encode(key, value).await };
        let outcome = match bytes {
            Some(bytes) => self.lease_and_publish(key, bytes, ttl).await?,
            None => self.remove(key).await.map(|()| PublishOutcome::Unknown)?,
        };
        intent.disarm();
        Ok(outcome)
    }

    async fn lease_and_publish(
        &self,
        key: &str,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<PublishOutcome, Failure> {
        // Twice the longest time of the publication.
        let lease_for = self.limits.write.saturating_mul(2);
        if self.versions.is_some() {
            // A peer that is at another version must not continue to read the old value.
            self.remove_key(key, BreakerCounts::All).await?;
        }
        let name = self.name(key);
        let acquire =
            self.call(key, self.limits.write, |store| store.acquire_write_lease(&name, lease_for));
        let Some(lease) = acquire.await? else { return Ok(PublishOutcome::Unknown) };
        let lease = NamedLease { lease, name: name.into_owned() };
        self.publish_bytes(key, &lease, bytes, ttl).await
    }

    async fn publish_bytes(
        &self,
        key: &str,
        NamedLease { lease, name }: &NamedLease,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<PublishOutcome, Failure> {
        let ttl = ttl.saturating_add(self.stale_for);
        let publish =
            self.call(key, self.limits.write, |store| store.publish(name, lease, bytes, ttl));
        Ok(if publish.await? { PublishOutcome::Stored } else { PublishOutcome::Refused })
    }

    async fn encode(&self, key: &str, value: &Arc<V>) -> Option<Vec<u8>> {
        self.codec.encode(value).await.inspect_err(|error| self.report(key, error)).ok()
    }
}
