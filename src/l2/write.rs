//! Publishes and writes values in the store.

use std::{sync::Arc, time::Duration};

use super::{
    facade::{BreakerCounts, Failure, L2},
    read::NamedLease,
    write_outcome::WriteOutcome,
};
use crate::error::BoxError;

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
        let Ok(bytes) = self.encode(key, value).await else { return PublishOutcome::Unknown };
        self.publish_bytes(key, lease, bytes, ttl).await.unwrap_or(PublishOutcome::Unknown)
    }

    /// Writes a value that the caller passed to `set`. If it cannot be stored, the key is deleted
    /// instead, because the value in the store is old now.
    pub(crate) async fn set(
        self: &Arc<Self>,
        key: &str,
        value: &Arc<V>,
        ttl: Duration,
    ) -> WriteOutcome {
        self.ensure_retry_task();
        if let Err(refused) = self.check_key(key) {
            return WriteOutcome::NotStored(refused);
        }
        // Before the value is encoded: that takes time, in which the caller may drop this future.
        let intent = self.intend(key, false);
        let remove = self.remove_key(key, BreakerCounts::All);
        let written = if ttl.is_zero() {
            remove.await.map(|()| WriteOutcome::Done)
        } else {
            match self.encode(key, value).await {
                Ok(bytes) => self.lease_and_publish(key, bytes, ttl).await,
                Err(refused) => remove.await.map(|()| WriteOutcome::NotStored(refused)),
            }
        };
        self.end(intent, key, false, written)
    }

    async fn lease_and_publish(
        &self,
        key: &str,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<WriteOutcome, Failure> {
        // Twice the longest time of the publication.
        let lease_for = self.limits.write.saturating_mul(2);
        if self.versions.is_some() {
            // A peer that is at another version must not continue to read the old value.
            self.remove_key(key, BreakerCounts::All).await?;
        }
        let name = self.name(key);
        let acquire =
            self.call(key, self.limits.write, |store| store.acquire_write_lease(&name, lease_for));
        let Some(lease) = acquire.await? else {
            return Ok(WriteOutcome::NotStored("the store has no room for a lease".into()));
        };
        let lease = NamedLease { lease, name: name.into_owned() };
        Ok(match self.publish_bytes(key, &lease, bytes, ttl).await? {
            PublishOutcome::Refused => WriteOutcome::Superseded,
            PublishOutcome::Stored | PublishOutcome::Unknown => WriteOutcome::Done,
        })
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

    /// Returns, and reports, the reason if the codec or the store refuses the value.
    async fn encode(&self, key: &str, value: &Arc<V>) -> Result<Vec<u8>, BoxError> {
        let encoded = self.codec.encode(value).await;
        let accepted =
            encoded.and_then(|bytes| self.value_rejection(bytes.len()).map_or(Ok(bytes), Err));
        accepted.inspect_err(|refused| self.report_refused(key, refused))
    }
}
