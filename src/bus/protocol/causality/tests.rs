use super::*;

const T: u64 = 3_000;
const NOW: u64 = 10_000;

/// One who has listened for long enough, to whom `b` was at number 4 when it began.
fn settled() -> (CausalFilter, GapDetector) {
    let own = Arc::from("own");
    let mut gaps = GapDetector::new(&own, T);
    gaps.on_subscribed(0, false);
    gaps.observe(1, "b", &stamp("b", 4), true);
    gaps.acknowledge_gap(T);
    (CausalFilter::new(&own, 4), gaps)
}

fn stamp(incarnation: &str, seq: u64) -> SequenceStamp<'_> {
    SequenceStamp { incarnation, seq, next_within_ms: None }
}

fn context(all: &[(&str, u64)]) -> Vec<u8> {
    let mut out = Writer::default();
    out.array(all.len() * 2);
    for (who, seq) in all {
        out.text(who);
        out.number(*seq);
    }
    out.0
}

/// Whether a value of `k` by `a` that had seen this is taken at some time.
fn allows_at(order: &CausalFilter, gaps: &GapDetector, now: u64, all: &[(&str, u64)]) -> bool {
    let context = Some(context(all));
    let (context, stamp) = (context.as_deref(), Some(&stamp("a", 9)));
    order.admits(gaps, now, OUT, ValueClaim { keys: &["k"], stamp, prime: true, context })
}

fn allows(order: &CausalFilter, gaps: &GapDetector, all: &[(&str, u64)]) -> bool {
    allows_at(order, gaps, NOW, all)
}

const OUT: OutboxProgress = out(5, 50);

const fn out(acked: u64, next_seq: u64) -> OutboxProgress {
    OutboxProgress { acked, next_seq }
}

#[test]
fn a_value_must_know_the_last_delete_of_its_key() {
    let (mut order, mut gaps) = settled();
    assert!(allows(&order, &gaps, &[("b", 4)]));
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 6)));
    assert!(!allows(&order, &gaps, &[("b", 6)]));
    assert!(allows(&order, &gaps, &[("b", 7)]));
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 5)));
    assert!(!allows(&order, &gaps, &[("b", 6)]), "one that comes late is not the last");
    order.on_peer_delete(&mut gaps, NOW, &["other"], Some(&stamp("b", 8)));
    assert!(allows(&order, &gaps, &[("b", 7)]), "of another key");
    gaps.observe(NOW, "c", &stamp("c", 0), false);
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("c", 0)));
    assert!(!allows(&order, &gaps, &[("b", 7)]));
    assert!(allows(&order, &gaps, &[("b", 7), ("c", 1)]));
    assert!(!allows(&order, &gaps, &[("b", 6), ("c", 1)]), "the delete before counts too");
}

#[test]
fn what_was_before_we_listened_must_be_known() {
    let (order, mut gaps) = settled();
    assert!(!allows(&order, &gaps, &[("b", 3)]));
    assert!(!allows(&order, &gaps, &[]));
    let (keys, mark_of_a) = (&["k"][..], stamp("a", 9));
    for context in [None, Some(&b"\xc3"[..])] {
        let claim = ValueClaim { keys, stamp: Some(&mark_of_a), prime: true, context };
        assert!(!order.admits(&gaps, NOW, OUT, claim));
    }
    // One whose very first event it is.
    gaps.observe(NOW, "c", &stamp("c", 0), false);
    assert!(!allows(&order, &gaps, &[("b", 4)]));
    assert!(allows(&order, &gaps, &[("b", 4), ("c", 1)]));
}

#[test]
fn patterns_lost_events_and_what_is_too_long_ago_must_be_known() {
    let (mut order, mut gaps) = settled();
    order.on_peer_pattern(&mut gaps, NOW, Some(&stamp("b", 5)));
    assert!(!allows(&order, &gaps, &[("b", 5)]));
    assert!(allows(&order, &gaps, &[("b", 6)]));
    for (seq, key) in (10..).zip(["1", "2", "3", "4", "5"]) {
        order.on_peer_delete(&mut gaps, NOW, &[key], Some(&stamp("b", seq)));
    }
    assert!(!allows(&order, &gaps, &[("b", 10)]), "the fifth pushed out the first");
    assert!(allows(&order, &gaps, &[("b", 11)]));
    gaps.observe(NOW, "b", &stamp("b", 20), false);
    gaps.acknowledge_gap(NOW);
    assert!(!allows(&order, &gaps, &[("b", 99)]), "for a while");
    assert!(!allows_at(&order, &gaps, NOW + T, &[("b", 20)]));
    assert!(allows_at(&order, &gaps, NOW + T, &[("b", 21)]));
}

#[test]
fn our_own_deletes_must_be_known_and_cannot_be_before_they_are_out() {
    let (mut order, mut gaps) = settled();
    let all = |own| [("b", 4), ("own", own)];
    order.begin_invalidation(&mut gaps, NOW, "k");
    assert!(!allows(&order, &gaps, &all(1_000)));
    // An older message of the key is out, or out again; another delete is on its way.
    order.on_sent(7, &["k"], OUT);
    assert!(!allows(&order, &gaps, &all(1_000)));
    order.begin_invalidation(&mut gaps, NOW, "k");
    order.on_committed("k", Some(4));
    order.on_sent(7, &["k"], OUT);
    assert!(!allows(&order, &gaps, &all(1_000)));
    // What a peer deletes meanwhile hides none of it.
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 4)));
    order.on_committed("k", Some(6));
    order.on_sent(8, &["k"], OUT);
    assert!(!allows(&order, &gaps, &[("b", 5), ("own", 1_000)]));
    order.on_sent(9, &["k"], out(7, 10));
    assert!(!allows(&order, &gaps, &[("b", 5), ("own", 9)]));
    assert!(!allows(&order, &gaps, &[("b", 4), ("own", 10)]));
    assert!(allows(&order, &gaps, &[("b", 5), ("own", 10)]));
}

#[test]
fn our_own_patterns_raise_the_floor_once_they_are_out() {
    let (mut order, gaps) = settled();
    let all = |own| [("b", 4), ("own", own)];
    order.begin_pattern();
    order.on_sent(7, &[], out(7, 8));
    assert!(!allows(&order, &gaps, &all(1_000)), "it is not told yet");
    order.on_pattern_committed(Some(7));
    order.on_sent(8, &[], out(7, 9));
    assert!(!allows(&order, &gaps, &all(1_000)), "nor out");
    order.on_sent(9, &[], out(8, 10));
    assert!(!allows(&order, &gaps, &all(9)));
    assert!(allows(&order, &gaps, &all(10)));
}

#[test]
fn what_went_out_as_part_of_a_pattern_needs_all_that_is_out() {
    let (mut order, mut gaps) = settled();
    order.begin_invalidation(&mut gaps, NOW, "k");
    order.on_committed("k", Some(4));
    assert!(!allows(&order, &gaps, &[("b", 4), ("own", 49)]));
    assert!(allows(&order, &gaps, &[("b", 4), ("own", 50)]));
    // A call that came to nothing.
    order.begin_invalidation(&mut gaps, NOW, "k");
    order.on_committed("k", None);
    assert!(allows(&order, &gaps, &[("b", 4), ("own", 50)]));
}

#[test]
fn a_call_that_has_not_told_yet_is_not_pushed_out() {
    let (mut order, mut gaps) = settled();
    order.begin_invalidation(&mut gaps, NOW, "k");
    for number in 0..100 {
        order.on_peer_delete(&mut gaps, NOW, &[&number.to_string()], Some(&stamp("b", 4)));
    }
    assert!(!allows(&order, &gaps, &[("b", 1_000), ("own", 1_000)]));
    assert!(order.last.len() <= 5);
}

#[test]
fn one_without_numbers_stands_for_a_while() {
    let (mut order, mut gaps) = settled();
    order.on_peer_delete(&mut gaps, NOW, &["k"], None);
    let unnumbered = |order: &CausalFilter, gaps: &GapDetector, now| {
        let claim = ValueClaim { keys: &["k"], stamp: None, prime: false, context: None };
        order.admits(gaps, now, OUT, claim)
    };
    for (now, is_allowed) in [(NOW + 4_999, false), (NOW + 5_000, true)] {
        assert_eq!(unnumbered(&order, &gaps, now), is_allowed);
        assert_eq!(allows_at(&order, &gaps, now, &[("b", 4)]), is_allowed);
    }
    order.on_peer_pattern(&mut gaps, NOW + 5_000, None);
    for (now, is_allowed) in [(NOW + 9_999, false), (NOW + 10_000, true)] {
        assert_eq!(unnumbered(&order, &gaps, now), is_allowed);
    }
}

#[test]
fn a_given_value_is_newer_than_what_its_publisher_told_before() {
    let (mut order, mut gaps) = settled();
    gaps.observe(NOW, "a", &stamp("a", 8), false);
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("a", 8)));
    let allows = |order: &CausalFilter, gaps: &GapDetector, prime| {
        let (stamp, context) = (stamp("a", 9), context(&[("b", 4), ("a", 8)]));
        let claim =
            ValueClaim { keys: &["k"], stamp: Some(&stamp), prime, context: Some(&context) };
        order.admits(gaps, NOW, OUT, claim)
    };
    assert!(allows(&order, &gaps, false) && !allows(&order, &gaps, true));
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("a", 10)));
    assert!(!allows(&order, &gaps, false), "what it told later came first");
}

#[test]
fn who_is_forgotten_stands_in_nobodys_way() {
    let (mut order, mut gaps) = settled();
    order.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("long ago", 6)));
    assert!(allows(&order, &gaps, &[("b", 4)]));
}

#[test]
fn what_is_seen_here_is_what_others_read() {
    let (order, gaps) = settled();
    let context = order.causal_context(Some(&gaps), 12).unwrap();
    let read = read(&context).unwrap();
    assert_eq!((read.get("b"), read.get("own"), read.len()), (Some(&4), Some(&12), 2));
}
