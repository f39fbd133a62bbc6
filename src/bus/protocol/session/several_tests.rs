//! Several caches on one session.

use super::{
    tests::{empty, key, push},
    *,
};
use crate::{
    bus::{
        protocol::{
            outbox::{AfterRefusal, Change},
            version_vector::VersionVector,
        },
        wire::{
            message::{InL2, Received},
            namespace::Namespace,
        },
    },
    options::{CacheOptions, EventBusOptions},
};

const TRUST: u64 = 3_000;

fn options(name: &str) -> CacheOptions {
    CacheOptions { name: Some(name.to_owned()), ..CacheOptions::default() }
}

fn attach(session: &mut Session, name: &str) -> CacheId {
    attach_at(session, 0, name)
}

fn attach_at(session: &mut Session, now: u64, name: &str) -> CacheId {
    session.attach(now, &options(name), false).unwrap()
}

/// A session with the caches `users` and `mails`, which is caught up.
fn settled() -> (Session, CacheId, CacheId) {
    let mut session = empty();
    let (users, mails) = (attach(&mut session, "users"), attach(&mut session, "mails"));
    session.on_subscribed(0, false);
    session.gaps.probe(0);
    session.gaps.probe(TRUST);
    (session, users, mails)
}

fn message<'a>(
    namespace: &'a str,
    (incarnation, seq): (&'a str, u64),
    kind: MessageKind<'a>,
) -> Message<'a> {
    let stamp = SequenceStamp { incarnation, seq, next_within_ms: Some(1_000), idle_ms: None };
    Message {
        id: "x",
        source: incarnation,
        ts: 0,
        generation: None,
        namespace: Some(namespace),
        stamp: Some(stamp),
        in_l2: InL2::Yes,
        kind,
    }
}

fn receive(session: &mut Session, message: &Message<'_>) -> Option<Disposition> {
    receive_at(session, TRUST, message)
}

/// Receives a message as the subscriber does. Returns its disposition; `None` if it is for no
/// cache.
fn receive_at(session: &mut Session, now: u64, message: &Message<'_>) -> Option<Disposition> {
    let bytes = Message { id: &fastrand::u64(..).to_string(), ..message.clone() }.encode().unwrap();
    let namespaces = session.namespaces();
    match Message::decode(bytes.strip_prefix(b"HC1M").unwrap(), &namespaces).unwrap() {
        Received::Ours(cache, message) => {
            let classified = session.classify(now, &namespaces, cache, &message).unwrap();
            let disposition = classified.disposition;
            session.on_applied(now, classified, 0.0);
            Some(disposition)
        }
        Received::Foreign { stamp, is_beacon } => {
            assert!(session.on_foreign(now, &namespaces, stamp.as_ref(), is_beacon));
            None
        }
    }
}

fn delete(key: &str) -> MessageKind<'_> {
    MessageKind::Delete { keys: vec![key] }
}

/// Whether a loaded value of `k` with this version vector, by `p`, is admitted by a cache.
fn admits(session: &mut Session, namespace: &str, seq: u64, vector: &[(&str, u64)]) -> bool {
    admits_at(session, TRUST, namespace, seq, vector)
}

fn admits_at(
    session: &mut Session,
    now: u64,
    namespace: &str,
    seq: u64,
    vector: &[(&str, u64)],
) -> bool {
    let context = VersionVector::encode(&[vector, &[("p", seq)]].concat());
    let (keys, context) = (vec!["k"], context.as_deref());
    let (ttl_ms, stale_ms, prime) = (Some(1_000), None, true);
    let kind = MessageKind::Set {
        keys,
        value: b"\x07",
        by_codec: false,
        ttl_ms,
        stale_ms,
        prime,
        context,
    };
    let disposition = receive_at(session, now, &message(namespace, ("p", seq), kind));
    disposition == Some(Disposition::Apply { value_admissible: true })
}

/// The next message: the cache, its number and what it deletes.
fn next(session: &mut Session) -> Option<(CacheId, u64, String)> {
    match session.next_action(TRUST, 0, |_, _| None) {
        SendAction::Message(cache, seq, bytes) => {
            let mut namespaces = Namespaces::default();
            for (id, name) in (0..).zip(["users", "mails", "late"]) {
                namespaces.add(CacheId(id), &Namespace::new(Some(name), false));
            }
            let body = bytes.strip_prefix(b"HC1M").unwrap();
            let Ok(Received::Ours(named, message)) = Message::decode(body, &namespaces) else {
                panic!("not one of ours")
            };
            assert_eq!(named, cache);
            Some((cache, seq, message.kind.deleted_keys().join(",")))
        }
        _ => None,
    }
}

#[test]
fn caches_publish_in_turn_and_their_messages_are_numbered_together() {
    let (mut session, users, mails) = settled();
    for (cache, in_l2) in [(users, InL2::Yes), (users, InL2::No), (mails, InL2::Yes)] {
        let change = Change::invalidation(Arc::from(format!("{in_l2:?}")), false);
        session.push(cache, 0, change, in_l2).unwrap();
    }
    let first = next(&mut session);
    assert_eq!(first, Some((users, 0, "Yes".to_owned())));
    session.on_send_failed();
    assert_eq!(next(&mut session), first, "the same until it is confirmed");
    session.on_sent(TRUST, 1);
    assert_eq!(next(&mut session), first, "another number");
    session.on_sent(TRUST, 0);
    assert_eq!(next(&mut session), Some((mails, 1, "Yes".to_owned())), "not users again");
    push(&mut session, mails, "more");
    session.on_sent(TRUST, 1);
    assert_eq!(next(&mut session), Some((users, 2, "No".to_owned())));
    assert_eq!((session.waiting(users), session.waiting(mails)), (1, 1));
    session.on_sent(TRUST, 2);
    assert_eq!(next(&mut session), Some((mails, 3, "more".to_owned())));
    session.on_sent(TRUST, 3);
    assert!(next(&mut session).is_none() && session.goodbye(0, 0).is_some());
}

#[test]
fn a_beacon_names_the_caches_if_there_are_several() {
    let (mut session, _, mails) = settled();
    let fields = |session: &Session| {
        let bytes = session.goodbye(0, 0).unwrap();
        let namespaces = session.namespaces();
        let body = bytes.strip_prefix(b"HC1M").unwrap();
        let Ok(Received::Ours(_, message)) = Message::decode(body, &namespaces) else {
            panic!("not one of ours")
        };
        let MessageKind::Beacon { caches, .. } = message.kind else { panic!("a beacon") };
        (message.namespace.map(str::to_owned), caches.join(","))
    };
    assert_eq!(fields(&session), (None, "mails,users".to_owned()));
    session.detach(mails);
    assert_eq!(fields(&session), (Some("users".to_owned()), String::new()));
}

#[test]
fn a_peer_with_one_of_the_caches_is_watched_and_the_others_do_not_matter_for_its_values() {
    let (mut session, users, mails) = settled();
    let beacon = |caches| MessageKind::Beacon { hello: false, caches };
    receive(&mut session, &message("", ("p", 0), beacon(vec!["other", "users"])));
    receive(&mut session, &message("", ("q", 4), beacon(vec!["mails", "other"])));
    receive(&mut session, &message("", ("r", 4), beacon(vec!["other", "another"])));
    for (cache, name, is_known) in [
        (users, "p", true),
        (mails, "p", false),
        (users, "q", false),
        (mails, "q", true),
        (users, "r", false),
        (mails, "r", false),
    ] {
        assert_eq!(session.gaps.is_known(cache, name), is_known, "{name}");
    }
    assert!(admits(&mut session, "users", 0, &[]), "p has never heard of q");
    assert!(!admits(&mut session, "mails", 1, &[]));
    assert!(admits(&mut session, "mails", 2, &[("q", 4)]));
    // The number 5 of q was for a cache that this instance does not have.
    assert_eq!(receive(&mut session, &message("other", ("q", 4), delete("k"))), None);
    receive(&mut session, &message("", ("q", 6), beacon(vec!["mails", "other"])));
    session.gaps.request_probe(TRUST + 600);
    session.gaps.probe(TRUST + 600);
    assert_eq!(session.poll_gap(TRUST + 600, 0.0), Some(GapReason::Hole));
}

#[test]
fn a_cache_that_joins_late_admits_no_value_older_than_a_delete_from_before() {
    let (mut session, ..) = settled();
    assert_eq!(receive(&mut session, &message("late", ("b", 7), delete("k"))), None);
    let late = attach_at(&mut session, TRUST, "late");
    // It is not known yet that `b` has the cache.
    assert!(!admits(&mut session, "late", 0, &[("b", 7)]));
    let beacon = MessageKind::Beacon { hello: false, caches: vec!["late", "users"] };
    receive(&mut session, &message("", ("b", 8), beacon));
    let admits =
        |session: &mut Session, seq, vector| admits_at(session, 2 * TRUST, "late", seq, vector);
    assert!(!admits(&mut session, 1, &[("b", 7)]));
    assert!(admits(&mut session, 2, &[("b", 8)]));
    // A delete that was decoded before the cache joined, and is recorded after that.
    let before = session.namespaces();
    let later = attach(&mut session, "later");
    let deleted = message("later", ("b", 8), delete("k"));
    assert!(!session.on_foreign(TRUST, &before, deleted.stamp.as_ref(), false));
    assert!(session.classify(TRUST, &before, later, &deleted).is_none());
    // This instance has deleted the key by a cache of the same name.
    push(&mut session, late, "k");
    next(&mut session);
    session.on_sent(TRUST, 0);
    session.detach(late);
    attach(&mut session, "late");
    assert!(!admits(&mut session, 3, &[("b", 9)]));
    assert!(admits(&mut session, 4, &[("b", 9), ("i7", 1)]));
}

/// Else each message of a newer release for another cache costs these caches their trust.
#[test]
fn a_message_of_another_cache_that_cannot_be_read_is_no_hole() {
    let (mut session, ..) = settled();
    for seq in 0..20 {
        let now = TRUST + seq * 1_000;
        let message =
            message(if seq % 2 == 0 { "users" } else { "other" }, ("b", seq), delete("k"));
        if seq % 2 == 0 {
            receive_at(&mut session, now, &message);
        } else {
            // A field that has another type.
            let bytes = message.encode().unwrap();
            let at = bytes.windows(4).position(|it| it == b"\xa2ts\x00").unwrap();
            let (before, after) = (&bytes[b"HC1M".len()..at + 3], &bytes[at + 4..]);
            let body = [before, b"\xc3", after].concat();
            let mut others = Namespaces::default();
            others.add(CacheId(0), &Namespace::new(Some("other"), false));
            assert!(Message::decode(&body, &others).is_err(), "it is unreadable for its cache");
            let namespaces = session.namespaces();
            let Ok(Received::Foreign { stamp, is_beacon: false }) =
                Message::decode(&body, &namespaces)
            else {
                panic!("it is of another cache");
            };
            assert!(session.on_foreign(now, &namespaces, stamp.as_ref(), false));
        }
        session.gaps.request_probe(now + 900);
        session.gaps.probe(now + 900);
        assert_eq!(session.poll_gap(now + 900, 0.0), None, "{seq}");
    }
}

#[test]
fn names_are_taken_until_the_calls_of_their_cache_have_ended() {
    let (mut session, users, mails) = settled();
    let unnamed = |name: &str| {
        let event_bus = EventBusOptions::default().accept_unnamed(true);
        CacheOptions { event_bus, ..options(name) }
    };
    let attach = |session: &mut Session, options| session.attach(TRUST, &options, false);
    assert_eq!(attach(&mut session, options("users")), Err(AttachRefused::NameTaken));
    let old = attach(&mut session, unnamed("old")).unwrap();
    assert_eq!(attach(&mut session, unnamed("older")), Err(AttachRefused::UnnamedTaken));
    session.release_name(users);
    let new = attach(&mut session, options("users")).unwrap();
    assert_eq!(session.namespaces().find(Some("users")), Some(new));
    session.detach(users);
    assert_eq!(session.namespaces().find(Some("users")), Some(new));
    session.detach(old);
    assert!(attach(&mut session, unnamed("older")).is_ok());
    for number in session.caches.len()..1_024 {
        assert!(attach(&mut session, options(&number.to_string())).is_ok());
    }
    assert_eq!(attach(&mut session, options("more")), Err(AttachRefused::TooMany));
    session.detach(mails);
    assert!(attach(&mut session, options("more")).is_ok());
}

#[test]
fn a_cache_that_leaves_with_something_unpublished_leaves_a_gap_and_nothing_else() {
    let (mut session, users, mails) = settled();
    push(&mut session, users, "sent");
    assert_eq!(next(&mut session), Some((users, 0, "sent".to_owned())));
    push(&mut session, users, "lost");
    push(&mut session, mails, "kept");
    session.rebroadcast_later(TRUST, Name { cache: users, ..key("k") }, 0.5);
    // The message in flight is not lost.
    assert_eq!(session.detach(users), Some((1, 0)));
    assert_eq!(session.detach(users), None);
    assert_eq!(push(&mut session, users, "late"), None);
    assert_eq!(next(&mut session), Some((users, 0, "sent".to_owned())), "its number is used");
    session.on_sent(TRUST, 0);
    assert_eq!(session.caches.len(), 1);
    assert_eq!(next(&mut session), Some((mails, 2, "kept".to_owned())), "1 is missing");
    session.on_sent(TRUST, 2);
    assert_eq!(session.detach(mails), Some((0, 1)));
    assert_eq!((session.caches.len(), session.turns.len(), session.next_seq), (0, 0, 3));
}

#[test]
fn of_a_refused_message_all_parts_are_published_also_if_its_cache_has_left() {
    let (mut session, users, mails) = settled();
    for key in ["aa", "bb", "cc"] {
        push(&mut session, users, key);
    }
    assert_eq!(next(&mut session), Some((users, 0, "aa,bb,cc".to_owned())));
    assert_eq!(session.detach(users), Some((0, 0)));
    assert_eq!(session.on_refused(), AfterRefusal::Replaced);
    let mut sent = Vec::new();
    while let Some((cache, seq, keys)) = next(&mut session) {
        assert_eq!((cache, seq), (users, sent.len() as u64));
        sent.push(keys);
        session.on_sent(TRUST, seq);
    }
    assert_eq!(sent, ["aa", "bb,cc"]);
    assert_eq!(session.caches.len(), 1);
    push(&mut session, mails, "d");
    assert_eq!(next(&mut session), Some((mails, 2, "d".to_owned())));
}

#[test]
fn the_last_cache_loses_the_message_in_flight_too_of_whichever_cache() {
    for leaves_first in [true, false] {
        let (mut session, users, mails) = settled();
        push(&mut session, users, "in flight");
        assert_eq!(next(&mut session), Some((users, 0, "in flight".to_owned())));
        push(&mut session, mails, "waits");
        let (first, last) = if leaves_first { (users, mails) } else { (mails, users) };
        let lost = [first, last].map(|cache| session.detach(cache).unwrap().0);
        assert_eq!(lost, if leaves_first { [0, 2] } else { [1, 1] });
    }
}
