//! Checks a user's [`Store`] against the contract of the trait.

mod inspection;
mod patterns;

use std::time::Duration;

use tokio::time::sleep;

use crate::l2::{
    Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor, Publication,
    StaleValue, Store,
};

/// Checks every rule of the [`Store`] contract. Takes about five seconds of real time.
///
/// The store should be empty: the check deletes all of its keys.
///
/// # Panics
///
/// At the first rule that the store breaks, with the rule; and if the store returns an error.
///
/// ```
/// # use lazy_layers_cache::{SystemClock, testing::{SharedStore, check_store}};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// check_store(&SharedStore::new(SystemClock)).await;
/// # }
/// ```
pub async fn check_store(store: &dyn Store) {
    let check = Check { store };
    check.values_are_kept_for_their_time().await;
    check.a_fresh_value_needs_no_load().await;
    check.a_value_leaves_a_copy_for_its_window().await;
    check.every_change_removes_the_copy().await;
    check.a_negative_entry_needs_no_load().await;
    check.a_lease_publishes_once().await;
    check.an_unknown_lease_refuses().await;
    check.deletes_void_leases().await;
    check.writes_void_leases_and_share_none().await;
    check.patterns_delete_the_matching_keys().await;
    check.a_pattern_continues_where_it_was().await;
    check.delete_if_equals_keeps_another_value().await;
    check.locks_have_one_owner().await;
    check.a_released_lock_shows_the_end_of_its_load().await;
    check.an_inspection_says_what_there_is_and_changes_nothing().await;
    check.any_text_is_a_key().await;
}

struct Check<'a> {
    store: &'a dyn Store,
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

#[expect(clippy::panic, clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    async fn get_or_lease(&self, key: &str, refresh: bool, lease_for: Duration) -> LeaseResponse {
        let request = LeaseRequest { lease_for, refresh, with_window: true, with_missing: true };
        self.store.get_or_lease(key, request).await.expect("get_or_lease")
    }

    async fn lease(&self, key: &str, lease_for: Duration) -> Lease {
        match self.get_or_lease(key, true, lease_for).await {
            LeaseResponse::Load { lease: Some(lease), .. } => lease,
            response => panic!("a load of {key:?} must get a lease, not {response:?}"),
        }
    }

    async fn publish(&self, key: &str, lease: &Lease, value: &str) -> bool {
        self.publish_as(key, lease, value_of(value, LONG, Duration::ZERO)).await
    }

    async fn publish_as(&self, key: &str, lease: &Lease, result: Publication) -> bool {
        self.store.publish(key, lease, result).await.expect("publish")
    }

    async fn write_lease(&self, key: &str, lease_for: Duration) -> Lease {
        let lease = self.store.acquire_write_lease(key, lease_for).await;
        let lease = lease.expect("acquire_write_lease");
        lease.unwrap_or_else(|| panic!("a write of {key:?} must get a lease"))
    }

    async fn write(&self, key: &str, value: &str, ttl: Duration) {
        self.write_with_copy(key, value, ttl, Duration::ZERO).await;
    }

    async fn write_with_copy(&self, key: &str, value: &str, ttl: Duration, stale_for: Duration) {
        let lease = self.write_lease(key, LONG).await;
        let published = self.publish_as(key, &lease, value_of(value, ttl, stale_for)).await;
        assert!(published, "no call voided the lease of the write of {key:?}");
    }

    /// The stale copy that a load of the key gets.
    async fn copy(&self, key: &str) -> Option<StaleValue> {
        match self.get_or_lease(key, false, LONG).await {
            LeaseResponse::Load { stale, .. } => stale,
            response => panic!("{key:?} has no value, so it must be loaded, not {response:?}"),
        }
    }

    async fn value(&self, key: &str) -> Option<String> {
        let stored = self.store.get(key, true).await.expect("get")?;
        Some(String::from_utf8_lossy(&stored.value).into_owned())
    }

    async fn size(&self) -> u64 {
        self.store.size().await.expect("size")
    }

    async fn values_are_kept_for_their_time(&self) {
        let key = "conformance:time";
        assert_eq!(self.value(key).await, None, "the store must be empty");
        let before = self.size().await;
        self.write(key, "1", LONG).await;
        assert_eq!(self.size().await, before + 1, "size must count the new value");
        let stored = self.store.get(key, true).await.expect("get").expect("a value just written");
        let ttl = stored.ttl.expect("a value that was written with a ttl must have one");
        assert!(ttl <= LONG && ttl > LONG / 2, "the ttl was {LONG:?} and is {ttl:?}");
        self.write(key, "2", SHORT).await;
        assert_eq!(self.value(key).await.as_deref(), Some("2"), "the last write must win");
        sleep(SHORT * 2).await;
        assert_eq!(self.value(key).await, None, "a value must end with its ttl");
        assert_eq!(self.size().await, before, "size must not count a value after its ttl");
    }

    async fn a_fresh_value_needs_no_load(&self) {
        let key = "conformance:fresh";
        self.write(key, "1", LONG).await;
        let response = self.get_or_lease(key, false, LONG).await;
        let is_fresh = matches!(response, LeaseResponse::Fresh(_));
        assert!(is_fresh, "there is a value: {response:?}");
        let response = self.get_or_lease(key, true, LONG).await;
        let is_right = matches!(&response, LeaseResponse::Load { lease: Some(_), stale: Some(_) });
        assert!(is_right, "a refresh must get a lease and the value: {response:?}");
    }

    async fn a_value_leaves_a_copy_for_its_window(&self) {
        let key = "conformance:copy";
        self.write_with_copy(key, "1", SHORT, LONG).await;
        let stored = self.store.get(key, true).await.expect("get").expect("a fresh value");
        let is_near = |time: Duration, to: Duration| time <= to && time + SHORT >= to;
        assert!(is_near(stored.stale_for, LONG), "the window of the value: {stored:?}");
        assert!(stored.ttl.is_some_and(|ttl| ttl <= SHORT), "{stored:?}");
        let size = self.size().await;
        sleep(SHORT * 2).await;
        assert_eq!(self.value(key).await, None, "a value must end with its ttl, copy or not");
        assert_eq!(self.size().await, size - 1, "size must not count copies");
        let copy = self.copy(key).await.expect("a stale copy");
        assert_eq!(copy.value, b"1");
        assert!(copy.usable_for <= LONG && copy.usable_for > LONG - 10 * SHORT, "{copy:?}");
        self.write_with_copy(key, "2", SHORT, SHORT).await;
        sleep(SHORT * 3).await;
        assert_eq!(self.copy(key).await, None, "a copy must end with its window");
        self.write(key, "3", SHORT).await;
        sleep(SHORT * 2).await;
        assert_eq!(self.copy(key).await, None, "the value had no window");
    }

    async fn every_change_removes_the_copy(&self) {
        let key = "conformance:copy:{}";
        let changes = [
            "delete",
            "delete_matching",
            "delete_if_equals",
            "sidecar",
            "sidecars",
            "write",
            "missing",
            "none",
        ];
        for change in changes {
            self.write_with_copy(key, "1", SHORT, LONG).await;
            sleep(SHORT * 2).await;
            match change {
                "delete" => self.store.delete(key).await.expect("delete"),
                "delete_matching" => {
                    self.store.delete_matching("conformance:copy:{*").await.expect("matching");
                }
                "delete_if_equals" => {
                    self.store.delete_if_equals(key, b"1").await.expect("delete_if_equals");
                }
                "sidecar" => self.store.delete_sidecars(&[key.to_owned()]).await.expect("sidecar"),
                "sidecars" => {
                    let cursor = PatternCursor::new();
                    let deleted = self.store.delete_matching_from(key, true, &cursor).await;
                    deleted.expect("delete_matching_from");
                }
                "write" => self.write(key, "2", SHORT).await,
                "missing" => {
                    let lease = self.lease(key, LONG).await;
                    let missing = Publication::Missing { ttl: SHORT };
                    assert!(self.publish_as(key, &lease, missing).await, "the lease is valid");
                }
                _ => {}
            }
            sleep(SHORT * 2).await;
            let is_kept = self.copy(key).await.is_some();
            assert_eq!(is_kept, change == "none", "the copy of the old value after {change}");
        }
        self.store.delete(key).await.expect("delete");
    }

    async fn a_negative_entry_needs_no_load(&self) {
        let key = "conformance:missing";
        let lease = self.lease(key, LONG).await;
        let size = self.size().await;
        let missing = |ttl| Publication::Missing { ttl };
        assert!(self.publish_as(key, &lease, missing(LONG)).await, "the lease is valid");
        assert!(!self.publish(key, &lease, "1").await, "a negative entry must consume the lease");
        let response = self.get_or_lease(key, false, LONG).await;
        let is_missing = matches!(response, LeaseResponse::Missing(ttl) if ttl <= LONG);
        assert!(is_missing, "the key has a negative entry: {response:?}");
        assert_eq!((self.value(key).await, self.size().await), (None, size), "it is no value");
        let lease = self.lease(key, LONG).await;
        self.store.delete(key).await.expect("delete");
        assert!(!self.publish_as(key, &lease, missing(LONG)).await, "the key was deleted");
        assert_eq!(self.copy(key).await, None, "the delete removed the negative entry");
        let lease = self.lease(key, LONG).await;
        assert!(self.publish_as(key, &lease, missing(SHORT)).await);
        sleep(SHORT * 2).await;
        assert_eq!(self.copy(key).await, None, "a negative entry must end with its ttl");
        self.write(key, "1", LONG).await;
        assert_eq!(self.value(key).await.as_deref(), Some("1"));
    }

    async fn a_lease_publishes_once(&self) {
        let key = "conformance:once";
        let lease = self.lease(key, LONG).await;
        assert!(self.publish(key, &lease, "1").await, "the lease is valid");
        assert!(!self.publish(key, &lease, "2").await, "a publication must consume its lease");
        assert_eq!(self.value(key).await.as_deref(), Some("1"));
        let (one, other) = (self.lease(key, LONG).await, self.lease(key, LONG).await);
        assert_ne!(one, lease, "a lease must never be given again");
        let first = self.publish(key, &one, "3").await;
        let second = self.publish(key, &other, "4").await;
        assert!(first || second, "at least one of two concurrent loads must publish");
    }

    async fn an_unknown_lease_refuses(&self) {
        let key = "conformance:unknown";
        let made_up = Lease::new("made-up");
        assert!(!self.publish(key, &made_up, "1").await, "the store never gave this lease");
        let lease = self.lease(key, LONG).await;
        let published = self.publish("conformance:other", &lease, "1").await;
        assert!(!published, "the lease is of another key");
        self.store.delete(key).await.expect("delete");
        let short = self.lease(key, SHORT).await;
        sleep(SHORT * 2).await;
        assert!(!self.publish(key, &short, "1").await, "the lease was valid for {SHORT:?}");
        assert_eq!(self.value(key).await, None);
        self.get_or_lease(key, true, SHORT).await;
        let later = self.lease(key, LONG).await;
        sleep(SHORT * 2).await;
        // Whether or not both loads share a lease.
        let published = self.publish(key, &later, "1").await;
        assert!(published, "a lease must be valid for lease_for from the last request");
        self.store.delete(key).await.expect("delete");
        let lease = self.lease(key, SHORT).await;
        let extend = async |lease| self.store.extend_lease(key, lease, LONG).await.expect("extend");
        assert!(extend(&lease).await && !extend(&made_up).await, "only a valid lease is extended");
        sleep(SHORT * 2).await;
        assert!(self.publish(key, &lease, "1").await, "the lease was extended");
        assert!(!extend(&lease).await, "the publication consumed the lease");
    }

    async fn deletes_void_leases(&self) {
        let key = "conformance:delete";
        self.store.delete(key).await.expect("the delete of a missing key must succeed");
        self.write(key, "1", LONG).await;
        let lease = self.lease(key, LONG).await;
        self.store.delete(key).await.expect("delete");
        assert_eq!(self.value(key).await, None, "the key was deleted");
        assert!(!self.publish(key, &lease, "old").await, "the load began before the delete");
        let newer = self.lease(key, LONG).await;
        assert!(!self.publish(key, &lease, "old").await, "a later load must get another lease");
        assert!(self.publish(key, &newer, "new").await, "the load began after the delete");
    }

    async fn writes_void_leases_and_share_none(&self) {
        let key = "conformance:write";
        self.write(key, "1", LONG).await;
        let load = self.lease(key, LONG).await;
        let write = self.write_lease(key, LONG).await;
        assert_eq!(self.value(key).await, None, "acquire_write_lease must remove the value");
        assert!(!self.publish(key, &load, "old").await, "the load began before the write");
        let response = self.get_or_lease(key, true, LONG).await;
        let has_none = matches!(&response, LeaseResponse::Load { lease: None, .. });
        assert!(has_none, "a load that begins during a write must get no lease: {response:?}");
        let later = self.write_lease(key, LONG).await;
        assert!(!self.publish(key, &write, "2").await, "a later write has begun");
        assert!(self.publish(key, &later, "3").await, "no later write has begun");
        assert_eq!(self.value(key).await.as_deref(), Some("3"));
        let write = self.write_lease(key, LONG).await;
        self.store.delete(key).await.expect("delete");
        assert!(!self.publish(key, &write, "old").await, "the write began before the delete");
        let write = self.write_lease(key, SHORT).await;
        sleep(SHORT * 2).await;
        assert!(!self.publish(key, &write, "late").await, "the lease was valid for {SHORT:?}");
        self.lease(key, LONG).await;
    }

    async fn delete_if_equals_keeps_another_value(&self) {
        let key = "conformance:equals";
        self.write(key, "1", LONG).await;
        self.store.delete_if_equals(key, b"2").await.expect("delete_if_equals");
        assert_eq!(self.value(key).await.as_deref(), Some("1"), "the value is another one");
        self.store.delete_if_equals(key, b"1").await.expect("delete_if_equals");
        assert_eq!(self.value(key).await, None);
    }

    async fn locks_have_one_owner(&self) {
        let key = "conformance:lock";
        let lock = async |owner, ttl| {
            let response = self.store.lock(key, owner, ttl, None).await.expect("lock");
            response == LockResponse::Acquired
        };
        let unlock = async |owner| self.store.unlock(key, owner, None).await.expect("unlock");
        let extend = async |owner, ttl| self.store.extend(key, owner, ttl).await.expect("extend");
        assert!(lock("a", LONG).await, "the lock is free");
        assert!(!lock("b", LONG).await, "a has the lock");
        assert!(lock("a", LONG).await, "its owner may take it again");
        assert!(!lock("b", LONG).await, "a still has the lock");
        unlock("b").await;
        assert!(!lock("b", LONG).await, "b cannot release the lock of a");
        assert!(!extend("b", LONG).await, "b cannot extend the lock of a");
        assert!(extend("a", SHORT).await, "a can extend its lock");
        sleep(SHORT * 2).await;
        assert!(!extend("a", LONG).await, "the lock ended after {SHORT:?}");
        assert!(lock("b", LONG).await, "an ended lock is free");
        unlock("b").await;
        assert!(lock("c", LONG).await, "b has released the lock");
        unlock("c").await;
    }

    async fn a_released_lock_shows_the_end_of_its_load(&self) {
        let key = "conformance:lock-end";
        let lock = async |owner, waited_for| {
            self.store.lock(key, owner, LONG, waited_for).await.expect("lock")
        };
        let missing = || Some(LoadEnd::Missing(Lease::new("1")));
        for end in [missing(), Some(LoadEnd::Failed)] {
            assert_eq!(lock("a", None).await, LockResponse::Acquired);
            assert_eq!(lock("b", None).await, LockResponse::HeldBy("a".into()));
            self.store.unlock(key, "b", end.clone()).await.expect("unlock");
            assert_eq!(lock("b", Some("a")).await, LockResponse::HeldBy("a".into()));
            self.store.unlock(key, "a", end.clone()).await.expect("unlock");
            for waiter in ["b", "c"] {
                let shown = lock(waiter, Some("a")).await;
                assert_eq!(
                    Some(shown),
                    end.clone().map(LockResponse::Released),
                    "{waiter} waited for a"
                );
            }
            assert!(!self.store.extend(key, "a", LONG).await.expect("extend"), "a released it");
            let other = lock("d", Some("x")).await;
            assert_eq!(other, LockResponse::Acquired, "d has not waited for a");
            assert_eq!(lock("b", Some("a")).await, LockResponse::HeldBy("d".into()));
            self.store.unlock(key, "d", None).await.expect("unlock");
            assert_eq!(lock("e", Some("d")).await, LockResponse::Acquired, "d showed no end");
            self.store.unlock(key, "e", missing()).await.expect("unlock");
            sleep(Duration::from_millis(1_100)).await;
            let later = lock("b", Some("e")).await;
            assert_eq!(later, LockResponse::Acquired, "the end is shown for one second");
            self.store.unlock(key, "b", None).await.expect("unlock");
        }
    }

    async fn any_text_is_a_key(&self) {
        let long = "k".repeat(60_000);
        let keys = ["", "{}x", "}x", "{", "x{a}y", "*?[]\\", "a b\n\r\0", "é", "a::v1", &long];
        for key in keys {
            let lease = self.lease(key, LONG).await;
            assert!(self.publish(key, &lease, "1").await, "{key:?} must be accepted as a key");
            assert_eq!(self.value(key).await.as_deref(), Some("1"), "the value of {key:?}");
            let lease = self.lease(key, LONG).await;
            self.store.delete(key).await.expect("delete");
            assert!(!self.publish(key, &lease, "old").await, "{key:?} was deleted");
            assert_eq!(self.value(key).await, None, "{key:?} was deleted");
        }
    }
}

fn value_of(value: &str, ttl: Duration, stale_for: Duration) -> Publication {
    Publication::Value { value: value.into(), ttl, stale_for }
}
