use super::*;
use crate::{bus::wire::message::MessageKind, glob::Pattern};

use InL2::{No, Retried, Yes};

fn outbox() -> Outbox {
    Outbox::new(10_000, 8 << 20)
}

pub(super) fn confirm(outbox: &mut Outbox) {
    assert!(outbox.confirm().is_some());
}

pub(super) fn delete(key: &str) -> Change {
    Change::Delete(Arc::from(key))
}

pub(super) fn pattern(pattern: &str) -> Change {
    Change::Pattern(Arc::from(pattern))
}

pub(super) fn value(key: &str, value: u8, prime: bool) -> Change {
    Change::Value {
        key: Arc::from(key),
        value: Arc::new([value]),
        by_codec: false,
        ttl_ms: Some(500),
        stale_ms: None,
        prime,
        context: None,
    }
}

/// Publishes everything. Returns the messages in short form: with `!` if L2 has not got the
/// invalidation, with `?` if it has got it by a retry.
fn drain(outbox: &mut Outbox, now: u64) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(out) = outbox.next(now) {
        let message = match out.kind() {
            MessageKind::Delete { keys } => format!("-{}", keys.join(",")),
            MessageKind::Pattern { pattern } => format!("~{pattern}"),
            MessageKind::Set { keys, value, .. } => format!("{}={}", keys[0], value[0]),
            MessageKind::Beacon { .. } => unreachable!("the outbox makes none"),
        };
        let state = match out.in_l2 {
            Retried => "?",
            Yes => "",
            No => "!",
        };
        all.push(message + state);
        confirm(outbox);
    }
    all
}

fn drained(now: u64, changes: &[Change]) -> Vec<String> {
    drained_in(now, changes.iter().map(|change| (change.clone(), Yes)))
}

fn drained_in(now: u64, changes: impl IntoIterator<Item = (Change, InL2)>) -> Vec<String> {
    let mut outbox = outbox();
    for (change, in_l2) in changes {
        outbox.push(0, change, in_l2);
    }
    drain(&mut outbox, now)
}

#[test]
fn a_key_deleted_again_and_again_is_published_once() {
    let changes =
        [delete("a"), delete("b"), delete("a"), pattern("x*"), delete("c"), pattern("x*")];
    assert_eq!(drained(0, &changes), ["-a,b,c", "~x*"]);
}

#[test]
fn no_value_overtakes_a_delete_of_its_key() {
    let (set, prime) = (value("k", 1, false), value("k", 2, true));
    assert_eq!(drained(0, &[delete("k"), set.clone()]), ["-k", "k=1"]);
    assert_eq!(drained(0, &[set.clone(), delete("k")]), ["-k"]);
    assert_eq!(drained(0, &[prime.clone(), delete("k")]), ["-k"]);
    assert_eq!(drained(0, &[set.clone(), pattern("z*")]), ["-k", "~z*"]);
    assert_eq!(drained(0, &[prime.clone(), pattern("z*")]), ["~z*"]);
    assert_eq!(drained(0, &[pattern("k*"), set.clone(), pattern("k*")]), ["~k*", "-k"]);
    assert_eq!(drained(0, &[pattern("*"), set.clone()]), ["~*", "k=1"]);
    assert_eq!(drained(0, &[pattern("*"), set.clone(), delete("k")]), ["~*"]);
    assert_eq!(drained(0, &[set.clone(), pattern("*"), delete("k")]), ["~*"]);
    assert_eq!(drained(0, &[set, prime]), ["-k", "k=2"]);
}

#[test]
fn a_key_that_is_set_again_and_again_is_invalidated_at_its_first_position() {
    let changes = [value("k", 1, false), delete("a"), value("k", 2, false), value("k", 3, false)];
    assert_eq!(drained(0, &changes), ["-k,a", "k=3"]);
}

#[test]
fn values_wait_for_a_second_and_are_sent_once() {
    let mut outbox = outbox();
    outbox.push(0, value("set", 1, false), Yes);
    let Some(MessageKind::Set { ttl_ms, .. }) = outbox.next(200).map(|out| out.kind()) else {
        panic!("a value is sent")
    };
    assert_eq!(ttl_ms, Some(300), "the ttl that is left");
    outbox.on_send_failed();
    let again = outbox.next(200).unwrap();
    assert_eq!(again.kind(), MessageKind::Delete { keys: vec!["set"] });
    let both = [value("set", 1, false), value("prime", 1, true)];
    assert_eq!(drained(499, &both), ["set=1", "prime=1"]);
    assert_eq!(drained(500, &both), ["-set"], "their ttl is over");
    let mut lasting = value("k", 1, false);
    if let Change::Value { ttl_ms, .. } = &mut lasting {
        *ttl_ms = None;
    }
    assert_eq!(drained(999, std::slice::from_ref(&lasting)), ["k=1"]);
    assert_eq!(drained(1_000, &[lasting]), ["-k"]);
}

#[test]
fn no_change_takes_from_another_that_l2_has_not_got_it() {
    let [a, b, c] = ["a", "b", "c"].map(delete);
    let set = value("a", 1, false);
    for (changes, expected) in [
        (vec![(a.clone(), Yes), (b.clone(), No), (c.clone(), Yes)], vec!["-a,c", "-b!"]),
        (vec![(a.clone(), No), (a.clone(), Yes), (a.clone(), Retried)], vec!["-a!"]),
        (vec![(a.clone(), Retried), (b.clone(), Retried), (a.clone(), Yes)], vec!["-a", "-b?"]),
        (vec![(a.clone(), Yes), (a.clone(), No)], vec!["-a!"]),
        (vec![(pattern("a*"), No), (pattern("a*"), Yes), (a.clone(), Yes)], vec!["~a*!", "-a"]),
        (vec![(set.clone(), No)], vec!["a=1!"]),
        (vec![(set.clone(), No), (a.clone(), Yes)], vec!["-a!"]),
        (vec![(set.clone(), No), (value("a", 2, true), Yes)], vec!["-a!", "a=2"]),
        (vec![(a.clone(), Yes), (set.clone(), No), (a.clone(), Yes)], vec!["-a!"]),
        (vec![(a.clone(), No), (b.clone(), Yes), (pattern("*"), Yes)], vec!["-a!", "~*"]),
        (vec![(pattern("*"), Yes), (a.clone(), No), (b.clone(), Yes)], vec!["~*", "-a!"]),
        (vec![(pattern("*"), Retried), (a.clone(), Yes)], vec!["~*?", "-a"]),
        (vec![(pattern("*"), Yes), (pattern("*"), No), (a.clone(), Yes)], vec!["~*!"]),
        (vec![(pattern("*"), No), (a, No), (set, No), (b, Retried)], vec!["~*!", "a=1!"]),
    ] {
        assert_eq!(drained_in(0, changes.clone()), expected, "{changes:?}");
    }
    let mut outbox = outbox();
    outbox.push(0, value("a", 1, false), No);
    assert_eq!(outbox.next(0).map(|out| out.in_l2), Some(No));
    outbox.on_send_failed();
    outbox.push(0, delete("b"), Yes);
    assert_eq!(drain(&mut outbox, 0), ["-a!", "-b"], "sent again as a delete");
}

#[test]
fn a_queue_that_is_full_covers_all_keys_in_the_highest_state() {
    for (last, expected) in [(Retried, "~*"), (Yes, "~*"), (No, "~*!")] {
        let mut outbox = Outbox::new(3, 10_000);
        for (key, in_l2) in [("a", Retried), ("b", Retried), ("c", last), ("d", Retried)] {
            outbox.push(0, delete(key), in_l2);
        }
        assert_eq!(drain(&mut outbox, 0), [expected]);
    }
}

#[test]
fn a_message_stays_the_same_until_it_is_confirmed() {
    let mut outbox = outbox();
    outbox.push(0, delete("a"), Yes);
    let first = outbox.next(0).cloned();
    outbox.push(0, delete("a"), Yes);
    outbox.push(0, pattern("*"), Yes);
    outbox.on_send_failed();
    assert_eq!(outbox.next(0).cloned(), first);
    assert_eq!(outbox.acked(), 0);
    confirm(&mut outbox);
    assert_eq!(outbox.acked(), 1);
    assert_eq!(drain(&mut outbox, 0), ["~*"], "the second delete came after the first was sent");
    assert_eq!(outbox.acked(), outbox.next_position);
    assert!(outbox.next(0).is_none());
}

#[test]
fn a_full_queue_drops_primes_first_and_then_covers_all_keys() {
    let mut outbox = Outbox::new(3, 10_000);
    outbox.push(0, value("prime", 1, true), Yes);
    for key in ["a", "b", "c"] {
        outbox.push(0, delete(key), Yes);
    }
    assert_eq!(drain(&mut outbox, 0), ["-a,b,c"], "without the prime it fits");
    for key in ["a", "b", "c", "d", "e"] {
        outbox.push(0, delete(key), Yes);
    }
    assert_eq!(drain(&mut outbox, 0), ["~*"]);
    outbox.push(0, delete(&"x".repeat(9_000)), Yes);
    outbox.push(0, delete(&"y".repeat(900)), Yes);
    assert_eq!(drain(&mut outbox, 0), ["~*"]);
    let mut none = Outbox::new(0, 0);
    none.push(0, delete("a"), Yes);
    assert_eq!(drain(&mut none, 0), ["~*"], "even if nothing may be queued");
}

#[test]
fn messages_stay_within_their_limits() {
    let mut outbox = outbox();
    for key in 0..9_000 {
        outbox.push(0, delete(&format!("key:{key}")), Yes);
    }
    let long = |letter: &str| letter.repeat(60_000);
    for letter in ["a", "b", "c", "d", "e", "f"] {
        outbox.push(0, delete(&long(letter)), Yes);
    }
    let (mut keys, mut messages) = (0, 0);
    while let Some(out) = outbox.next(0) {
        let MessageKind::Delete { keys: batch } = out.kind() else { panic!("{out:?}") };
        assert!(batch.len() <= MAX_KEYS);
        assert!(batch.iter().map(|key| key.len()).sum::<usize>() <= BATCH_BYTES);
        (keys, messages) = (keys + batch.len(), messages + 1);
        confirm(&mut outbox);
    }
    assert_eq!((keys, messages), (9_006, 4));
}

#[test]
fn a_key_too_long_for_a_message_is_covered_by_its_beginning() {
    let key = "[é*]".repeat(20_000);
    for change in [delete(&key), value(&key, 1, false)] {
        let mut outbox = outbox();
        outbox.push(0, change, Yes);
        let Some(MessageKind::Pattern { pattern }) = outbox.next(0).map(|out| out.kind()) else {
            panic!("a pattern")
        };
        assert!(pattern.len() <= MAX_TEXT && Pattern::new(pattern).matches(&key));
        assert!(!Pattern::new(pattern).matches("other"));
    }
    assert_eq!(drained(0, &[value(&key, 1, true)]), [""; 0]);
    assert_eq!(drained(0, &[pattern(&key)]), ["~*"]);
}

#[test]
fn a_refused_message_is_split_and_at_last_covers_more_keys() {
    let names = |outbox: &mut Outbox| {
        let out = outbox.next(0).unwrap();
        let name = |(_, change): &(u64, Change)| change.text().to_owned();
        out.changes.iter().map(name).collect::<Vec<_>>().join(",")
    };
    let mut outbox = outbox();
    for key in ["aaaa", "bb", "user:7"] {
        outbox.push(0, delete(key), Yes);
    }
    assert_eq!(names(&mut outbox), "aaaa,bb,user:7");
    assert_eq!(outbox.on_refused(), AfterRefusal::Replaced);
    assert_eq!(names(&mut outbox), "aaaa");
    confirm(&mut outbox);
    assert_eq!((outbox.acked(), outbox.len(), outbox.in_flight()), (1, 1, 2));
    assert_eq!(names(&mut outbox), "bb,user:7");
    outbox.push(0, delete("aaaa"), No);
    outbox.on_refused();
    assert_eq!(names(&mut outbox), "bb");
    confirm(&mut outbox);
    for wider in ["user:7", "use*", "u*", "*"] {
        assert_eq!(names(&mut outbox), wider);
        assert!(!outbox.is_stuck());
        outbox.on_refused();
    }
    assert!(outbox.is_stuck());
    assert_eq!(outbox.on_refused(), AfterRefusal::Stuck);
    assert_eq!(names(&mut outbox), "*");
    confirm(&mut outbox);
    assert!(!outbox.is_stuck());
    assert_eq!(drain(&mut outbox, 0), ["-aaaa!"], "pushed after the first was published");
    let widened = |reductions: Vec<Reduction>| {
        let widened = reductions.into_iter().map(|reduction| match reduction {
            Reduction::Widened { pattern, .. } => pattern.to_string(),
            Reduction::ValueDropped { key, .. } => format!("{key} dropped"),
        });
        widened.collect::<Vec<_>>()
    };
    assert_eq!(widened(outbox.take_reductions()), ["use*", "u*", "*"]);
    outbox.push(0, value("k", 1, false), Yes);
    outbox.next(0).unwrap();
    assert_eq!(outbox.on_refused(), AfterRefusal::Replaced);
    assert_eq!(names(&mut outbox), "k");
    assert_eq!(drain(&mut outbox, 0), ["-k"]);
    outbox.push(0, value("k", 1, true), Yes);
    outbox.next(0).unwrap();
    assert_eq!(outbox.on_refused(), AfterRefusal::Replaced);
    assert_eq!(names(&mut outbox), "", "peers need the number");
    assert_eq!(outbox.on_refused(), AfterRefusal::Stuck);
    assert_eq!(widened(outbox.take_reductions()), ["k dropped", "k dropped"]);
}

#[test]
fn messages_are_smaller_after_a_refusal_and_grow_again() {
    let mut outbox = outbox();
    let mut publishes = 0;
    for key in 0..9_000 {
        outbox.push(0, delete(&format!("{key:064}")), Yes);
    }
    let mut accepted = 0;
    while let Some(out) = outbox.next(0) {
        publishes += 1;
        let bytes: usize = out.changes.iter().map(|(_, it)| it.text().len()).sum();
        if bytes > 40_000 {
            assert_eq!(outbox.on_refused(), AfterRefusal::Replaced);
        } else {
            accepted += out.changes.len();
            confirm(&mut outbox);
        }
    }
    assert_eq!(accepted, 9_000);
    assert!(publishes < 30, "{publishes} publishes for 576,000 bytes");
    for _ in 0..100 {
        outbox.push(0, delete("k"), Yes);
        outbox.next(0).unwrap();
        confirm(&mut outbox);
    }
    assert_eq!(outbox.batch_bytes, BATCH_BYTES);
}

#[test]
fn a_pattern_that_is_widened_covers_what_it_covered() {
    let keys = ["", "a", "ab", "abc", "a-c", "x[é]y", "é", "éé:é", "user:1"];
    for glob in ["a?c", "ab*", "*c", "[a-x]*", "é?*", "x\\[é]*", "user:?", "user:[0-9]", "??", "ab"]
    {
        let mut outbox = outbox();
        outbox.push(0, pattern(glob), Yes);
        outbox.next(0).unwrap();
        let mut last = glob.to_owned();
        while outbox.on_refused() == AfterRefusal::Replaced {
            let wider = outbox.next(0).unwrap().changes[0].1.text().to_owned();
            for key in keys {
                let covers = |glob: &str| Pattern::new(glob).matches(key);
                assert!(!covers(&last) || covers(&wider), "{wider} after {last}");
            }
            last = wider;
        }
        assert_eq!(last, "*");
    }
}
