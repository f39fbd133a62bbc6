use super::*;

fn first(pending: &PendingInvalidations) -> PendingInvalidation {
    pending.next(1).pop().expect("something is pending")
}

#[test]
fn a_pending_invalidation_covers_its_keys_until_it_is_complete() {
    let pending = PendingInvalidations::default();
    assert!(!pending.covers("a"));
    pending.record("a", false);
    pending.record("b:*", true);
    assert!(pending.covers("a") && pending.covers("b:1") && !pending.covers("c"));
    while let Some(next) = pending.next(1).pop() {
        pending.complete(&next);
    }
    assert!(!pending.covers("a") && !pending.covers("b:1") && pending.is_empty());
}

#[test]
fn an_invalidation_recorded_again_while_it_is_retried_stays_pending() {
    let pending = PendingInvalidations::default();
    for record in [
        |pending: &PendingInvalidations| pending.record("a", false),
        |pending: &PendingInvalidations| pending.record("a*", true),
    ] {
        record(&pending);
        let retried = first(&pending);
        record(&pending);
        assert_eq!(pending.current(&retried), None);
        pending.complete(&retried);
        assert!(pending.covers("a"));
        pending.complete(&first(&pending));
        assert!(pending.is_empty());
    }
}

#[test]
fn an_invalidation_of_a_peer_is_broadcast_again_unless_a_peer_has_done_so() {
    use Rebroadcast::{AtOnce, Never, UnlessPeerDoes};
    let pending = PendingInvalidations::default();
    let complete = || {
        let next = first(&pending);
        let done = pending.current(&next);
        pending.complete(&next);
        done.map(|done| (done.rebroadcast, done.version))
    };
    pending.record_for_peer("a", false, Some(3));
    pending.requeue(&first(&pending), false);
    assert_eq!(complete(), Some((UnlessPeerDoes, Some(3))));
    for (is_own_first, is_own_later, expected) in
        [(false, false, Never), (true, false, AtOnce), (false, true, AtOnce)]
    {
        let record = |is_own: bool| match is_own {
            true => pending.record("a", false),
            false => pending.record_for_peer("a", false, None),
        };
        record(is_own_first);
        record(is_own_later);
        assert!(pending.on_peer_retried("a", false));
        assert_eq!(complete(), Some((expected, None)));
    }
    pending.record_for_peer("a", false, None);
    pending.on_peer_retried("a", false);
    pending.record_for_peer("a", false, None);
    assert_eq!(complete(), Some((UnlessPeerDoes, None)), "the peer's success was before this");
    assert!(!pending.on_peer_retried("a", false));
    pending.record("a", false);
    pending.record_for_peer("*", true, None);
    assert!(pending.on_peer_retried("a", false) && pending.on_peer_retried("b*", true));
    assert_eq!(complete(), Some((AtOnce, None)), "it has replaced one of this instance");
}

#[test]
fn a_failed_invalidation_goes_to_the_end_of_the_queue() {
    let pending = PendingInvalidations::default();
    pending.record("a*", true);
    pending.record("b", false);
    for _ in 0..2 {
        pending.requeue(&first(&pending), false);
    }
    assert_eq!((pending.len(), pending.covers("a"), pending.covers("b")), (2, true, true));
    pending.requeue(&first(&pending), false);
    let next = first(&pending);
    assert_eq!(&*next.name, "b");
    pending.complete(&next);
    assert_eq!(&*first(&pending).name, "a*");
    pending.complete(&first(&pending));
    assert!(pending.is_empty());
}

#[test]
fn there_is_one_worker_and_none_once_the_queue_is_empty() {
    let pending = PendingInvalidations::default();
    assert!(!pending.try_claim());
    pending.record("a", false);
    assert!(pending.try_claim() && !pending.try_claim());
    pending.release();
    assert!(pending.try_claim());
    pending.complete(&first(&pending));
    // The worker has not asked for the next one yet, so it will find this one.
    pending.record("b", false);
    assert!(!pending.try_claim());
    pending.complete(&first(&pending));
    assert_eq!(pending.next(1), []);
    pending.record("c", false);
    assert!(pending.try_claim());
}

#[test]
fn a_call_waits_for_its_own_invalidation_also_as_a_part_of_a_wider_one() {
    let pending = PendingInvalidations::default();
    let key = pending.record("a", false).number;
    let pattern = pending.record("b*", true).number;
    pending.requeue(&first(&pending), false);
    assert!(pending.is_pending("a", false, key) && pending.is_pending("b*", true, pattern));
    pending.complete(&first(&pending));
    assert!(!pending.is_pending("b*", true, pattern) && pending.is_pending("a", false, key));
    let again = pending.record("b*", true).number;
    assert!(!pending.is_pending("b*", true, pattern), "that one has arrived");
    pending.record("*", true);
    assert!(pending.is_pending("a", false, key) && pending.is_pending("b*", true, again));
    pending.complete(&first(&pending));
    assert!(!pending.is_pending("a", false, key) && !pending.is_pending("b*", true, again));
    pending.record("*", true);
    assert!(!pending.is_pending("a", false, key), "recorded after it has arrived");
}

#[test]
fn a_full_queue_becomes_one_invalidation_of_all_keys() {
    for pattern in [false, true] {
        let pending = PendingInvalidations::default();
        let first = pending.record("0:*", pattern).number;
        let more = 1..=MAX_KEYS;
        let overflows = more.filter(|i| pending.record(&format!("{i}:*"), pattern).is_overflow);
        assert_eq!(overflows.count(), if pattern { MAX_KEYS / MAX_PATTERNS } else { 1 });
        assert!(pending.len() <= MAX_PATTERNS && pending.covers("anything"));
        assert!(pending.is_pending("0:*", pattern, first));
    }
}

#[test]
fn deletes_of_keys_are_retried_together_up_to_a_pattern() {
    let pending = PendingInvalidations::default();
    for key in ["a", "b", "c"] {
        pending.record(key, false);
    }
    pending.record_sidecars("d", false);
    pending.record("e", false);
    pending.record("f*", true);
    let names = |max| pending.next(max).iter().map(|it| it.name.to_string()).collect::<Vec<_>>();
    for (max, expected) in [(1, vec!["a"]), (2, vec!["a", "b"]), (9, vec!["a", "b", "c"])] {
        assert_eq!(names(max), expected);
    }
    for _ in 0..3 {
        pending.complete(&first(&pending));
    }
    assert_eq!(names(9), ["d"], "only its sidecar is removed");
    pending.complete(&first(&pending));
    assert_eq!(names(9), ["e"]);
    pending.complete(&first(&pending));
    assert_eq!(names(9), ["f*"]);
}

#[test]
fn a_pattern_that_is_recorded_again_begins_anew() {
    let pending = PendingInvalidations::default();
    let cursor = PatternCursor::new();
    cursor.advance("7");
    pending.record_from("a*", &cursor);
    let position = || first(&pending).cursor.position();
    assert_eq!(position().as_deref(), Some("7"));
    pending.requeue(&first(&pending), true);
    assert_eq!((position().as_deref(), first(&pending).failures), (Some("7"), 0));
    pending.requeue(&first(&pending), false);
    assert_eq!(first(&pending).failures, 1);
    for again in [
        |pending: &PendingInvalidations| pending.record("a*", true),
        |pending: &PendingInvalidations| pending.record_for_peer("a*", true, None),
        |pending: &PendingInvalidations| pending.record("*", true),
    ] {
        pending.record_from("a*", &cursor);
        first(&pending).cursor.advance("8");
        again(&pending);
        assert_eq!(position(), None);
    }
}
