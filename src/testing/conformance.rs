//! What any [`Store`] must do, as a check that a user's own store can run.

use std::time::Duration;

use tokio::time::sleep;

use crate::l2::{Lease, LeaseRequest, LeaseResponse, Store};

/// Asks a store for everything that its contract says. It takes about a second of real time.
///
/// The store should be empty, and is left with some values in it. Names of keys begin with
/// `conformance:`.
///
/// # Panics
///
/// At the first rule that does not hold, with the rule; and where the store returns an error.
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
    check.what_is_fresh_needs_no_load().await;
    check.a_lease_publishes_once().await;
    check.what_is_not_known_refuses().await;
    check.deletes_void_leases().await;
    check.writes_void_leases_and_share_none().await;
    check.patterns_delete_what_they_match().await;
    check.only_the_bytes_that_were_read_are_discarded().await;
    check.locks_have_one_owner().await;
    check.any_text_is_a_key().await;
}

struct Check<'a> {
    store: &'a dyn Store,
}

const LONG: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(60);

#[expect(clippy::panic, clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    async fn get_or_lease(&self, key: &str, refresh: bool, lease_for: Duration) -> LeaseResponse {
        let begin = LeaseRequest { stale_for: STALE, lease_for, refresh };
        self.store.get_or_lease(key, begin).await.expect("begin")
    }

    async fn lease(&self, key: &str) -> Lease {
        match self.get_or_lease(key, true, LONG).await {
            LeaseResponse::Load { lease: Some(lease), .. } => lease,
            begun => panic!("a load of {key:?} must be given a lease, not {begun:?}"),
        }
    }

    async fn publish(&self, key: &str, lease: &Lease, value: &str) -> bool {
        self.store.publish(key, lease, value.into(), LONG).await.expect("publish")
    }

    async fn write(&self, key: &str, value: &str, ttl: Duration) {
        let lease = self.store.acquire_write_lease(key, LONG).await.expect("acquire_write_lease");
        let lease = lease.unwrap_or_else(|| panic!("a write of {key:?} must be given a lease"));
        let published = self.store.publish(key, &lease, value.into(), ttl).await;
        assert!(published.expect("publish"), "nobody voided the lease of the write of {key:?}");
    }

    async fn value(&self, key: &str) -> Option<String> {
        let stored = self.store.get(key).await.expect("get")?;
        Some(String::from_utf8_lossy(&stored.value).into_owned())
    }

    async fn values_are_kept_for_their_time(&self) {
        let key = "conformance:time";
        assert_eq!(self.value(key).await, None, "the store must be empty");
        let before = self.store.size().await.expect("size");
        self.write(key, "1", LONG).await;
        assert_eq!(self.store.size().await.expect("size"), before + 1, "one value more");
        let stored = self.store.get(key).await.expect("get").expect("a value just written");
        let ttl = stored.ttl.expect("a value that was written with a ttl must have one");
        assert!(ttl <= LONG && ttl > LONG / 2, "the ttl was {LONG:?} and is {ttl:?}");
        self.write(key, "2", SHORT).await;
        assert_eq!(self.value(key).await.as_deref(), Some("2"), "the last write stands");
        sleep(SHORT * 2).await;
        assert_eq!(self.value(key).await, None, "a value ends with its time");
        assert_eq!(self.store.size().await.expect("size"), before, "and is not counted then");
    }

    async fn what_is_fresh_needs_no_load(&self) {
        let key = "conformance:fresh";
        self.write(key, "1", LONG).await;
        let begun = self.get_or_lease(key, false, LONG).await;
        assert!(
            matches!(begun, LeaseResponse::Fresh(_)),
            "more than the stale window remains: {begun:?}"
        );
        let begun = self.get_or_lease(key, true, LONG).await;
        let is_right = matches!(&begun, LeaseResponse::Load { lease: Some(_), stale: Some(_) });
        assert!(is_right, "a refresh gets a lease and what there is: {begun:?}");
        self.write(key, "2", STALE / 2).await;
        let begun = self.get_or_lease(key, false, LONG).await;
        let is_right = matches!(&begun, LeaseResponse::Load { lease: Some(_), stale: Some(stale) }
            if stale.value == b"2");
        assert!(is_right, "less than the stale window remains: {begun:?}");
    }

    async fn a_lease_publishes_once(&self) {
        let key = "conformance:once";
        let lease = self.lease(key).await;
        assert!(self.publish(key, &lease, "1").await, "the lease is good");
        assert!(!self.publish(key, &lease, "2").await, "a lease is used up by its publication");
        assert_eq!(self.value(key).await.as_deref(), Some("1"));
        let (one, other) = (self.lease(key).await, self.lease(key).await);
        assert_ne!(one, lease, "a lease never comes back");
        let first = self.publish(key, &one, "3").await;
        let second = self.publish(key, &other, "4").await;
        assert!(first || second, "of two who load at once one at least publishes");
    }

    async fn what_is_not_known_refuses(&self) {
        let key = "conformance:unknown";
        assert!(!self.publish(key, &Lease::new("made-up"), "1").await, "nobody gave this lease");
        let lease = self.lease(key).await;
        assert!(!self.publish("conformance:other", &lease, "1").await, "it is another key's");
        self.store.delete(key).await.expect("delete");
        let begun = self.get_or_lease(key, true, SHORT).await;
        let LeaseResponse::Load { lease: Some(short), .. } = begun else {
            panic!("no lease: {begun:?}")
        };
        sleep(SHORT * 2).await;
        assert!(!self.publish(key, &short, "1").await, "the lease was good for {SHORT:?}");
        assert_eq!(self.value(key).await, None);
        self.get_or_lease(key, true, SHORT).await;
        let later = self.lease(key).await;
        sleep(SHORT * 2).await;
        // Whether or not it shares the other's.
        let published = self.publish(key, &later, "1").await;
        assert!(published, "who begins later has its time from then on");
    }

    async fn deletes_void_leases(&self) {
        let key = "conformance:delete";
        self.store.delete(key).await.expect("to delete what is not there is no error");
        self.write(key, "1", LONG).await;
        let lease = self.lease(key).await;
        self.store.delete(key).await.expect("delete");
        assert_eq!(self.value(key).await, None, "it was deleted");
        assert!(!self.publish(key, &lease, "old").await, "the load began before the delete");
        let newer = self.lease(key).await;
        assert!(!self.publish(key, &lease, "old").await, "whoever loads since has another lease");
        assert!(self.publish(key, &newer, "new").await, "the load began after the delete");
    }

    async fn writes_void_leases_and_share_none(&self) {
        let key = "conformance:write";
        self.write(key, "1", LONG).await;
        let load = self.lease(key).await;
        let write = self
            .store
            .acquire_write_lease(key, LONG)
            .await
            .expect("acquire_write_lease")
            .expect("a lease to write");
        assert_eq!(self.value(key).await, None, "what is to be replaced is not read any more");
        assert!(!self.publish(key, &load, "old").await, "the load began before the write");
        let begun = self.get_or_lease(key, true, LONG).await;
        let has_none = matches!(&begun, LeaseResponse::Load { lease: None, .. });
        assert!(has_none, "who begins while a write is on its way gets no lease: {begun:?}");
        let later = self
            .store
            .acquire_write_lease(key, LONG)
            .await
            .expect("acquire_write_lease")
            .expect("a lease to write");
        assert!(!self.publish(key, &write, "2").await, "a later write has begun");
        assert!(self.publish(key, &later, "3").await, "nobody came after it");
        assert_eq!(self.value(key).await.as_deref(), Some("3"));
        let write = self
            .store
            .acquire_write_lease(key, LONG)
            .await
            .expect("acquire_write_lease")
            .expect("a lease to write");
        self.store.delete(key).await.expect("delete");
        assert!(!self.publish(key, &write, "old").await, "the write began before the delete");
        let write = self
            .store
            .acquire_write_lease(key, SHORT)
            .await
            .expect("acquire_write_lease")
            .expect("a lease to write");
        sleep(SHORT * 2).await;
        assert!(!self.publish(key, &write, "late").await, "the lease was good for {SHORT:?}");
        self.lease(key).await;
    }

    async fn patterns_delete_what_they_match(&self) {
        let (one, other) = ("conformance:[a]:1", "conformance:a:1");
        for key in [one, other] {
            self.write(key, "1", LONG).await;
        }
        let (load, untouched) = (self.lease(one).await, self.lease(other).await);
        let write = self
            .store
            .acquire_write_lease("conformance:[a]:2", LONG)
            .await
            .expect("acquire_write_lease");
        let pattern = r"conformance:\[a\]:*";
        self.store.delete_matching(pattern).await.expect("delete_matching");
        assert_eq!(self.value(one).await, None, "{pattern} matches {one}");
        assert_eq!(self.value(other).await.as_deref(), Some("1"), "{pattern} matches {one} only");
        assert!(!self.publish(one, &load, "old").await, "the load began before the delete");
        assert!(self.publish(other, &untouched, "2").await, "it is no business of the other's");
        let write = write.expect("a lease to write");
        assert!(!self.publish("conformance:[a]:2", &write, "old").await, "nor did the write");
        self.store.delete_matching("*").await.expect("delete_matching");
        assert_eq!(self.value(other).await, None, "* matches everything");
        assert_eq!(self.store.size().await.expect("size"), 0);
    }

    async fn only_the_bytes_that_were_read_are_discarded(&self) {
        let key = "conformance:discard";
        self.write(key, "1", LONG).await;
        self.store.delete_if_equals(key, b"2").await.expect("discard");
        assert_eq!(self.value(key).await.as_deref(), Some("1"), "it is not what was read");
        self.store.delete_if_equals(key, b"1").await.expect("discard");
        assert_eq!(self.value(key).await, None);
    }

    async fn locks_have_one_owner(&self) {
        let key = "conformance:lock";
        let lock = async |owner, ttl| self.store.lock(key, owner, ttl).await.expect("lock");
        let extend = async |owner, ttl| self.store.extend(key, owner, ttl).await.expect("extend");
        assert!(lock("a", LONG).await, "nobody has it");
        assert!(!lock("b", LONG).await, "somebody has it");
        assert!(lock("a", LONG).await, "a has, who may have had no answer and asks again");
        assert!(!lock("b", LONG).await, "a still has it");
        self.store.unlock(key, "b").await.expect("unlock");
        assert!(!lock("b", LONG).await, "it was not b's to give back");
        assert!(!extend("b", LONG).await, "nor to keep");
        assert!(extend("a", SHORT).await, "it is a's");
        sleep(SHORT * 2).await;
        assert!(!extend("a", LONG).await, "it was kept for {SHORT:?}");
        assert!(lock("b", LONG).await, "so it is free");
        self.store.unlock(key, "b").await.expect("unlock");
        assert!(lock("c", LONG).await, "b gave it back");
        self.store.unlock(key, "c").await.expect("unlock");
    }

    async fn any_text_is_a_key(&self) {
        let long = "k".repeat(60_000);
        let keys = ["", "{}x", "}x", "{", "x{a}y", "*?[]\\", "a b\n\r\0", "ключ", "a::v1", &long];
        for key in keys {
            let lease = self.lease(key).await;
            assert!(self.publish(key, &lease, "1").await, "{key:?} is a key");
            assert_eq!(self.value(key).await.as_deref(), Some("1"), "{key:?} is a key");
            let lease = self.lease(key).await;
            self.store.delete(key).await.expect("delete");
            assert!(!self.publish(key, &lease, "old").await, "{key:?} was deleted");
            assert_eq!(self.value(key).await, None, "{key:?} was deleted");
        }
    }
}
