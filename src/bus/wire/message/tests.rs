use std::{borrow::Cow, sync::LazyLock};

use super::*;
use crate::bus::wire::{
    envelope::unwrap_body,
    limits::{MAX_CACHES, MAX_DEPTH, MAX_KEYS, MAX_PAYLOAD, MAX_TEXT},
    namespace::Namespace,
};
use crate::msgpack::{envelope::NIL, reader::Malformed};

static SHOP: LazyLock<Namespaces> = LazyLock::new(|| {
    let mut namespaces = Namespaces::default();
    namespaces.add(CacheId(7), &Namespace::new(Some("shop"), true));
    namespaces
});

fn delete(keys: Vec<&str>) -> Message<'_> {
    Message {
        id: "e1",
        source: "a",
        ts: 1_800_000_000_123,
        generation: None,
        namespace: None,
        stamp: None,
        in_l2: InL2::Yes,
        kind: MessageKind::Delete { keys },
    }
}

fn set(value: &[u8], ttl_ms: Option<u64>) -> MessageKind<'_> {
    MessageKind::Set {
        keys: vec!["k"],
        value,
        by_codec: false,
        ttl_ms,
        stale_ms: None,
        prime: false,
        context: None,
    }
}

/// A value of a codec other than the wire's.
fn of_codec(prime: bool) -> MessageKind<'static> {
    MessageKind::Set {
        keys: vec!["k"],
        value: b"HC1C7",
        by_codec: true,
        ttl_ms: Some(9),
        stale_ms: None,
        prime,
        context: Some(b"\xc0"),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let stamp = Some(SequenceStamp {
        incarnation: "i7",
        seq: 5_000_000_000,
        next_within_ms: Some(1_000),
        idle_ms: Some(70_000),
    });
    let kinds = [
        MessageKind::Delete { keys: vec!["user:1", "", "é"] },
        MessageKind::Pattern { pattern: "user:*" },
        set(b"\x81\xa1a\x92\x01\xc0", Some(60_000)),
        set(NIL, None),
        MessageKind::Set {
            keys: vec!["k"],
            value: NIL,
            by_codec: false,
            ttl_ms: None,
            stale_ms: None,
            prime: true,
            context: Some(b"\x92\xa2i7\x05"),
        },
        of_codec(false),
        of_codec(true),
        MessageKind::Beacon { hello: false, caches: vec![] },
        MessageKind::Beacon { hello: true, caches: vec![] },
        MessageKind::Beacon { hello: true, caches: vec!["mails", "shop"] },
    ];
    let mut samples = Vec::new();
    for kind in kinds {
        let bare = Message { kind, ..delete(vec![]) };
        let full = Message { generation: Some(3), namespace: Some("shop"), stamp, ..bare.clone() };
        let [late, missing] =
            [InL2::Retried, InL2::No].map(|in_l2| Message { in_l2, ..bare.clone() });
        samples.extend([bare, full, late, missing].map(|message| message.encode().unwrap()));
    }
    samples
}

fn receive(payload: &[u8]) -> Result<Received<'_>, DecodeError> {
    match unwrap_body(payload, None)? {
        Cow::Borrowed(body) => Message::decode(body, &SHOP),
        Cow::Owned(_) => panic!("no sample needs unpacking"),
    }
}

fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    match receive(payload)? {
        Received::Ours(_, message) => Ok(message),
        // No sample is of another cache, but a change of its bytes may be.
        Received::Foreign { .. } => Err(DecodeError::UnknownType),
    }
}

/// Encodes a map of these fields, each a value in MessagePack.
fn map(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = MessageWriter::new();
    for (name, value) in fields {
        out.field(name);
        out.bytes.raw(value);
    }
    out.finish().unwrap()
}

#[test]
fn a_message_is_decoded_as_it_was_encoded() {
    for payload in samples() {
        assert_eq!(decode(&payload).unwrap().encode().unwrap(), payload);
    }
}

#[test]
fn a_delete_is_written_as_these_bytes() {
    let message = Message {
        stamp: Some(SequenceStamp {
            incarnation: "i7",
            seq: 2,
            next_within_ms: None,
            idle_ms: None,
        }),
        ..delete(vec!["k"])
    };
    let expected = [
        &b"HC1M\xde\0\x07\xa2id\xa2e1\xa6source\xa1a\xa2ts\xcb"[..],
        &1_800_000_000_123f64.to_be_bytes(),
        b"\xa3inc\xa2i7\xa3seq\x02\xa4type\xa3del\xa4keys\x91\xa1k",
    ]
    .concat();
    assert_eq!(message.encode().unwrap(), expected);
}

#[test]
fn an_invalidation_that_l2_has_not_got_is_written_with_one_more_field() {
    let bytes = |in_l2| Message { in_l2, ..delete(vec!["k"]) }.encode().unwrap();
    let plain = bytes(InL2::Yes);
    let type_at = plain.windows(5).position(|bytes| bytes == b"\xa4type").unwrap();
    for (in_l2, field) in [(InL2::No, &b"\xa2l2\xc2"[..]), (InL2::Retried, b"\xa7retried\xc3")] {
        let mut expected = [&plain[..type_at], field, &plain[type_at..]].concat();
        expected[6] += 1;
        assert_eq!(bytes(in_l2), expected);
    }
    let read = |l2: &[u8], retried: &[u8]| {
        let fields: [(&str, &[u8]); 6] = [
            ("id", b"\xa1x"),
            ("source", b"\xa1s"),
            ("type", b"\xa3del"),
            ("keys", b"\x91\xa1k"),
            ("l2", l2),
            ("retried", retried),
        ];
        decode(&map(&fields)).unwrap().in_l2
    };
    assert_eq!((read(b"\xc2", b"\xc0"), read(b"\xc2", b"\xc3")), (InL2::No, InL2::No));
    for other in [&b"\xc3"[..], b"\xc0", b"\0", b"\x80"] {
        assert_eq!(read(other, b"\xc2"), InL2::Yes);
        assert_eq!(read(other, b"\x01"), InL2::Yes);
        assert_eq!(read(other, b"\xc3"), InL2::Retried);
    }
}

#[test]
fn messages_of_the_typescript_package_are_decoded() {
    let ts = [&[0xcb][..], &1_800_000_000_123f64.to_be_bytes()].concat();
    let half = [&[0xcb][..], &1_500.5f64.to_be_bytes()].concat();
    let payload = map(&[
        ("type", b"\xa3set"),
        ("keys", b"\x91\xa242"),
        ("keyTypes", b"\x91\xa6number"),
        ("more", b"\x82\xa1a\x91\x01\x02\x03"),
        ("value", b"\xd4\0\0"),
        ("ttlMs", &half),
        ("generation", b"\xd4\0\0"),
        ("namespace", b"\xc0"),
        ("ts", &ts),
        ("source", b"\xa2ts"),
        ("id", b"\xa1x"),
    ]);
    let expected = Message {
        id: "x",
        source: "ts",
        kind: MessageKind::Set {
            keys: vec!["42"],
            value: b"\xd4\0\0",
            by_codec: false,
            ttl_ms: Some(1_500),
            stale_ms: None,
            prime: false,
            context: None,
        },
        ..delete(vec![])
    };
    assert_eq!(decode(&payload), Ok(expected.clone()));
    assert_eq!(decode(&payload[4..]), Ok(expected), "without a prefix");
}

#[test]
fn a_value_of_another_codec_is_a_delete_for_readers_that_know_no_such_values() {
    for (prime, keys) in [
        (false, &b"\xa4keys\x91\xa1k\xa3raw\xc4\x05HC1C7"[..]),
        (true, b"\xa4keys\x90\xa3raw\xc4\x05HC1C7\xa7rawKeys\x91\xa1k"),
    ] {
        let bytes = Message { kind: of_codec(prime), ..delete(vec![]) }.encode().unwrap();
        let begins = [b"\xa4type\xa3del", keys].concat();
        assert!(bytes.windows(begins.len()).any(|part| part == begins), "{bytes:x?}");
    }
    let read = |fields: &[(&str, &[u8])]| {
        let begin: [(&str, &[u8]); 3] =
            [("id", b"\xa1x"), ("source", b"\xa1s"), ("type", b"\xa3del")];
        let payload = map(&[&begin, fields].concat());
        let message = decode(&payload).unwrap();
        (message.kind.deleted_keys().join(","), matches!(message.kind, MessageKind::Set { .. }))
    };
    let raw: (&str, &[u8]) = ("raw", b"\xc4\x01x");
    let keys: (&str, &[u8]) = ("keys", b"\x91\xa1k");
    assert_eq!(read(&[keys, raw, ("rawKeys", b"\x91\xa1z")]), ("k".to_owned(), true));
    assert_eq!(read(&[keys, ("raw", b"\xa1x")]), ("k".to_owned(), false), "no bytes");
    assert_eq!(read(&[("keys", b"\x90"), ("rawKeys", b"\x91\xa1z")]), (String::new(), false));
}

#[test]
fn a_beacon_is_a_delete_of_no_keys_for_readers_that_know_no_beacons() {
    let kind = MessageKind::Beacon { hello: true, caches: vec![] };
    let beacon = Message { kind, ..delete(vec![]) };
    let bytes = beacon.encode().unwrap();
    assert!(bytes.ends_with(b"\xa4type\xa3del\xa4keys\x90\xa6beacon\xa5hello"), "{bytes:x?}");
    let read = |beacon: &[u8], keys: &[u8]| {
        let fields: [(&str, &[u8]); 5] = [
            ("id", b"\xa1x"),
            ("source", b"\xa1s"),
            ("type", b"\xa3del"),
            ("keys", keys),
            ("beacon", beacon),
        ];
        decode(&map(&fields)).map(|message| format!("{:?}", message.kind)).unwrap()
    };
    assert_eq!(read(b"\xc3", b"\x90"), "Beacon { hello: false, caches: [] }");
    assert_eq!(read(b"\xc3", b"\x91\xa1k"), r#"Delete { keys: ["k"] }"#);
    assert_eq!(read(b"\x90", b"\x90"), "Delete { keys: [] }");
}

#[test]
fn fields_of_other_types_are_no_sequence_stamp() {
    let long = [&b"\xd9\x41"[..], &[b'x'; 65]].concat();
    for (inc, seq) in [
        (&b"\x01"[..], &b"\x01"[..]),
        (b"\xa1i", b"\x91\xa1x"),
        (b"\x80", b"\x07"),
        (&long, b"\x07"),
    ] {
        let payload = map(&[
            ("inc", inc),
            ("seq", seq),
            ("due", b"\x90"),
            ("id", b"\xa1x"),
            ("source", b"\xa1s"),
            ("type", b"\xa3del"),
            ("keys", b"\x91\xa1k"),
        ]);
        let message = decode(&payload).unwrap();
        assert_eq!((message.stamp, message.kind), (None, MessageKind::Delete { keys: vec!["k"] }));
    }
}

#[test]
fn a_refused_message_has_an_error_that_says_why() {
    let base: [(&str, &[u8]); 4] =
        [("id", b"\xa1x"), ("source", b"\xa1s"), ("type", b"\xa3del"), ("keys", b"\x90")];
    let with = |name: &'static str, value: &[u8]| {
        let mut fields: Vec<_> = base.iter().filter(|field| field.0 != name).copied().collect();
        if !value.is_empty() {
            fields.push((name, value));
        }
        decode(&map(&fields)).unwrap_err()
    };
    for name in ["id", "source", "type", "keys"] {
        assert_eq!(with(name, b""), DecodeError::Missing(name));
        assert_eq!(with(name, b"\xc0"), DecodeError::Missing(name));
        assert_eq!(with(name, b"\x01"), DecodeError::WrongType(name));
    }
    assert_eq!(with("keys", b"\x91\x01"), DecodeError::WrongType("keys"));
    assert_eq!(with("id", b"\xa1\xff"), DecodeError::WrongType("id"));
    assert_eq!(with("ts", b"\xa1x"), DecodeError::WrongType("ts"));
    assert_eq!(with("type", b"\xa4tags"), DecodeError::UnknownType);
    assert_eq!(with("type", b"\xa3set"), DecodeError::Missing("value"));
    assert_eq!(with("type", b"\xa7pattern"), DecodeError::Missing("pattern"));
    assert_eq!(with("keys", &[0xdc, 0x10, 0x01]), DecodeError::TooManyKeys);
    assert_eq!(with("keys", &[0xdd, 0xff, 0xff, 0xff, 0xff]), DecodeError::TooManyKeys);
    for name in ["id", "source", "pattern", "namespace"] {
        let long = [&[0xdb, 0, 1, 0, 1][..], &[b'x'; 65_537]].concat();
        assert_eq!(with(name, &long), DecodeError::TooLong(name));
    }
    let deep = [vec![0x91; 200], vec![0]].concat();
    assert_eq!(with("more", &deep), DecodeError::NotMessagePack(Malformed::TooDeep));
    assert_eq!(decode(b"HC1G\x1f"), Err(DecodeError::UnknownTag(b'G')));
    assert_eq!(decode(b"{\"id\":1}"), Err(DecodeError::NotAMap));
    assert_eq!(decode(b"HC1M\x93"), Err(DecodeError::NotAMap));
    assert_eq!(decode(b"HC1M\x81\x01\x01"), Err(DecodeError::NotAMap));
    assert_eq!(decode(b""), Err(DecodeError::NotAMap));
    let trailing = [map(&base), vec![0]].concat();
    assert_eq!(decode(&trailing), Err(DecodeError::NotMessagePack(Malformed::Trailing)));
    assert_eq!(decode(&vec![0; MAX_PAYLOAD + 1]), Err(DecodeError::TooLarge));
}

#[test]
fn a_message_that_readers_refuse_is_not_encoded() {
    let long = "x".repeat(MAX_TEXT + 1);
    assert_eq!(delete(vec![&long]).encode(), Err(DecodeError::TooLong("keys")));
    assert_eq!(delete(vec!["k"; MAX_KEYS + 1]).encode(), Err(DecodeError::TooManyKeys));
    assert!(delete(vec!["k"; MAX_KEYS]).encode().is_ok());
    let set = |value| Message { kind: set(value, None), ..delete(vec![]) };
    for value in [&b""[..], b"\x01\x01", b"\x91", b"\xc1"] {
        assert!(matches!(set(value).encode(), Err(DecodeError::NotMessagePack(_))));
    }
    let huge = [&[0xc6, 2, 0, 0, 0][..], &vec![0; 32 << 20]].concat();
    assert_eq!(set(&huge).encode(), Err(DecodeError::TooLarge));
}

#[test]
fn no_bytes_cause_a_panic_or_unbounded_allocation() {
    let samples = samples();
    let mut random = fastrand::Rng::with_seed(11);
    let mut read = 0;
    for round in 0..200_000 {
        let mut bytes = samples[round % samples.len()].clone();
        for _ in 0..random.usize(1..5) {
            let at = random.usize(4..bytes.len());
            match random.u8(..6) {
                0 if bytes.len() > 5 => drop(bytes.remove(at)),
                1 => bytes.insert(at, random.u8(..)),
                2 => bytes.truncate(at + 1),
                3 => bytes[at] = random.choice([0xdd, 0xdf, 0xdb, 0xc6, 0xdc, 0xc1]).unwrap(),
                _ => bytes[at] ^= 1 << random.u8(..8),
            }
        }
        let mut result = Ok(());
        let used = allocation_counter::measure(|| result = receive(&bytes).map(|_| read += 1));
        // The list of keys, and the nesting of a value.
        let most = MAX_KEYS * size_of::<&str>() + 2 * 8 * MAX_DEPTH;
        assert!(used.bytes_max <= 2 * most as u64, "{used:?} for {bytes:x?}");
        if let (Ok(()), Ok(Received::Ours(_, message))) = (result, receive(&bytes)) {
            // A decoded message can be encoded again, in one way.
            let again = message.encode().unwrap();
            assert_eq!(decode(&again).unwrap(), message);
        }
    }
    assert!((1_000..199_000).contains(&read), "{read} of the mutations were still messages");
}

#[test]
fn of_a_message_of_another_cache_only_the_number_is_read() {
    let stamp =
        SequenceStamp { incarnation: "i7", seq: 5, next_within_ms: Some(1_000), idle_ms: None };
    for (kind, is_beacon) in [
        (MessageKind::Delete { keys: vec!["k"] }, false),
        (MessageKind::Beacon { hello: true, caches: vec![] }, true),
    ] {
        let theirs =
            Message { namespace: Some("mine"), stamp: Some(stamp), kind, ..delete(vec![]) };
        let bytes = theirs.encode().unwrap();
        assert_eq!(receive(&bytes), Ok(Received::Foreign { stamp: Some(stamp), is_beacon }));
    }
    // What this release cannot read is not for it.
    for (name, value) in
        [("type", &b"\xa4tags"[..]), ("keys", b"\x07"), ("id", b"\x07"), ("ts", b"\xa1x")]
    {
        let fields = [(name, value), ("namespace", &b"\xa4mine"[..])];
        let foreign = Ok(Received::Foreign { stamp: None, is_beacon: false });
        assert_eq!(receive(&map(&fields)), foreign, "{name}");
        assert!(receive(&map(&[(name, value)])).is_err(), "{name}");
    }
}

#[test]
fn a_beacon_of_several_caches_is_for_each_of_them() {
    let beacon = |caches: Vec<&'static str>| {
        let kind = MessageKind::Beacon { hello: true, caches };
        Message { namespace: None, kind, ..delete(vec![]) }
    };
    for (caches, is_ours) in
        [(vec!["shop"], true), (vec!["mails", "shop"], true), (vec!["mails", "users"], false)]
    {
        let message = beacon(caches);
        let bytes = message.encode().unwrap();
        let expected = match is_ours {
            true => Received::Ours(CacheId(7), message),
            false => Received::Foreign { stamp: None, is_beacon: true },
        };
        assert_eq!(receive(&bytes), Ok(expected));
    }
    let many = beacon(vec!["mails"; MAX_CACHES + 1]).encode().unwrap();
    assert_eq!(receive(&many), Ok(Received::Ours(CacheId(7), beacon(vec![]))), "ignored");
}
