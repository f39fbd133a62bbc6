//! Deletes by pattern, whole and in parts.

use std::time::Duration;

use tokio::time::timeout;

use super::{Check, LONG};
use crate::l2::PatternCursor;

#[expect(clippy::expect_used, reason = "it is an assertion")]
impl Check<'_> {
    pub(super) async fn patterns_delete_the_matching_keys(&self) {
        let (one, other) = ("conformance:[a]:1", "conformance:a:1");
        for key in [one, other] {
            self.write(key, "1", LONG).await;
        }
        let (load, untouched) = (self.lease(one, LONG).await, self.lease(other, LONG).await);
        let write = self.write_lease("conformance:[a]:2", LONG).await;
        let pattern = r"conformance:\[a\]:*";
        self.store.delete_matching(pattern).await.expect("delete_matching");
        assert_eq!(self.value(one).await, None, "{pattern} matches {one}");
        assert_eq!(self.value(other).await.as_deref(), Some("1"), "{pattern} matches {one} only");
        assert!(!self.publish(one, &load, "old").await, "the load began before the delete");
        assert!(self.publish(other, &untouched, "2").await, "the pattern does not match {other}");
        let published = self.publish("conformance:[a]:2", &write, "old").await;
        assert!(!published, "the write began before the delete");
        self.store.delete_matching("*").await.expect("delete_matching");
        assert_eq!(self.value(other).await, None, "* matches everything");
        assert_eq!(self.size().await, 0);
    }

    pub(super) async fn a_pattern_continues_where_it_was(&self) {
        let keys = |start: &'static str| (0..40).map(move |number| format!("{start}:{number}"));
        for sidecars_only in [false, true] {
            for (key, other) in keys("conformance:in").zip(keys("conformance:out")) {
                self.write(&key, "1", LONG).await;
                self.write(&other, "1", LONG).await;
            }
            let mut leases = Vec::new();
            for (key, other) in keys("conformance:in").zip(keys("conformance:out")) {
                leases.push((self.lease(&key, LONG).await, self.lease(&other, LONG).await));
            }
            let cursor = PatternCursor::new();
            // Each call has a little more time than the one before.
            for tenths in 0.. {
                let call =
                    self.store.delete_matching_from("conformance:in:*", sidecars_only, &cursor);
                if let Ok(done) = timeout(Duration::from_micros(100 * tenths), call).await {
                    done.expect("delete_matching_from");
                    break;
                }
            }
            let names = keys("conformance:in").zip(keys("conformance:out"));
            for ((key, other), (load, untouched)) in names.zip(&leases) {
                let left = self.value(&key).await.is_some();
                assert!(sidecars_only || !left, "{key} was deleted");
                assert!(!self.publish(&key, load, "old").await, "the load of {key} began before");
                assert!(self.value(&other).await.is_some(), "the pattern does not match {other}");
                assert!(self.publish(&other, untouched, "2").await, "nor its lease");
            }
        }
        let cursor = PatternCursor::new();
        cursor.advance("a position that the store has never given");
        let delete = self.store.delete_matching_from("*", false, &cursor).await;
        delete.expect("delete_matching_from");
        assert_eq!(self.size().await, 0, "the store begins anew");
    }
}
