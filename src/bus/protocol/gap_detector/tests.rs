use super::*;

const T: u64 = 3_000;
const CACHE: &[CacheId] = &[CacheId(0)];

impl GapDetector {
    /// Polls and acknowledges, as the subscriber does.
    pub(crate) fn check(&mut self, now: u64) -> Option<GapReason> {
        let reason = self.poll_gap(now)?;
        self.acknowledge_gap(now);
        Some(reason)
    }

    /// Lets a probe be sent and come back at once, if one is due.
    pub(crate) fn probe(&mut self, now: u64) {
        if let Some(number) = self.probes.take_due(now)
            && self.on_probe(now, number).1
        {
            self.acknowledge_gap(now);
            self.on_current(now);
        }
    }
}

/// A detector on a subscription that is current from 0 on, at the time `T`.
fn settled() -> GapDetector {
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(0, false);
    for now in (0..=T).step_by(100) {
        gaps.probe(now);
        assert_eq!(gaps.check(now), None);
    }
    gaps
}

fn stamp(incarnation: &str, seq: u64) -> SequenceStamp<'_> {
    SequenceStamp { incarnation, seq, next_within_ms: Some(60_000), idle_ms: None }
}

fn message(gaps: &mut GapDetector, now: u64, seq: u64) {
    gaps.observe(now, &stamp("a1", seq), false, CACHE);
}

fn beacon(gaps: &mut GapDetector, now: u64, seq: u64) {
    gaps.observe(now, &stamp("a1", seq), true, CACHE);
}

/// Lets all requested probes come back, and looks for a gap.
fn check(gaps: &mut GapDetector, now: u64) -> Option<GapReason> {
    gaps.request_probe(now);
    gaps.probe(now);
    gaps.check(now)
}

/// A publisher whose number is known: it begins at 0.
fn begun() -> GapDetector {
    let mut gaps = settled();
    beacon(&mut gaps, T, 0);
    gaps
}

#[test]
fn a_hole_has_half_a_second_to_be_filled() {
    let mut gaps = begun();
    message(&mut gaps, T, 0);
    message(&mut gaps, T, 2);
    assert_eq!(check(&mut gaps, T + 499), None);
    message(&mut gaps, T + 499, 1);
    message(&mut gaps, T + 499, 2);
    assert_eq!(check(&mut gaps, T + 1_000), None);
    message(&mut gaps, T + 1_000, 4);
    assert_eq!(check(&mut gaps, T + 1_500), Some(GapReason::Hole));
    assert_eq!(check(&mut gaps, T + 1_500), None, "reported once");
    message(&mut gaps, T + 1_500, 5);
    assert_eq!(check(&mut gaps, T + 2_000), None, "numbers are expected to go on from there");
}

#[test]
fn a_hole_is_a_gap_only_when_a_probe_that_was_sent_later_is_back() {
    let mut gaps = begun();
    let number = gaps.probes.take_due(T + 1_000).unwrap();
    // The beacon overtakes two messages, which wait behind a backlog.
    beacon(&mut gaps, T + 1_000, 2);
    assert_eq!(gaps.check(T + 1_499), None);
    assert!(gaps.trusted_until().is_some());
    assert_eq!(gaps.on_probe(T + 1_500, number), (ProbeReturn::InTime, false));
    assert_eq!(gaps.check(T + 1_500), None, "this probe was sent before");
    assert_eq!(gaps.trusted_until(), None, "L1 is uncertain meanwhile");
    assert!(gaps.request_probe(T + 1_500) && !gaps.request_probe(T + 1_500));
    let number = gaps.probes.take_due(T + 1_500).unwrap();
    let mut lost = true;
    for _ in 0..2 {
        let mut gaps = begun();
        beacon(&mut gaps, T + 1_000, 2);
        gaps.request_probe(T + 1_000);
        let number = gaps.probes.take_due(T + 1_000).unwrap();
        message(&mut gaps, T + 1_900, 0);
        if !lost {
            message(&mut gaps, T + 1_900, 1);
        }
        assert_eq!(gaps.check(T + 1_900), None);
        gaps.on_probe(T + 1_900, number);
        assert_eq!(gaps.check(T + 1_900), lost.then_some(GapReason::Hole));
        lost = false;
    }
    gaps.on_probe(T + 1_600, number);
    assert_eq!(gaps.check(T + 1_600), Some(GapReason::Hole));
    assert_eq!(gaps.check(T + 1_700), None);
    assert_eq!(gaps.trusted_until(), Some(2 * T + 1_500));
}

#[test]
fn each_hole_has_its_own_time() {
    let mut gaps = begun();
    message(&mut gaps, T, 1);
    message(&mut gaps, T + 300, 9);
    message(&mut gaps, T + 350, 4);
    message(&mut gaps, T + 400, 0);
    assert_eq!(check(&mut gaps, T + 799), None);
    assert_eq!(check(&mut gaps, T + 800), Some(GapReason::Hole), "from 300 on, not from 350");
}

#[test]
fn a_beacon_shows_that_the_last_message_was_lost() {
    let mut gaps = begun();
    message(&mut gaps, T, 0);
    beacon(&mut gaps, T, 1);
    assert_eq!(check(&mut gaps, T + 500), None);
    beacon(&mut gaps, T + 500, 2);
    beacon(&mut gaps, T + 500, 2);
    assert_eq!(check(&mut gaps, T + 999), None);
    assert_eq!(check(&mut gaps, T + 1_000), Some(GapReason::Hole));
    message(&mut gaps, T + 1_001, 2);
    assert_eq!(check(&mut gaps, T + 1_501), None);
}

#[test]
fn in_any_order_and_any_number_of_times_nothing_is_missing_in_the_end() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut gaps = begun();
        let mut arrivals: Vec<(u64, bool)> = (0..random.u64(1..30))
            .flat_map(|seq| [(seq, false), (seq, random.bool()), (seq, true)])
            .collect();
        random.shuffle(&mut arrivals);
        let lost = random.bool().then(|| arrivals[random.usize(..arrivals.len())].0);
        for (seq, is_beacon) in arrivals.iter().filter(|it| it.1 || Some(it.0) != lost) {
            gaps.observe(T, &stamp("a1", *seq), *is_beacon, CACHE);
        }
        let last = arrivals.iter().map(|it| it.0).max().unwrap();
        beacon(&mut gaps, T, last + 1);
        let found = check(&mut gaps, T + 500);
        assert_eq!(found, lost.map(|_| GapReason::Hole), "seed {seed}");
        message(&mut gaps, T + 500, last + 1);
        assert_eq!(check(&mut gaps, T + 1_000), None, "seed {seed}");
    }
}

#[test]
fn the_first_message_of_a_publisher_tells_its_number_and_whether_the_one_before_was_lost() {
    // The subscription is current from 1,000 on, and the message arrives at `now`.
    let finds = |now: u64, idle_ms: Option<u64>, is_beacon| {
        let mut gaps = GapDetector::new("own", T);
        gaps.on_subscribed(1_000, false);
        for at in (1_000..=now).step_by(1_000) {
            gaps.probe(at);
        }
        gaps.observe(now, &SequenceStamp { idle_ms, ..stamp("a1", 7) }, is_beacon, CACHE);
        check(&mut gaps, now + 500)
    };
    for is_beacon in [false, true] {
        assert_eq!(finds(T, Some(T + 9), is_beacon), None, "published before");
        assert_eq!(finds(T, Some(T - 1_000), is_beacon), None, "published before");
        assert_eq!(finds(T, Some(T - 1_500), is_beacon), None, "confirmed late");
        assert_eq!(finds(T, Some(T - 1_501), is_beacon), Some(GapReason::Hole));
        assert_eq!(finds(T, Some(5), is_beacon), Some(GapReason::Hole));
        assert_eq!(finds(90_000, Some(59_999), is_beacon), Some(GapReason::Hole));
        assert_eq!(finds(90_000, Some(60_000), is_beacon), None, "it may have been forgotten");
        assert_eq!(finds(T, None, is_beacon), None, "it says nothing of it");
    }
    // Before the first probe is back, it need not have been received.
    let mut gaps = GapDetector::new("own", T);
    gaps.on_subscribed(10_000, false);
    gaps.observe(10_020, &SequenceStamp { idle_ms: Some(1), ..stamp("a1", 7) }, false, CACHE);
    gaps.probe(10_050);
    assert_eq!(check(&mut gaps, 10_600), None);
    // A resumed subscription misses nothing.
    gaps.on_unsubscribed();
    assert_eq!((gaps.check(90_000), gaps.trusted_until()), (None, None));
    gaps.on_subscribed(20_000, true);
    message(&mut gaps, 20_000, 11);
    assert_eq!(check(&mut gaps, 20_500), Some(GapReason::Hole));
}

#[test]
fn l1_is_marked_by_the_first_probe_of_a_subscription_unless_it_was_resumed() {
    let mut gaps = GapDetector::new("own", T);
    let first = |gaps: &mut GapDetector, now, resumed| {
        gaps.on_subscribed(now, resumed);
        assert_eq!(gaps.trusted_until(), None);
        let number = gaps.probes.take_due(now).unwrap();
        let (back, must_mark) = gaps.on_probe(now + 10, number);
        assert_eq!((back, gaps.trusted_until()), (ProbeReturn::First, Some(now + T)));
        must_mark
    };
    assert!(first(&mut gaps, 0, true), "there is nothing to resume");
    assert!(first(&mut gaps, 1_000, true), "L1 was not marked yet");
    gaps.on_current(1_010);
    assert!(!first(&mut gaps, 2_000, true));
    assert!(first(&mut gaps, 3_000, false));
    assert!(!gaps.is_caught_up(3_000 + T - 1) && gaps.is_caught_up(3_000 + T));
}

#[test]
fn only_probes_extend_trust_and_a_lapse_with_a_lost_probe_is_a_gap_also_when_it_ends() {
    let mut gaps = begun();
    for now in (T..=2 * T).step_by(100) {
        beacon(&mut gaps, now, 0);
        gaps.observe_activity(now);
        assert_eq!(gaps.check(now), (now == 2 * T).then_some(GapReason::Lapsed));
        assert_eq!(gaps.trusted_until(), Some(2 * T));
    }
    assert_eq!(gaps.check(2 * T + 100), None, "reported once");
    gaps.probes.take_due(2 * T + 100).unwrap();
    let number = gaps.probes.take_due(2 * T + 1_100).unwrap();
    assert_eq!(gaps.on_probe(2 * T + 1_150, number), (ProbeReturn::AfterLoss, true));
    assert_eq!(gaps.trusted_until(), Some(3 * T + 1_100));
}

/// Observes a publisher that promises `due`, and is silent from `T` on for `lasts` milliseconds.
/// Returns the gaps, and from when to when L1 is uncertain.
fn silence(incarnation: &str, due: Option<u64>, lasts: u64) -> Vec<(u64, &'static str)> {
    let mut gaps = settled();
    let promise = SequenceStamp { next_within_ms: due, ..stamp(incarnation, 0) };
    gaps.observe(T, &promise, true, CACHE);
    let (mut found, mut was_uncertain) = (Vec::new(), false);
    for now in (T..T + 200_000).step_by(100) {
        if now >= T + lasts {
            gaps.observe(now, &promise, true, CACHE);
        }
        gaps.probe(now);
        let reason = gaps.check(now).map(GapReason::as_str);
        found.extend(reason.map(|reason| (now - T, reason)));
        let is_uncertain = gaps.trusted_until().is_none();
        if std::mem::replace(&mut was_uncertain, is_uncertain) != is_uncertain {
            found.push((now - T, if is_uncertain { "uncertain" } else { "certain" }));
        }
    }
    found
}

#[test]
fn the_silence_of_a_publisher_is_a_gap_and_l1_uncertain_while_it_lasts() {
    let [begins, ends, dead] =
        [GapReason::PublisherSilent, GapReason::PublisherReturned, GapReason::PublisherForgotten]
            .map(GapReason::as_str);
    let returns = [(3_000, begins), (3_000, "uncertain"), (9_000, ends), (9_000, "certain")];
    assert_eq!(silence("a1", Some(1_000), 9_000), returns);
    let dies = [(3_000, begins), (3_000, "uncertain"), (60_000, dead), (60_000, "certain")];
    assert_eq!(silence("a1", Some(1_000), 100_000_000), dies, "taken for dead after a minute");
    let slower = [(6_000, begins), (6_000, "uncertain"), (60_000, dead), (60_000, "certain")];
    assert_eq!(silence("a1", Some(2_000), 100_000_000), slower);
    assert_eq!(silence("a1", Some(1_000), 2_900), []);
    assert_eq!(silence("a1", Some(20_000), 100_000_000), [], "a promise for later is not watched");
    assert_eq!(silence("a1", None, 100_000_000), []);
    assert_eq!(silence("own", Some(1_000), 100_000_000), []);
}

#[test]
fn the_last_beacon_ends_all_promises_in_whatever_order_it_arrives() {
    let mut gaps = begun();
    let soon = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
    gaps.observe(T, &soon, true, CACHE);
    assert_eq!(gaps.known_publishers(), 2);
    gaps.observe(T, &SequenceStamp { next_within_ms: None, ..soon }, true, CACHE);
    gaps.observe(T, &soon, true, CACHE);
    gaps.observe(T, &soon, false, CACHE);
    assert_eq!(gaps.known_publishers(), 1);
    for now in (T..4 * T).step_by(100) {
        assert_eq!(check(&mut gaps, now), None);
        assert!(gaps.trusted_until().is_some());
    }
}

#[test]
fn a_promise_counts_from_the_beginning_of_the_next_subscription() {
    for resumed in [false, true] {
        let mut gaps = begun();
        let promise = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
        gaps.observe(T, &promise, false, CACHE);
        gaps.on_unsubscribed();
        gaps.on_subscribed(50_000, resumed);
        let mut found = Vec::new();
        for now in (50_000..54_000).step_by(100) {
            found.extend(check(&mut gaps, now).map(|reason| (now, reason)));
        }
        assert_eq!(found, [(53_000, GapReason::PublisherSilent)]);
    }
}

#[test]
fn a_message_delivered_again_renews_no_promise() {
    let mut gaps = begun();
    let old = SequenceStamp { next_within_ms: Some(1_000), ..stamp("a1", 0) };
    gaps.observe(T, &old, false, CACHE);
    for now in (T..2 * T).step_by(100) {
        assert_eq!(check(&mut gaps, now), None);
        gaps.observe(now, &old, false, CACHE);
    }
    assert_eq!(check(&mut gaps, 2 * T), Some(GapReason::PublisherSilent));
}

#[test]
fn a_publisher_that_promised_a_message_for_later_is_remembered_until_then() {
    let mut gaps = settled();
    let known = |gaps: &mut GapDetector, now| {
        gaps.check(now);
        gaps.is_known(CACHE[0], "a1")
    };
    gaps.observe(
        T,
        &SequenceStamp { next_within_ms: Some(100_000), ..stamp("a1", 0) },
        true,
        CACHE,
    );
    for now in (T..T + 149_900).step_by(100) {
        gaps.probe(now);
    }
    assert!(known(&mut gaps, T + 149_900) && !known(&mut gaps, T + 150_000));
}

#[test]
fn its_memory_is_bounded_and_a_full_one_is_a_gap() {
    let mut gaps = begun();
    for seq in (0..1_000).rev().step_by(2) {
        message(&mut gaps, T, seq);
        message(&mut gaps, T, 2_000 - seq);
    }
    assert_eq!(gaps.check(T), Some(GapReason::Hole));
    message(&mut gaps, T, 2_000);
    assert_eq!(check(&mut gaps, T + 500), None);

    gaps.max_publishers = 3;
    for (incarnation, is_known) in [("b", true), ("c", true), ("d", false), ("e", false)] {
        gaps.observe(T, &stamp(incarnation, 0), false, CACHE);
        assert_eq!(gaps.is_known(CACHE[0], incarnation), is_known);
    }
    gaps.probe(2 * T - 1);
    assert_eq!(gaps.check(2 * T), Some(GapReason::TooManyPublishers));
    assert_eq!(gaps.check(2 * T), None);
}

#[test]
fn a_short_trust_timeout_shortens_the_time_for_reordering() {
    let mut gaps = GapDetector::new("own", 300);
    gaps.on_subscribed(0, false);
    gaps.probe(0);
    beacon(&mut gaps, 0, 0);
    beacon(&mut gaps, 10, 1);
    gaps.request_probe(10);
    gaps.probe(10);
    assert_eq!((gaps.check(59), gaps.check(60)), (None, Some(GapReason::Hole)));
}

#[test]
fn what_was_stored_since_a_subscription_began_stays_unless_a_message_may_be_lost() {
    // The subscription begins at 10,000, and its first probe is back at 10,600.
    let joined = |messages: &[(u64, u64, Option<u64>)]| {
        let mut gaps = GapDetector::new("own", T);
        gaps.on_subscribed(10_000, false);
        let number = gaps.probes.take_due(10_000).unwrap();
        for (at, seq, idle_ms) in messages {
            gaps.observe(
                *at,
                &SequenceStamp { idle_ms: *idle_ms, ..stamp("a1", *seq) },
                false,
                CACHE,
            );
        }
        assert_eq!(gaps.on_probe(10_600, number), (ProbeReturn::First, true));
        let until = gaps.joined_at(10_600);
        gaps.acknowledge_gap(10_600);
        gaps.on_current(10_600);
        (until, gaps)
    };
    let until = |messages: &[_]| joined(messages).0;
    assert_eq!(until(&[]), 10_000);
    assert_eq!(until(&[(10_100, 7, Some(200)), (10_200, 8, Some(100))]), 10_000);
    assert_eq!(until(&[(10_100, 7, Some(50))]), 10_600, "the message before may be lost");
    assert_eq!(until(&[(10_100, 7, Some(200)), (10_200, 9, Some(50))]), 10_600, "8 is missing");
    let (_, mut gaps) = joined(&[]);
    assert_eq!(gaps.take_unsure_beginning(), None);
    // First heard after the probe: the message before was published at 10,300.
    gaps.observe(11_000, &SequenceStamp { idle_ms: Some(700), ..stamp("b", 3) }, true, CACHE);
    assert_eq!((gaps.take_unsure_beginning(), gaps.take_unsure_beginning()), (Some(10_600), None));
    gaps.observe(11_000, &SequenceStamp { idle_ms: Some(1_100), ..stamp("c", 3) }, true, CACHE);
    assert_eq!(gaps.take_unsure_beginning(), None, "published before the subscription");
    gaps.observe(11_000, &SequenceStamp { idle_ms: Some(700), ..stamp("own", 3) }, true, CACHE);
    assert_eq!(gaps.take_unsure_beginning(), None, "what it published itself, it has applied");
}

#[test]
fn an_absurd_promise_does_not_fill_the_memory_for_ever() {
    let mut gaps = settled();
    for next_within_ms in [u64::MAX, 10_000_000_000] {
        let absurd = SequenceStamp { next_within_ms: Some(next_within_ms), ..stamp("a1", 0) };
        gaps.observe(T, &absurd, true, CACHE);
    }
    // The first of the two begins the minute in which a peer can be heard again.
    gaps.check(T + 17_000_000);
    gaps.check(T + 17_060_000);
    assert!(!gaps.is_known(CACHE[0], "a1"));
}

#[test]
fn a_flood_of_invented_publishers_is_bounded_and_forgotten() {
    let mut gaps = settled();
    let mut found = 0;
    for now in (T..T + 30_000).step_by(100) {
        for number in 0..300 {
            let invented = format!("{now}-{number}");
            let next_within_ms = Some(if number % 2 == 0 { 1_000 } else { u64::MAX });
            gaps.observe(
                now,
                &SequenceStamp { next_within_ms, ..stamp(&invented, 7) },
                true,
                CACHE,
            );
        }
        assert!(gaps.publishers.len() <= MAX_PUBLISHERS);
        gaps.probe(now);
        found += u32::from(gaps.check(now).is_some());
    }
    assert!((9..=12).contains(&found), "{found} gaps in ten times the trust timeout");
    let end = T + 30_000 + 17_000_000;
    for now in (end..=end + FORGET_AFTER).step_by(100) {
        gaps.probe(now);
        gaps.check(now);
    }
    assert_eq!((gaps.publishers.len(), gaps.known_publishers()), (0, 1));
    assert!(gaps.trusted_until().is_some());
}
