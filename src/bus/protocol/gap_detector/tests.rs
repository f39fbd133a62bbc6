use super::*;

const T: u64 = 3_000;

/// One who has listened for long enough to know who is there.
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

fn event(gaps: &mut GapDetector, now: u64, seq: u64) -> Verdict {
    gaps.observe(now, "a", &stamp("a1", seq), false)
}

fn beacon(gaps: &mut GapDetector, now: u64, seq: u64) -> Verdict {
    gaps.observe(now, "a", &stamp("a1", seq), true)
}

#[test]
fn a_hole_has_half_a_second_to_be_filled() {
    let mut gaps = settled();
    assert_eq!(event(&mut gaps, T, 0), Verdict::InOrder);
    assert_eq!(event(&mut gaps, T, 2), Verdict::Early);
    assert_eq!(gaps.check(T + 499), None);
    assert_eq!(event(&mut gaps, T + 499, 1), Verdict::InOrder);
    assert_eq!(event(&mut gaps, T + 499, 2), Verdict::Known);
    assert_eq!(gaps.check(T + 1_000), None);
    assert_eq!(event(&mut gaps, T + 1_000, 4), Verdict::Early);
    assert_eq!(gaps.check(T + 1_500), Some(GapReason::Hole));
    assert_eq!(gaps.check(T + 1_500), None, "said once");
    assert_eq!(event(&mut gaps, T + 1_500, 5), Verdict::InOrder, "from there on");
}

#[test]
fn each_hole_has_its_own_time() {
    let mut gaps = settled();
    event(&mut gaps, T, 1);
    event(&mut gaps, T + 300, 9);
    event(&mut gaps, T + 350, 4);
    event(&mut gaps, T + 400, 0);
    assert_eq!(gaps.check(T + 799), None);
    assert_eq!(gaps.check(T + 800), Some(GapReason::Hole), "from 300 on, not from 350");
}

#[test]
fn a_beacon_tells_of_a_last_event_that_was_lost() {
    let mut gaps = settled();
    event(&mut gaps, T, 0);
    assert_eq!(beacon(&mut gaps, T, 1), Verdict::Known);
    assert_eq!(beacon(&mut gaps, T, 2), Verdict::Early);
    assert_eq!(beacon(&mut gaps, T, 2), Verdict::Known);
    assert_eq!(gaps.check(T + 500), Some(GapReason::Hole));
    assert_eq!(event(&mut gaps, T + 501, 2), Verdict::InOrder);
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
            let stamp = stamp("a1", *seq);
            gaps.observe(T, "a", &stamp, *is_beacon);
        }
        let last = arrivals.iter().map(|it| it.0).max().unwrap();
        beacon(&mut gaps, T, last + 1);
        let found = gaps.check(T + 500);
        assert_eq!(found, lost.map(|_| GapReason::Hole), "seed {seed}");
        assert_eq!(event(&mut gaps, T + 500, last + 1), Verdict::InOrder);
    }
}

#[test]
fn a_publisher_first_seen_while_listening_is_seen_from_its_beginning() {
    let mut gaps = settled();
    assert_eq!(event(&mut gaps, T, 0), Verdict::InOrder);
    assert_eq!(gaps.observe(T, "a", &stamp("a2", 0), false), Verdict::InOrder, "it restarted");
    assert_eq!(gaps.observe(T, "b", &stamp("b1", 0), true), Verdict::Known, "it said hello");
    assert_eq!(gaps.check(T + 500), None);
    assert_eq!(gaps.observe(T + 500, "c", &stamp("c1", 2), true), Verdict::Early);
    assert_eq!(gaps.check(T + 1_000), Some(GapReason::Hole));
}

#[test]
fn where_publishers_are_is_learned_once_and_costs_one_gap() {
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(0, false);
    assert_eq!(event(&mut gaps, 100, 7), Verdict::InOrder);
    assert_eq!(event(&mut gaps, 200, 8), Verdict::InOrder);
    assert_eq!(gaps.check(T - 1), None);
    assert_eq!(gaps.check(T), Some(GapReason::Joined));
    assert_eq!(gaps.check(T), None);

    gaps.on_unsubscribed();
    assert_eq!((gaps.check(90_000), gaps.trusted_until()), (None, None));
    gaps.on_subscribed(100_000, false);
    assert_eq!(event(&mut gaps, 100_000, 9), Verdict::InOrder);
    gaps.observe_activity(102_999);
    assert_eq!(gaps.check(103_000), None, "went on exactly where it was");

    gaps.on_unsubscribed();
    gaps.on_subscribed(200_000, true);
    assert_eq!(event(&mut gaps, 200_000, 11), Verdict::Early);
    assert_eq!(gaps.check(200_500), Some(GapReason::Hole), "a resumed one has no excuse");
}

#[test]
fn a_publisher_that_breaks_its_promise_is_a_gap_and_one_that_made_none_just_goes() {
    let promised = |due, incarnation| {
        let mut gaps = settled();
        let stamp = SequenceStamp { next_within_ms: due, ..stamp(incarnation, 0) };
        gaps.observe(T, "a", &stamp, false);
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
fn what_was_promised_to_a_subscription_that_ended_is_not_waited_for() {
    for resumed in [false, true] {
        let mut gaps = settled();
        gaps.observe(
            T,
            "a",
            &SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) },
            false,
        );
        gaps.on_unsubscribed();
        gaps.on_subscribed(100_000, resumed);
        gaps.observe_activity(103_000);
        assert_eq!(gaps.check(103_000), None);
        assert_eq!(gaps.publishers.len(), 1, "not forgotten for what we could not hear");
    }
}

#[test]
fn an_event_delivered_again_renews_no_promise() {
    let mut gaps = settled();
    let old = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
    gaps.observe(T, "a", &old, false);
    beacon(&mut gaps, T, 1);
    assert_eq!(gaps.observe(T, "a", &old, false), Verdict::Known);
    gaps.observe_activity(2 * T);
    assert_eq!(gaps.check(2 * T), None, "its last word promised nothing");
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
fn what_it_remembers_is_bounded_and_more_is_a_gap() {
    let mut gaps = settled();
    for seq in (0..100_000).rev().step_by(2) {
        event(&mut gaps, T, seq);
        event(&mut gaps, T, 200_000 - seq);
    }
    let publisher = gaps.publishers.values().next().unwrap();
    assert!(publisher.pieces.len() <= MAX_PIECES + 1);
    assert_eq!(gaps.check(T), Some(GapReason::Hole));
    assert_eq!(event(&mut gaps, T, 200_000), Verdict::InOrder);

    gaps.max_publishers = 3;
    for name in ["a", "b", "c", "d", "e"] {
        let watched = gaps.observe(T, name, &stamp("1", 0), false) != Verdict::Unwatched;
        assert_eq!(watched, ["a", "b"].contains(&name));
    }
    gaps.observe_activity(2 * T);
    assert_eq!(gaps.check(2 * T), Some(GapReason::TooManyPublishers));
    assert_eq!(gaps.check(2 * T), None);
}
