use super::*;

const T: u64 = 3_000;
const NOW: u64 = 10_000;
const CACHE: &[CacheId] = &[CacheId(0)];

/// The filter of an instance that is caught up. Publisher `b` was at number 4 when it subscribed.
fn settled() -> (CausalFilter, GapDetector) {
    let own = Arc::from("own");
    let mut gaps = GapDetector::new(&own, T);
    gaps.on_subscribed(0, false);
    gaps.observe(1, &stamp("b", 4), true, CACHE);
    gaps.acknowledge_gap(T);
    (CausalFilter::new(&own, 4), gaps)
}

fn stamp(incarnation: &str, seq: u64) -> SequenceStamp<'_> {
    SequenceStamp { incarnation, seq, next_within_ms: None, idle_ms: None }
}

/// Whether a loaded value of `k` with this version vector, by `a`, is admitted at some time.
fn admits_at(filter: &CausalFilter, gaps: &GapDetector, now: u64, vector: &[(&str, u64)]) -> bool {
    let context = VersionVector::encode(vector);
    let (context, stamp) = (context.as_deref(), Some(&stamp("a", 9)));
    filter.admits(gaps, now, OUT, ValueClaim { keys: &["k"], stamp, prime: true, context })
}

fn admits(filter: &CausalFilter, gaps: &GapDetector, vector: &[(&str, u64)]) -> bool {
    admits_at(filter, gaps, NOW, vector)
}

const OUT: OutboxProgress = out(5, 50);

const fn out(acked: u64, next_seq: u64) -> OutboxProgress {
    OutboxProgress { acked, next_seq }
}

#[test]
fn a_value_must_cover_the_last_delete_of_its_key() {
    let (mut filter, mut gaps) = settled();
    assert!(admits(&filter, &gaps, &[("b", 4)]));
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 6)));
    assert!(!admits(&filter, &gaps, &[("b", 6)]));
    assert!(admits(&filter, &gaps, &[("b", 7)]));
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 5)));
    assert!(!admits(&filter, &gaps, &[("b", 6)]), "an earlier delete that arrives late");
    filter.on_peer_delete(&mut gaps, NOW, &["other"], Some(&stamp("b", 8)));
    assert!(admits(&filter, &gaps, &[("b", 7)]), "a delete of another key");
    gaps.observe(NOW, &stamp("c", 0), false, CACHE);
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("c", 0)));
    assert!(!admits(&filter, &gaps, &[("b", 7)]));
    assert!(admits(&filter, &gaps, &[("b", 7), ("c", 1)]));
    assert!(!admits(&filter, &gaps, &[("b", 6), ("c", 1)]), "the delete before counts too");
}

#[test]
fn a_value_must_cover_all_messages_from_before_the_subscription() {
    let (filter, mut gaps) = settled();
    assert!(!admits(&filter, &gaps, &[("b", 3)]));
    assert!(!admits(&filter, &gaps, &[]));
    let (keys, stamp_of_a) = (&["k"][..], stamp("a", 9));
    for context in [None, Some(&b"\xc3"[..])] {
        let claim = ValueClaim { keys, stamp: Some(&stamp_of_a), prime: true, context };
        assert!(!filter.admits(&gaps, NOW, OUT, claim));
    }
    // The very first message of a publisher.
    gaps.observe(NOW, &stamp("c", 0), false, CACHE);
    assert!(!admits(&filter, &gaps, &[("b", 4)]));
    assert!(admits(&filter, &gaps, &[("b", 4), ("c", 1)]));
}

#[test]
fn a_value_must_cover_patterns_lost_messages_and_forgotten_deletes() {
    let (mut filter, mut gaps) = settled();
    filter.on_peer_pattern(&mut gaps, NOW, "x*", Some(&stamp("b", 5)));
    assert!(!admits(&filter, &gaps, &[("b", 5)]));
    assert!(admits(&filter, &gaps, &[("b", 6)]));
    for (seq, key) in (10..).zip(["1", "2", "3", "4", "5"]) {
        filter.on_peer_delete(&mut gaps, NOW, &[key], Some(&stamp("b", seq)));
    }
    assert!(!admits(&filter, &gaps, &[("b", 10)]), "the first was forgotten for the fifth");
    assert!(admits(&filter, &gaps, &[("b", 11)]));
    gaps.observe(NOW, &stamp("b", 20), false, CACHE);
    gaps.acknowledge_gap(NOW);
    assert!(!admits(&filter, &gaps, &[("b", 99)]), "not within trust_timeout after a gap");
    assert!(!admits_at(&filter, &gaps, NOW + T, &[("b", 20)]));
    assert!(admits_at(&filter, &gaps, NOW + T, &[("b", 21)]));
}

#[test]
fn a_value_must_cover_own_deletes_which_it_cannot_before_they_are_published() {
    let (mut filter, mut gaps) = settled();
    let vector = |own| [("b", 4), ("own", own)];
    filter.begin_invalidation(&mut gaps, NOW, "k");
    assert!(!admits(&filter, &gaps, &vector(1_000)));
    // An older message of the key is published, perhaps again; another delete is pending.
    filter.on_sent(7, &["k"], OUT);
    assert!(!admits(&filter, &gaps, &vector(1_000)));
    filter.begin_invalidation(&mut gaps, NOW, "k");
    filter.on_committed("k", Some(4));
    filter.on_sent(7, &["k"], OUT);
    assert!(!admits(&filter, &gaps, &vector(1_000)));
    // A delete by a peer meanwhile hides none of it.
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("b", 4)));
    filter.on_committed("k", Some(6));
    filter.on_sent(8, &["k"], OUT);
    assert!(!admits(&filter, &gaps, &[("b", 5), ("own", 1_000)]));
    filter.on_sent(9, &["k"], out(7, 10));
    assert!(!admits(&filter, &gaps, &[("b", 5), ("own", 9)]));
    assert!(!admits(&filter, &gaps, &[("b", 4), ("own", 10)]));
    assert!(admits(&filter, &gaps, &[("b", 5), ("own", 10)]));
}

#[test]
fn own_patterns_raise_the_watermark_once_they_are_published() {
    let (mut filter, gaps) = settled();
    let vector = |own| [("b", 4), ("own", own)];
    filter.begin_pattern();
    filter.on_sent(7, &[], out(7, 8));
    assert!(!admits(&filter, &gaps, &vector(1_000)), "not committed");
    filter.on_pattern_committed(Some(7));
    filter.on_sent(8, &[], out(7, 9));
    assert!(!admits(&filter, &gaps, &vector(1_000)), "not published");
    filter.on_sent(9, &[], out(8, 10));
    assert!(!admits(&filter, &gaps, &vector(9)));
    assert!(admits(&filter, &gaps, &vector(10)));
}

#[test]
fn a_delete_that_was_published_as_a_pattern_needs_all_published_messages() {
    let (mut filter, mut gaps) = settled();
    filter.begin_invalidation(&mut gaps, NOW, "k");
    filter.on_committed("k", Some(4));
    assert!(!admits(&filter, &gaps, &[("b", 4), ("own", 49)]));
    assert!(admits(&filter, &gaps, &[("b", 4), ("own", 50)]));
    // A call that changed nothing.
    filter.begin_invalidation(&mut gaps, NOW, "k");
    filter.on_committed("k", None);
    assert!(admits(&filter, &gaps, &[("b", 4), ("own", 50)]));
}

#[test]
fn the_key_of_a_call_that_has_not_committed_is_not_forgotten() {
    let (mut filter, mut gaps) = settled();
    filter.begin_invalidation(&mut gaps, NOW, "k");
    for number in 0..100 {
        filter.on_peer_delete(&mut gaps, NOW, &[&number.to_string()], Some(&stamp("b", 4)));
    }
    assert!(!admits(&filter, &gaps, &[("b", 1_000), ("own", 1_000)]));
    assert!(filter.last.len() <= 5);
}

#[test]
fn a_delete_without_a_number_refuses_values_for_five_seconds() {
    let (mut filter, mut gaps) = settled();
    filter.on_peer_delete(&mut gaps, NOW, &["k"], None);
    let unnumbered = |filter: &CausalFilter, gaps: &GapDetector, now| {
        let claim = ValueClaim { keys: &["k"], stamp: None, prime: false, context: None };
        filter.admits(gaps, now, OUT, claim)
    };
    for (now, is_admitted) in [(NOW + 4_999, false), (NOW + 5_000, true)] {
        assert_eq!(unnumbered(&filter, &gaps, now), is_admitted);
        assert_eq!(admits_at(&filter, &gaps, now, &[("b", 4)]), is_admitted);
    }
    filter.on_peer_pattern(&mut gaps, NOW + 5_000, "[a-k]*", None);
    for (now, is_admitted) in [(NOW + 9_999, false), (NOW + 10_000, true)] {
        assert_eq!(unnumbered(&filter, &gaps, now), is_admitted);
    }
}

#[test]
fn a_value_that_was_set_is_newer_than_the_earlier_messages_of_its_publisher() {
    let (mut filter, mut gaps) = settled();
    gaps.observe(NOW, &stamp("a", 8), false, CACHE);
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("a", 8)));
    let admits = |filter: &CausalFilter, gaps: &GapDetector, prime| {
        let context = VersionVector::encode(&[("b", 4), ("a", 8)]);
        let (stamp, context) = (Some(&stamp("a", 9)), context.as_deref());
        filter.admits(gaps, NOW, OUT, ValueClaim { keys: &["k"], stamp, prime, context })
    };
    assert!(admits(&filter, &gaps, false) && !admits(&filter, &gaps, true));
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("a", 10)));
    assert!(!admits(&filter, &gaps, false), "its later delete arrived first");
}

#[test]
fn a_forgotten_publisher_makes_no_value_refused() {
    let (mut filter, mut gaps) = settled();
    filter.on_peer_delete(&mut gaps, NOW, &["k"], Some(&stamp("long ago", 6)));
    assert!(admits(&filter, &gaps, &[("b", 4)]));
}

#[test]
fn the_causal_context_covers_all_messages_that_were_received() {
    let (filter, gaps) = settled();
    let context = filter.causal_context(Some(&gaps), 12).unwrap();
    let vector = VersionVector::decode(&context).unwrap();
    assert!(vector.covers("b", 4) && vector.covers("own", 12));
    assert!(!vector.covers("b", 5) && !vector.covers("own", 13));
}

#[test]
fn a_pattern_without_a_number_refuses_only_the_keys_that_match() {
    let (mut filter, mut gaps) = settled();
    filter.on_peer_pattern(&mut gaps, NOW, "x*", None);
    assert!(admits(&filter, &gaps, &[("b", 4)]));
    filter.on_peer_pattern(&mut gaps, NOW, "?", None);
    assert!(!admits(&filter, &gaps, &[("b", 4)]));
    assert!(!admits_at(&filter, &gaps, NOW + 4_999, &[("b", 4)]));
    assert!(admits_at(&filter, &gaps, NOW + 5_000, &[("b", 4)]));
    // More than are remembered, or too long a one, count as a delete of every key.
    for (count, glob) in [(65, "x*".to_owned()), (1, "x".repeat(257))] {
        let (mut filter, mut gaps) = settled();
        for _ in 0..count {
            assert!(admits(&filter, &gaps, &[("b", 4)]));
            filter.on_peer_pattern(&mut gaps, NOW, &glob, None);
        }
        assert!(!admits_at(&filter, &gaps, NOW + 4_999, &[("b", 4)]));
        assert!(admits_at(&filter, &gaps, NOW + 5_000, &[("b", 4)]));
    }
}

#[test]
fn a_delete_without_a_number_stays_known_by_its_key_whatever_follows() {
    type Follow = fn(&mut CausalFilter, &mut GapDetector);
    let own: Follow = |filter, gaps| {
        filter.begin_invalidation(gaps, NOW + 1, "k");
        filter.on_committed("k", Some(4));
        filter.on_sent(49, &["k"], OUT);
    };
    let nothing: Follow = |filter, gaps| {
        filter.begin_invalidation(gaps, NOW + 1, "k");
        filter.on_committed("k", None);
    };
    let peer: Follow = |filter, gaps| {
        filter.on_peer_delete(gaps, NOW + 1, &["k"], Some(&stamp("b", 4)));
        gaps.observe(NOW + 1, &stamp("b", 4), false, CACHE);
    };
    for (is_first, follow) in
        [own, nothing, peer].into_iter().flat_map(|it| [(true, it), (false, it)])
    {
        let (mut filter, mut gaps) = settled();
        let all = [("b", 5), ("own", 50)];
        let context = VersionVector::encode(&all);
        let admits = |filter: &CausalFilter, gaps: &GapDetector, now, key| {
            let (context, stamp) = (context.as_deref(), Some(&stamp("a", 9)));
            filter.admits(gaps, now, OUT, ValueClaim { keys: &[key], stamp, prime: true, context })
        };
        if !is_first {
            follow(&mut filter, &mut gaps);
        }
        filter.on_peer_delete(&mut gaps, NOW, &["k"], None);
        if is_first {
            follow(&mut filter, &mut gaps);
        }
        assert!(!admits(&filter, &gaps, NOW + 4_999, "k"), "it may be older than the delete");
        assert!(admits(&filter, &gaps, NOW + 4_999, "other"), "other keys are not concerned");
        assert!(admits(&filter, &gaps, NOW + 5_000, "k"));
    }
}

#[test]
fn a_delete_without_a_number_that_is_forgotten_refuses_every_value() {
    let (mut filter, mut gaps) = settled();
    filter.on_peer_delete(&mut gaps, NOW, &["a", "b", "c", "d", "e"], None);
    for (now, is_admitted) in [(NOW + 4_999, false), (NOW + 5_000, true)] {
        assert_eq!(admits_at(&filter, &gaps, now, &[("b", 4)]), is_admitted);
    }
}
