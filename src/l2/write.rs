//! Publishes, writes and invalidates values in the store.

use std::{sync::Arc, time::Duration};

use super::{
    facade::L2,
    guarded::{BreakerCounts, Failure},
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
        &self,
        key: &str,
        value: &Arc<V>,
        ttl: Duration,
    ) -> Result<PublishOutcome, Failure> {
        self.invalidator.ensure_retry_task();
        if !self.accepts_key(key) {
            return Ok(PublishOutcome::Unknown);
        }
        // Before the value is encoded: that takes time, in which the caller may drop this future.
        let intent = self.invalidator.intend_key(key);
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
        let lease_for = self.write_limit.saturating_mul(2);
        if self.invalidator.versions.is_some() {
            // A peer that is at another version must not continue to read the old value.
            self.invalidator.remove_key(key, BreakerCounts::All).await?;
        }
        let name = self.name(key);
        let acquire = self
            .store
            .call(key, self.write_limit, |store| store.acquire_write_lease(&name, lease_for));
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
            self.store.call(key, self.write_limit, |store| store.publish(name, lease, bytes, ttl));
        Ok(if publish.await? { PublishOutcome::Stored } else { PublishOutcome::Refused })
    }

    /// Deletes a key. If the call fails or the caller drops the future, the delete is pending: a
    /// background task retries it, and the key is not read from the store before it has succeeded.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), Failure> {
        if let Some(versions) = &self.invalidator.versions {
            versions.bump(key);
        }
        self.remove(key).await
    }

    /// Removes a value that no caller deleted, but that must not stay: as
    /// [`delete`](Self::delete), without a new version of the key.
    pub(crate) async fn remove(&self, key: &str) -> Result<(), Failure> {
        self.invalidator.ensure_retry_task();
        if !self.accepts_key(key) {
            return Ok(());
        }
        let intent = self.invalidator.intend_key(key);
        self.invalidator.remove_key(key, BreakerCounts::All).await?;
        intent.disarm();
        Ok(())
    }

    /// Deletes all keys that match a glob; a failure is handled as in [`delete`](Self::delete).
    pub(crate) async fn delete_matching(&self, glob: &str) -> Result<(), Failure> {
        self.invalidator.ensure_retry_task();
        let intent = self.invalidator.intend_pattern(glob);
        // The breaker does not count a call that reached its limit: the store may have many keys
        // to look at, and still be healthy.
        let limit = self.invalidator.pattern_limit;
        self.invalidator.remove_matching(glob, limit, BreakerCounts::ErrorsOnly).await?;
        intent.disarm();
        Ok(())
    }

    /// The version of a key, for messages to peers. `None`: keys are not versioned.
    pub(crate) fn version_of(&self, key: &str) -> Option<u64> {
        self.invalidator.versions.as_ref().map(|versions| versions.version_of(key))
    }

    /// A peer has deleted or set the key, which is at version `remote` there. If the store may
    /// hold an old value under the key's new name, a delete of the key becomes pending.
    pub(crate) fn observe_remote(&self, key: &str, remote: u64) {
        if let Some(versions) = &self.invalidator.versions
            && self.rejection(key).is_none()
        {
            versions.observe_remote(key, remote, || drop(self.invalidator.intend_key(key)));
        }
    }
}
