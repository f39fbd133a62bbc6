//! What a store says about a key, if it says anything.

use std::time::Duration;

use tokio::time::sleep;

use super::{Check, LONG, SHORT, value_of};
use crate::l2::{Inspection, LoadEnd, Publication};

#[expect(clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    /// Asks twice, so that the second answer shows whether the first call has changed anything.
    async fn inspection(&self, key: &str) -> Inspection {
        let inspect = async || self.store.inspect(key, key).await.expect("inspect");
        let (first, second) = (inspect().await, inspect().await);
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
        let parts = |it: &Inspection| {
            let lease = it.lease.as_ref().map(|lease| lease.is_write);
            let owner = it.lock.as_ref().map(|lock| lock.owner.clone());
            (it.missing_for.is_some(), it.stale_for.is_some(), lease, owner)
        };
        assert_eq!(parts(&first), parts(&second), "inspect must change nothing");
        second
    }

    pub(super) async fn an_inspection_says_what_there_is_and_changes_nothing(&self) {
        let key = "conformance:inspect";
        let nothing = self.store.inspect(key, key).await.expect("inspect");
        let Some(nothing) = nothing else { return };
        assert_eq!(nothing, Inspection::default(), "there is nothing of the key");
        let none = Duration::ZERO;

        let load = self.lease(key, LONG).await;
        let lease = self.inspection(key).await.lease.expect("the lease of a load");
        assert!(!lease.is_write && lease.valid_for <= LONG * 2, "{lease:?}");
        assert!(self.publish(key, &load, "1").await, "inspect must not void the lease");
        assert_eq!(self.inspection(key).await.lease, None, "the publication consumed it");
        let write = self.write_lease(key, LONG).await;
        let lease = self.inspection(key).await.lease.expect("the lease of a write");
        assert!(lease.is_write && lease.valid_for <= LONG * 2, "{lease:?}");

        let missing = Publication::Missing { ttl: LONG };
        assert!(self.publish_as(key, &write, missing).await, "inspect must not void the lease");
        let inspection = self.inspection(key).await;
        assert!(inspection.missing_for.is_some_and(|ttl| ttl <= LONG && ttl > none));
        assert_eq!((inspection.lease, inspection.stale_for), (None, None), "a negative entry");

        self.write_with_copy(key, "1", SHORT * 5, LONG).await;
        assert_eq!(self.inspection(key).await, Inspection::default(), "the value is fresh");
        sleep(SHORT * 6).await;
        let inspection = self.inspection(key).await;
        assert!(inspection.stale_for.is_some_and(|left| left <= LONG && left > none));
        assert!(self.copy(key).await.is_some(), "inspect must not remove the copy");
        let lease = self.lease(key, LONG).await;
        let published = self.publish_as(key, &lease, value_of("2", SHORT, none)).await;
        assert!(published, "the lease is valid");

        self.store.lock(key, "a", LONG, None).await.expect("lock");
        let lock = self.inspection(key).await.lock.expect("the lock is held");
        assert!(lock.owner == "a" && lock.valid_for <= LONG, "{lock:?}");
        self.store.unlock(key, "a", Some(LoadEnd::Failed)).await.expect("unlock");
        assert_eq!(self.inspection(key).await.lock, None, "the lock was released");
        self.store.delete(key).await.expect("delete");
        assert_eq!(self.inspection(key).await, Inspection::default(), "the key was deleted");
    }
}
