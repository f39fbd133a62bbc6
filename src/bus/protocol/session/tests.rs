use super::*;
use crate::bus::wire::message::Received;

fn decode(bytes: &[u8]) -> Message<'_> {
    let namespace = Namespace::new(None, false);
    match Message::decode(bytes.strip_prefix(b"HC1M").unwrap(), &namespace).unwrap() {
        Received::Ours(message) => message,
        Received::Foreign { .. } => panic!("it has no namespace"),
    }
}

#[test]
fn messages_have_ids_of_their_own_and_beacons_share_one() {
    let id = |incarnation: &str, seq, kind| {
        let (source, incarnation) = ("a".to_owned(), Arc::from(incarnation));
        let identity = Identity { source, namespace: Namespace::new(None, false), incarnation };
        let bytes = identity.encode(0, seq, None, None, InL2::Yes, kind).unwrap();
        decode(&bytes).id.to_owned()
    };
    let delete = |seq| id("i7", seq, MessageKind::Delete { keys: vec!["k"] });
    let beacon = |incarnation, seq| {
        id(incarnation, seq, MessageKind::Beacon { hello: false, subscription: None })
    };
    assert_ne!(delete(1), delete(2));
    assert_eq!(beacon("i7", 1), beacon("i7", 2));
    assert_ne!(beacon("i7", 1), beacon("i8", 1));
}

#[test]
fn deletes_that_waited_together_carry_a_generation_each() {
    let options = CacheOptions::default();
    let mut session = Session::new("i7", "a".to_owned(), &options, true);
    for key in ["j", "k"] {
        session.outbox.push(0, Change::invalidation(Arc::from(key), false), InL2::Yes);
    }
    for generation in [5, 6] {
        let action = session.next_action(0, 0, |key| Some(if key == "j" { 5 } else { 6 }));
        let SendAction::Message(seq, bytes) = action else { panic!("a delete is queued") };
        let message = decode(&bytes);
        assert_eq!(message.generation, Some(generation));
        session.on_sent(0, seq);
    }
}

#[test]
fn an_invalidation_of_a_peer_is_broadcast_again_after_a_random_time() {
    let mut session = Session::new("i7", "a".to_owned(), &CacheOptions::default(), false);
    let next = |session: &mut Session, now| match session.next_action(now, 0, |_| None) {
        SendAction::Message(seq, bytes) => {
            let message = decode(&bytes);
            session.on_sent(now, seq);
            (Some((message.in_l2, message.kind.deleted_keys().len())), None)
        }
        SendAction::Wait(until) => (None, until),
        SendAction::Beacon(_) => panic!("nothing was received"),
    };
    assert_eq!(next(&mut session, 0), (None, None));
    for (key, random) in [("a", 0.2), ("b", 0.1), ("c", 0.6)] {
        session.rebroadcast_later(1_000, (Arc::from(key), false), random);
    }
    assert!(session.is_publisher_late(), "it waits for ever");
    assert_eq!(next(&mut session, 1_000), (None, Some(1_050)));
    assert!(!session.is_publisher_late());
    assert_eq!(next(&mut session, 1_100), (Some((InL2::Retried, 2)), None));
    assert!(session.rebroadcasts.on_received(1_100, &(Arc::from("c"), false)));
    let action = session.next_action(1_400, 0, |_| None);
    assert!(!matches!(action, SendAction::Message(..)), "a peer has sent it");
}

#[test]
fn no_beacon_is_sent_while_a_message_waits_to_be_published() {
    let mut session = Session::new("i7", "a".to_owned(), &CacheOptions::default(), false);
    let push = |session: &mut Session, key| {
        session.outbox.push(0, Change::invalidation(Arc::from(key), false), InL2::Yes)
    };
    push(&mut session, "j");
    let SendAction::Message(seq, _) = session.next_action(0, 0, |_| None) else { panic!("queued") };
    session.on_sent(0, seq);
    assert!(session.goodbye(0).is_some());
    push(&mut session, "k");
    assert!(session.goodbye(0).is_none());
    for now in [300, 1_500, 25_000] {
        session.on_subscribed(now, false, 0.0);
        let action = session.next_action(now, 0, |_| None);
        assert!(matches!(action, SendAction::Message(1, _)), "{action:?}");
        session.outbox.on_refused();
        assert!(session.goodbye(now).is_none());
        assert!(!matches!(session.try_next_action(now, 0, |_| None), Some(SendAction::Beacon(_))));
    }
    session.on_sent(30_000, 1);
    assert!(matches!(session.next_action(30_000, 0, |_| None), SendAction::Beacon(_)));
}
