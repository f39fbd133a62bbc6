//! Publishes and writes values in the store.

use std::{sync::Arc, time::Duration};

use super::{
    facade::{BreakerCounts, Failure, L2},
    read::{MAX_LEASE, NamedLease},
    store_types::Publication,
    write_outcome::WriteOutcome,
};
use crate::{codec::offloading::Plain, entry::Lifetime, error::HeldError};

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
    /// Publishes a loaded value under the lease of its load. If the value cannot be stored, the key
    /// is removed under the lease. `plain`: the value as it is sent to peers, if it is.
    pub(crate) async fn publish(
        &self,
        key: &str,
        lease: &NamedLease,
        value: &Arc<V>,
        plain: Option<&Plain>,
        lifetime: Lifetime,
    ) -> PublishOutcome {
        let result = match self.encode(key, value, plain).await {
            Ok(bytes) => value_for(bytes, lifetime),
            Err(_) => Publication::Missing { ttl: Duration::ZERO },
        };
        self.publish_result(key, lease, result).await.unwrap_or(PublishOutcome::Unknown)
    }

    /// Publishes that the key does not exist, for `ttl`; zero: only removes the key.
    pub(crate) async fn publish_missing(
        &self,
        key: &str,
        lease: &NamedLease,
        ttl: Duration,
    ) -> PublishOutcome {
        let result = Publication::Missing { ttl };
        self.publish_result(key, lease, result).await.unwrap_or(PublishOutcome::Unknown)
    }

    /// Writes a value that the caller passed to `set`. If it cannot be stored, the key is deleted
    /// instead, because the value in the store is old now.
    pub(crate) async fn set(
        self: &Arc<Self>,
        key: &str,
        value: &Arc<V>,
        plain: Option<&Plain>,
        lifetime: Lifetime,
    ) -> WriteOutcome {
        self.ensure_retry_task();
        if let Err(refused) = self.check_key(key) {
            return WriteOutcome::NotStored(refused);
        }
        // Before the value is encoded: that takes time, in which the caller may drop this future.
        let intent = self.intend(key);
        let remove = self.remove_key(key, BreakerCounts::All);
        let written = if lifetime.ttl.is_zero() {
            remove.await.map(|()| WriteOutcome::Done)
        } else {
            match self.encode(key, value, plain).await {
                Ok(bytes) => self.lease_and_publish(key, value_for(bytes, lifetime)).await,
                Err(refused) => remove.await.map(|()| WriteOutcome::NotStored(refused)),
            }
        };
        self.end(intent, key, written)
    }

    async fn lease_and_publish(
        &self,
        key: &str,
        result: Publication,
    ) -> Result<WriteOutcome, Failure> {
        // Twice the longest time of the publication.
        let lease_for = self.limits.write.saturating_mul(2).min(MAX_LEASE);
        if self.versions.is_some() {
            // A peer that is at another version must not continue to read the old value.
            self.remove_key(key, BreakerCounts::All).await?;
        }
        let name = self.name(key);
        let acquire = self.call("acquire_write_lease", key, self.limits.write, |store| {
            store.acquire_write_lease(&name, lease_for)
        });
        let Some(lease) = acquire.await? else {
            return Ok(WriteOutcome::NotStored(HeldError::new(
                "the store has no room for a lease".into(),
            )));
        };
        let lease = NamedLease { lease, name: name.into_owned() };
        Ok(match self.publish_result(key, &lease, result).await? {
            PublishOutcome::Refused => WriteOutcome::Superseded,
            PublishOutcome::Stored | PublishOutcome::Unknown => WriteOutcome::Done,
        })
    }

    async fn publish_result(
        &self,
        key: &str,
        NamedLease { lease, name }: &NamedLease,
        result: Publication,
    ) -> Result<PublishOutcome, Failure> {
        let publish = self
            .call("publish", key, self.limits.write, |store| store.publish(name, lease, result));
        Ok(if publish.await? { PublishOutcome::Stored } else { PublishOutcome::Refused })
    }

    /// Returns, and reports, the reason if the codec or the store refuses the value.
    async fn encode(
        &self,
        key: &str,
        value: &Arc<V>,
        plain: Option<&Plain>,
    ) -> Result<Vec<u8>, HeldError> {
        let encoded = self.codec.encode(value, plain).await;
        let accepted =
            encoded.and_then(|bytes| self.value_rejection(bytes.len()).map_or(Ok(bytes), Err));
        accepted.inspect_err(|refused| self.report_refused(key, refused))
    }
}

fn value_for(value: Vec<u8>, Lifetime { ttl, stale_for }: Lifetime) -> Publication {
    Publication::Value { value, ttl, stale_for }
}
