use super::*;

const T: u64 = 3_000;

/// A detector whose resync window is over.
fn settled() -> GapDetector {
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(0, false);
    gaps.observe_activity(T);
    assert_eq!(gaps.check(T), None);
    gaps
}

fn stamp(incarnation: &str, seq: u64) -> SequenceStamp<'_> {
    SequenceStamp { incarnation, seq, next_within_ms: None }
}

fn message(gaps: &mut GapDetector, now: u64, seq: u64) {
    gaps.observe(now, &stamp("a1", seq), false);
}

fn beacon(gaps: &mut GapDetector, now: u64, seq: u64) {
    gaps.observe(now, &stamp("a1", seq), true);
}

#[test]
fn a_hole_has_half_a_second_to_be_filled() {
    let mut gaps = settled();
    message(&mut gaps, T, 0);
    message(&mut gaps, T, 2);
    assert_eq!(gaps.check(T + 499), None);
    message(&mut gaps, T + 499, 1);
    message(&mut gaps, T + 499, 2);
    assert_eq!(gaps.check(T + 1_000), None);
    message(&mut gaps, T + 1_000, 4);
    assert_eq!(gaps.check(T + 1_500), Some(GapReason::Hole));
    assert_eq!(gaps.check(T + 1_500), None, "reported once");
    message(&mut gaps, T + 1_500, 5);
    assert_eq!(gaps.check(T + 2_000), None, "numbers are expected to go on from there");
}

#[test]
fn each_hole_has_its_own_time() {
    let mut gaps = settled();
    message(&mut gaps, T, 1);
    message(&mut gaps, T + 300, 9);
    message(&mut gaps, T + 350, 4);
    message(&mut gaps, T + 400, 0);
    assert_eq!(gaps.check(T + 799), None);
    assert_eq!(gaps.check(T + 800), Some(GapReason::Hole), "from 300 on, not from 350");
}

#[test]
fn a_beacon_shows_that_the_last_message_was_lost() {
    let mut gaps = settled();
    message(&mut gaps, T, 0);
    beacon(&mut gaps, T, 1);
    assert_eq!(gaps.check(T + 500), None);
    beacon(&mut gaps, T + 500, 2);
    beacon(&mut gaps, T + 500, 2);
    assert_eq!(gaps.check(T + 999), None);
    assert_eq!(gaps.check(T + 1_000), Some(GapReason::Hole));
    message(&mut gaps, T + 1_001, 2);
    assert_eq!(gaps.check(T + 1_501), None);
}

#[test]
fn in_any_order_and_any_number_of_times_nothing_is_missing_in_the_end() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut gaps = settled();
        let mut arrivals: Vec<(u64, bool)> = (0..random.u64(1..30))
            .flat_map(|seq| [(seq, false), (seq, random.bool()), (seq, true)])
            .collect();
        random.shuffle(&mut arrivals);
        let lost = random.bool().then(|| arrivals[random.usize(..arrivals.len())].0);
        for (seq, is_beacon) in arrivals.iter().filter(|it| it.1 || Some(it.0) != lost) {
            gaps.observe(T, &stamp("a1", *seq), *is_beacon);
        }
        let last = arrivals.iter().map(|it| it.0).max().unwrap();
        beacon(&mut gaps, T, last + 1);
        let found = gaps.check(T + 500);
        assert_eq!(found, lost.map(|_| GapReason::Hole), "seed {seed}");
        message(&mut gaps, T + 500, last + 1);
        assert_eq!(gaps.check(T + 1_000), None, "seed {seed}");
    }
}

#[test]
fn a_publisher_that_appears_while_subscribed_begins_at_zero() {
    let mut gaps = settled();
    gaps.observe(T, &stamp("a1", 0), false);
    gaps.observe(T, &stamp("a2", 0), false);
    gaps.observe(T, &stamp("b1", 0), true);
    assert_eq!(gaps.check(T + 500), None, "a start, a restart and a hello");
    gaps.observe(T + 500, &stamp("c1", 2), true);
    assert_eq!(gaps.check(T + 1_000), Some(GapReason::Hole));
}

#[test]
fn the_numbers_of_publishers_are_learned_once_which_costs_one_gap() {
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(0, false);
    message(&mut gaps, 100, 7);
    message(&mut gaps, 200, 8);
    assert_eq!(gaps.check(T - 1), None);
    assert_eq!(gaps.check(T), Some(GapReason::Joined));
    assert_eq!(gaps.check(T), None);

    gaps.on_unsubscribed();
    assert_eq!((gaps.check(90_000), gaps.trusted_until()), (None, None));
    gaps.on_subscribed(100_000, false);
    message(&mut gaps, 100_000, 9);
    gaps.observe_activity(102_999);
    assert_eq!(gaps.check(103_000), None, "the publisher was at the number known of it");

    gaps.on_unsubscribed();
    gaps.on_subscribed(200_000, true);
    message(&mut gaps, 200_000, 11);
    assert_eq!(gaps.check(200_500), Some(GapReason::Hole), "a resumed one must miss nothing");
}

#[test]
fn a_resync_that_was_cut_off_is_ended_by_the_subscription_that_resumes_it() {
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(0, false);
    message(&mut gaps, 100, 7);
    gaps.on_unsubscribed();
    gaps.on_subscribed(1_000, true);
    assert_eq!(gaps.trusted_until(), None, "the broker still delivers what it kept");
    gaps.on_replayed();
    assert_eq!(gaps.trusted_until(), Some(1_000 + T));
    gaps.observe(2_000, &stamp("b1", 3), true);
    assert_eq!(gaps.check(T), Some(GapReason::Joined));
    assert!(!gaps.is_caught_up(2 * T - 1) && gaps.is_caught_up(2 * T));
}

#[test]
fn a_publisher_that_breaks_its_promise_is_a_gap_and_one_without_a_promise_is_none() {
    let promised = |due, incarnation| {
        let mut gaps = settled();
        gaps.observe(T, &SequenceStamp { next_within_ms: due, ..stamp(incarnation, 0) }, false);
        let mut found = Vec::new();
        for now in (T..T + 100_000).step_by(100) {
            gaps.observe_activity(now);
            found.extend(gaps.check(now).map(|reason| (now - T, reason)));
        }
        assert!(gaps.publishers.is_empty(), "forgotten");
        found
    };
    assert_eq!(promised(Some(1_000), "a1"), [(3_000, GapReason::PublisherSilent)]);
    assert_eq!(promised(Some(2_000), "a1"), [(6_000, GapReason::PublisherSilent)]);
    assert_eq!(promised(Some(SLOW_INTERVAL), "a1"), []);
    assert_eq!(promised(None, "a1"), []);
    assert_eq!(promised(Some(1_000), "own"), []);
}

#[test]
fn a_promise_to_a_subscription_that_ended_is_not_waited_for() {
    for resumed in [false, true] {
        let mut gaps = settled();
        let promise = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
        gaps.observe(T, &promise, false);
        gaps.on_unsubscribed();
        gaps.on_subscribed(100_000, resumed);
        gaps.observe_activity(103_000);
        assert_eq!(gaps.check(103_000), None);
        assert_eq!(gaps.publishers.len(), 1, "its silence while unsubscribed does not count");
    }
}

#[test]
fn a_message_delivered_again_renews_no_promise() {
    let mut gaps = settled();
    let old = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
    gaps.observe(T, &old, false);
    beacon(&mut gaps, T, 1);
    gaps.observe(T, &old, false);
    gaps.observe_activity(2 * T);
    assert_eq!(gaps.check(2 * T), None, "its last beacon promised nothing");
}

#[test]
fn silence_is_a_gap_again_and_again() {
    let mut gaps = settled();
    assert_eq!(gaps.trusted_until(), Some(2 * T));
    assert_eq!(gaps.check(2 * T - 1), None);
    assert_eq!(gaps.check(2 * T), Some(GapReason::Silent));
    assert_eq!(gaps.check(3 * T - 1), None);
    assert_eq!(gaps.check(3 * T), Some(GapReason::Silent));
    gaps.observe_activity(3 * T);
    assert_eq!((gaps.check(3 * T), gaps.trusted_until()), (None, Some(4 * T)));
}

#[test]
fn its_memory_is_bounded_and_a_full_one_is_a_gap() {
    let mut gaps = settled();
    for seq in (0..100_000).rev().step_by(2) {
        message(&mut gaps, T, seq);
        message(&mut gaps, T, 200_000 - seq);
    }
    let publisher = gaps.publishers.values().next().unwrap();
    assert!(publisher.ranges.len() <= MAX_RANGES + 1);
    assert_eq!(gaps.check(T), Some(GapReason::Hole));
    message(&mut gaps, T, 200_000);
    assert_eq!(gaps.check(T + 500), None);

    gaps.max_publishers = 3;
    for (incarnation, is_known) in [("b", true), ("c", true), ("d", false), ("e", false)] {
        gaps.observe(T, &stamp(incarnation, 0), false);
        assert_eq!(gaps.is_known(incarnation), is_known);
    }
    gaps.observe_activity(2 * T);
    assert_eq!(gaps.check(2 * T), Some(GapReason::TooManyPublishers));
    assert_eq!(gaps.check(2 * T), None);
}
