use std::sync::LazyLock;

use super::*;
use crate::{
    bus::{
        protocol::{identity::Place, outbox::Change},
        wire::{
            message::{InL2, Received},
            namespace::Namespace,
        },
    },
    options::CacheOptions,
};

/// The first cache of a session.
const A: CacheId = CacheId(0);

static UNNAMED: LazyLock<Namespaces> = LazyLock::new(|| {
    let mut namespaces = Namespaces::default();
    namespaces.add(A, &Namespace::new(None, false));
    namespaces
});

fn decode(bytes: &[u8]) -> Message<'_> {
    match Message::decode(bytes.strip_prefix(b"HC1M").unwrap(), &UNNAMED).unwrap() {
        Received::Ours(_, message) => message,
        Received::Foreign { .. } => panic!("it has no namespace"),
    }
}

/// A session with one cache, which has no name.
fn session(sends_generations: bool) -> Session {
    let mut session = empty();
    session.attach(0, &CacheOptions::default(), sends_generations).unwrap();
    session
}

pub(super) fn empty() -> Session {
    Session::new("i7", "a".to_owned(), 3_000, &EventDedupe::default())
}

pub(super) fn push(session: &mut Session, cache: CacheId, key: &str) -> Option<u64> {
    session.push(cache, 0, Change::invalidation(Arc::from(key), false), InL2::Yes)
}

pub(super) fn key(text: &str) -> Name {
    Name { cache: A, text: Arc::from(text), is_pattern: false }
}

#[test]
fn messages_have_ids_of_their_own_and_beacons_share_one() {
    let id = |incarnation: &str, seq, kind| {
        let (source, incarnation) = ("a".to_owned(), Arc::from(incarnation));
        let identity = Identity { source, incarnation };
        let place = Place { seq, ..Place::default() };
        let bytes = identity.encode(None, 0, &place, None, InL2::Yes, kind).unwrap();
        decode(&bytes).id.to_owned()
    };
    let delete = |seq| id("i7", seq, MessageKind::Delete { keys: vec!["k"] });
    let beacon = |incarnation, seq| {
        id(incarnation, seq, MessageKind::Beacon { hello: false, caches: vec![] })
    };
    assert_ne!(delete(1), delete(2));
    assert_eq!(beacon("i7", 1), beacon("i7", 2));
    assert_ne!(beacon("i7", 1), beacon("i8", 1));
}

#[test]
fn deletes_that_waited_together_carry_a_generation_each() {
    let mut session = session(true);
    for key in ["j", "k"] {
        push(&mut session, A, key);
    }
    for generation in [5, 6] {
        let action = session.next_action(0, 0, |_, key| Some(if key == "j" { 5 } else { 6 }));
        let SendAction::Message(_, seq, bytes) = action else { panic!("a delete is queued") };
        let message = decode(&bytes);
        assert_eq!(message.generation, Some(generation));
        session.on_sent(0, seq);
    }
}

#[test]
fn an_invalidation_of_a_peer_is_broadcast_again_after_a_random_time() {
    let mut session = session(false);
    let next = |session: &mut Session, now| loop {
        match session.next_action(now, 0, |_, _| None) {
            SendAction::Message(_, seq, bytes) => {
                let message = decode(&bytes);
                session.on_sent(now, seq);
                return (Some((message.in_l2, message.kind.deleted_keys().len())), None);
            }
            SendAction::Wait(until) => return (None, until),
            SendAction::Beacon(_) => session.on_beacon_tried(now, true, 0.0),
        }
    };
    assert_eq!(next(&mut session, 0), (None, Some(1_000)), "the next beacon");
    for (key, random) in [("a", 0.2), ("b", 0.1), ("c", 0.6)] {
        session.rebroadcast_later(1_000, tests::key(key), random);
    }
    assert_eq!(next(&mut session, 1_000), (None, Some(1_050)));
    assert!(!session.is_publisher_late());
    assert_eq!(next(&mut session, 1_100), (Some((InL2::Retried, 2)), None));
    assert!(session.on_rebroadcast(1_100, &key("c")));
    let action = session.next_action(1_400, 0, |_, _| None);
    assert!(!matches!(action, SendAction::Message(..)), "a peer has sent it");
}

#[test]
fn no_beacon_is_sent_while_a_message_waits_to_be_published() {
    let mut session = session(false);
    push(&mut session, A, "j");
    let SendAction::Message(_, seq, _) = session.next_action(0, 0, |_, _| None) else {
        panic!("queued")
    };
    session.on_sent(0, seq);
    assert!(session.goodbye(0, 0).is_some());
    push(&mut session, A, "k");
    assert!(session.goodbye(0, 0).is_none());
    for now in [300, 1_500, 25_000] {
        session.on_subscribed(now, false);
        let action = session.next_action(now, 0, |_, _| None);
        assert!(matches!(action, SendAction::Message(_, 1, _)), "{action:?}");
        session.on_refused();
        assert!(session.goodbye(now, 0).is_none());
        assert!(!matches!(
            session.try_next_action(now, 0, |_, _| None),
            Some(SendAction::Beacon(_))
        ));
    }
    session.on_sent(30_000, 1);
    assert!(matches!(session.next_action(30_000, 0, |_, _| None), SendAction::Beacon(_)));
}

#[test]
fn a_message_says_how_long_ago_the_one_before_it_was_published() {
    let mut session = session(false);
    let mut idle = |now, has_message| {
        if has_message {
            push(&mut session, A, "k");
        }
        let bytes = match session.next_action(now, 0, |_, _| None) {
            SendAction::Message(_, seq, bytes) => {
                // The bus takes ten milliseconds.
                session.on_sent(now + 10, seq);
                bytes
            }
            SendAction::Beacon(bytes) => {
                session.on_beacon_tried(now, true, 0.0);
                bytes
            }
            SendAction::Wait(_) => panic!("something is due"),
        };
        let stamp = decode(&bytes).stamp.unwrap();
        assert_eq!(stamp.next_within_ms, Some(1_000));
        (stamp.seq, stamp.idle_ms)
    };
    assert_eq!(idle(0, false), (0, None));
    assert_eq!((idle(100, true), idle(300, true)), ((0, None), (1, Some(190))));
    assert_eq!((idle(1_310, false), idle(9_310, true)), ((2, Some(1_000)), (2, Some(9_000))));
}
