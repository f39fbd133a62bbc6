//! The wire format against real JavaScript: tests/fixtures/wire/generate.mjs wrote the payloads
//! that these tests read, and check.mjs there reads the payloads that these tests write.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    io::Write,
    net::IpAddr,
    process::Command,
};

use lazy_layers_cache::{BoxError, Codec, WireCodec, WireEncoding, WireLimits};
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned, ser::SerializeSeq};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};

pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    expected: Option<Value>,
}

/// Returns the payloads that JavaScript has written.
pub(crate) fn vectors() -> Vec<Vector> {
    #[derive(Deserialize)]
    struct Line {
        name: String,
        hex: String,
        #[serde(default, deserialize_with = "present")]
        json: Option<Value>,
        content: Option<String>,
    }
    // A null counts as present.
    fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(value).map(Some)
    }
    let lines: Vec<Line> =
        serde_json::from_str(include_str!("../fixtures/wire/vectors.json")).unwrap();
    let large = |content: &str| match content {
        "listing" => listing(),
        "text" => json!("ä".repeat(40_000)),
        "array" => json!(vec![7; 70_000]),
        other => panic!("no content {other}"),
    };
    lines
        .into_iter()
        .map(|line| Vector {
            bytes: from_hex(&line.hex),
            expected: line.json.or(line.content.as_deref().map(large)),
            name: line.name,
        })
        .collect()
}

fn vector(name: &str) -> Vec<u8> {
    vectors().into_iter().find(|vector| vector.name == name).expect(name).bytes
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn listing() -> Value {
    let product = |i: u64| {
        let at = 1_700_000_000_000 + i;
        json!({ "id": i, "name": format!("Product {i}"), "price": 19.99, "at": at })
    };
    json!({ "page": 1, "items": (0..1_500).map(|i| product(i % 10)).collect::<Vec<_>>() })
}

fn decode<V: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<V, BoxError> {
    WireCodec::new().decode(bytes)
}

fn encode<V: Serialize + DeserializeOwned>(value: &V) -> Vec<u8> {
    WireCodec::new().encode(value).unwrap()
}

/// Encodes and decodes the value, in MessagePack and in JSON.
fn round_trips<V: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &V) {
    assert_eq!(decode::<V>(&encode(value)).unwrap(), *value);
    let json = WireCodec::new().json();
    assert_eq!(decode::<V>(&json.encode(value).unwrap()).unwrap(), *value);
}

fn packed(body: &[u8]) -> Vec<u8> {
    [b"HC1M", body].concat()
}

#[test]
fn payloads_of_javascript_are_read() {
    let vectors = vectors();
    assert!(vectors.len() > 70);
    for Vector { name, bytes, expected } in vectors {
        let read = decode::<Value>(&bytes);
        match expected {
            Some(expected) => assert_eq!(read.unwrap(), expected, "{name}"),
            None => assert!(read.is_err(), "{name}: {read:?}"),
        }
    }
}

#[test]
fn integers_are_read_as_any_integer_or_float_type() {
    let time = vector("integer 1700000000000");
    assert_eq!(time[4], 0xcb, "a double");
    assert_eq!(decode::<u64>(&time).unwrap(), 1_700_000_000_000);
    assert_eq!(decode::<i64>(&time).unwrap(), 1_700_000_000_000);
    assert_eq!(decode::<i128>(&time).unwrap(), 1_700_000_000_000);
    assert_eq!(decode::<f64>(&time).unwrap(), 1_700_000_000_000.0);
    assert_eq!(decode::<Option<u64>>(&time).unwrap(), Some(1_700_000_000_000));
    decode::<u32>(&time).unwrap_err();
    let negative = vector("integer -9007199254740991");
    assert_eq!(decode::<i64>(&negative).unwrap(), -9_007_199_254_740_991);
    decode::<u64>(&negative).unwrap_err();
    // A small double, which JavaScript does not write, is read as an integer too.
    let two = packed(&[&[0xcb][..], &2.0_f64.to_be_bytes()].concat());
    assert_eq!(decode::<u8>(&two).unwrap(), 2);
    assert_eq!(decode::<Value>(&two).unwrap(), json!(2.0));
    decode::<u8>(&vector("float 0.5")).unwrap_err();
    let beyond = packed(&[&[0xcb][..], &9_007_199_254_740_994.0_f64.to_be_bytes()].concat());
    decode::<u64>(&beyond).unwrap_err();

    // The same through types that buffer the value before they decode it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Stamp,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Stamp {
        ts: u64,
    }
    let object = vector("object with dates and big numbers");
    assert_eq!(decode::<Flat>(&object).unwrap().inner.ts, 1_700_000_000_123);
}

#[test]
fn undefined_is_none() {
    let undefined = vector("undefined");
    assert_eq!(&undefined[4..], [0xd4, 0, 0]);
    assert_eq!(decode::<Option<u32>>(&undefined).unwrap(), None);
    decode::<()>(&undefined).unwrap();
    decode::<u32>(&undefined).unwrap_err();
    let object: BTreeMap<String, Option<u8>> = decode(&vector("object with undefined")).unwrap();
    assert_eq!(object, BTreeMap::from([("a".to_owned(), None), ("b".to_owned(), Some(1))]));
}

#[test]
fn a_date_is_read_as_text_or_as_milliseconds() {
    for (name, text, millis) in [
        ("date", "2023-11-14T22:13:20.000Z", 1_700_000_000_000),
        ("date with milliseconds", "2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("date before 1970", "1969-12-31T23:59:59.999Z", -1_i64),
        ("date far away", "9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ] {
        let date = vector(name);
        assert_eq!(decode::<String>(&date).unwrap(), text);
        assert_eq!(decode::<i64>(&date).unwrap(), millis);
        assert_eq!(decode::<u64>(&date).ok(), u64::try_from(millis).ok());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let float = millis as f64;
        assert_eq!(decode::<f64>(&date).unwrap(), float);
        let chrono: chrono::DateTime<chrono::Utc> = decode(&date).unwrap();
        assert_eq!(chrono.timestamp_millis(), millis);
        round_trips(&chrono);
    }
    let invalid = vector("invalid date");
    assert_eq!(decode::<Option<String>>(&invalid).unwrap(), None);
    decode::<String>(&invalid).unwrap_err();
}

#[test]
fn binary_data_is_read_as_bytes_or_as_a_list() {
    let bytes = vector("bytes");
    assert_eq!(decode::<Vec<u8>>(&bytes).unwrap(), [0, 1, 254, 255]);
    assert_eq!(decode::<ByteBuf>(&bytes).unwrap(), [0, 1, 254, 255]);
    assert_eq!(decode::<[u8; 4]>(&bytes).unwrap(), [0, 1, 254, 255]);
    decode::<[u8; 3]>(&bytes).unwrap_err();
    assert_eq!(encode(&ByteBuf::from([7])), packed(&[0xc4, 1, 7]));
    assert_eq!(encode(&ByteBuf::new()), packed(&[0xc4, 0]));
    round_trips(&ByteBuf::from(vec![9; 70_000]));
    round_trips(&vec![1_u8, 200]);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        inner: Both,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        list: Vec<u8>,
        bytes: ByteBuf,
    }
    let flat = b"HC1M\x82\xa4list\xc4\x02\x01\x02\xa5bytes\xc4\x01\x03";
    let inner = Both { list: vec![1, 2], bytes: ByteBuf::from([3]) };
    assert_eq!(decode::<Flat>(flat).unwrap(), Flat { inner });
}

#[test]
fn keys_are_read_as_text_or_as_numbers() {
    for name in ["object with number keys", "map with number keys"] {
        let bytes = vector(name);
        let texts: BTreeMap<String, String> = decode(&bytes).unwrap();
        let numbers: BTreeMap<i64, String> = decode(&bytes).unwrap();
        assert_eq!(numbers.len(), 2);
        let as_text = numbers.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        assert_eq!(texts, as_text);
    }
    let numbers = HashMap::from([(7_u64, 1)]);
    assert_eq!(encode(&numbers), packed(&[0x81, 7, 1]));
    round_trips(&numbers);
    round_trips(&HashMap::from([(-7_i128, 1), (i128::MIN, 2), (1 << 40, 3)]));
    round_trips(&HashMap::from([(u64::MAX, 1)]));
    round_trips(&HashMap::from([(u128::MAX, 1), (u128::from(u64::MAX), 2), (0, 3)]));
    round_trips(&HashMap::from([(true, 1)]));
    round_trips(&HashMap::from([('ü', 1)]));
    round_trips(&HashMap::from([(Side::Left, 1)]));
    let refused = HashMap::from([((1, 2), 3)]);
    assert!(WireCodec::new().serialize_with_stats(&refused).is_err(), "no key in JavaScript");
}

#[derive(Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Side {
    Left,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Empty,
    Circle(f64),
    Line(i32, i32),
    Box { width: u32 },
    Not(Option<u8>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Late { ts: u64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u64),
    Text(String),
    Nothing,
}

#[test]
fn types_have_the_same_form_as_in_json() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Meters(u32);
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(encode(&address), packed(b"\xa810.0.0.1"));
    assert_eq!(encode(&Unit), encode(&None::<u8>));
    assert_eq!(encode(&Meters(5)), packed(&[5]));
    macro_rules! as_json {
        ($($value:expr),* $(,)?) => {$({
            round_trips(&$value);
            let json: Value = serde_json::to_value(&$value).unwrap();
            assert_eq!(decode::<Value>(&encode(&$value)).unwrap(), json);
        })*};
    }
    as_json!(
        address,
        Unit,
        Meters(5),
        (1, "two".to_owned(), [3.5, 4.5]),
        'ü',
        Shape::Empty,
        Shape::Circle(1.5),
        Shape::Line(-1, 70_000),
        Shape::Box { width: 3 },
        Shape::Not(None),
        Tagged::Late { ts: 1 << 40 },
        Either::Number(1 << 40),
        Either::Text("x".to_owned()),
        Either::Nothing,
        vec![Some(1), None],
        vec![Shape::Line(1, 2), Shape::Box { width: 3 }, Shape::Empty],
    );
}

#[test]
fn structs_are_never_read_by_position() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Pair {
        a: u8,
        b: u8,
    }
    decode::<Pair>(b"HC1M\x92\x01\x02").unwrap_err();
    let pair: Pair = decode(b"HC1M\x83\xa1c\x92\x01\x80\xa1b\x02\xa1a\x01").unwrap();
    assert_eq!((pair.a, pair.b), (1, 2));
}

#[test]
fn integers_are_written_as_javascript_writes_them() {
    for vector in vectors().iter().filter(|vector| vector.name.starts_with("integer ")) {
        let number: i64 = vector.name["integer ".len()..].parse().unwrap();
        assert_eq!(encode(&number), vector.bytes, "{number}");
        round_trips(&number);
    }
    for number in [u64::MAX, (1 << 53) + 1] {
        assert_eq!(encode(&number)[4], 0xcf, "a BigInt, as nothing else has all digits");
        round_trips(&number);
    }
    round_trips(&i64::MIN);
    assert!(WireCodec::new().serialize_with_stats(&i128::MAX).is_err());
    assert!(WireCodec::new().serialize_with_stats(&u128::MAX).is_err());
}

/// Returns payloads, each with a JavaScript expression of the same value.
fn for_javascript() -> Vec<(&'static str, Vec<u8>, String)> {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct User {
        id: u64,
        name: String,
        tags: Vec<String>,
        admin: Option<bool>,
    }
    let user = User { id: 7, name: "Ünn 🦀".into(), tags: vec!["a".into()], admin: None };
    let user_js = "{ id: 7, name: 'Ünn 🦀', tags: ['a'], admin: null }";
    let large = listing();
    let large_js = large.to_string();
    let codec = WireCodec::new();
    let shapes = vec![Shape::Empty, Shape::Line(1, 2), Shape::Box { width: 3 }];
    vec![
        ("struct", encode(&user), user_js.to_owned()),
        ("struct in JSON", codec.json().encode(&user).unwrap(), user_js.to_owned()),
        ("null", encode(&None::<User>), "null".to_owned()),
        (
            "text of a null",
            encode(&"__hybridcache_null__".to_owned()),
            "'__hybridcache_null__'".to_owned(),
        ),
        ("time in milliseconds", encode(&1_700_000_000_123_u64), "1700000000123".to_owned()),
        ("large integer", encode(&u64::MAX), "18446744073709551615n".to_owned()),
        ("negative", encode(&-40_000_000_000_i64), "-40000000000".to_owned()),
        ("float", encode(&-0.5), "-0.5".to_owned()),
        ("enums", encode(&shapes), "['Empty', { Line: [1, 2] }, { Box: { width: 3 } }]".to_owned()),
        ("number keys", encode(&HashMap::from([(7, "x".to_owned())])), "{ 7: 'x' }".to_owned()),
        (
            "more keys",
            [
                b"HC1M\x83".to_vec(),
                encode(&BTreeMap::from([(-40_000_000_000_i64, 1)])).split_off(5),
                encode(&BTreeMap::from([(u64::MAX, 2)])).split_off(5),
                encode(&BTreeMap::from([(true, 3)])).split_off(5),
            ]
            .concat(),
            "{ '-40000000000': 1, '18446744073709551615': 2, true: 3 }".to_owned(),
        ),
        ("bytes", encode(&ByteBuf::from([1, 2])), "Buffer.from([1, 2])".to_owned()),
        ("address", encode(&"::1".parse::<IpAddr>().unwrap()), "'::1'".to_owned()),
        ("gzip", encode(&large), large_js.clone()),
        ("zstd", codec.zstd_from(0).encode(&large).unwrap(), large_js.clone()),
        ("lz4", codec.lz4_from(100_000).encode(&large).unwrap(), large_js),
    ]
}

/// Writes the payloads to the file that check.mjs requests, and reads them with another decoder.
#[test]
fn written_payloads_are_read_by_other_decoders() {
    let vectors = for_javascript();
    for (name, bytes, _) in vectors.iter().filter(|(_, bytes, _)| bytes.starts_with(b"HC1M")) {
        let theirs: Value = match rmp_serde::from_slice(&bytes[4..]) {
            Ok(Value::String(text)) if text == "__hybridcache_null__" => Value::Null,
            Ok(value) => value,
            // The other decoder does not read a number as the name of a property.
            Err(_) if name.ends_with(" keys") => continue,
            // Nor bytes as a list.
            Err(_) => json!(rmp_serde::from_slice::<ByteBuf>(&bytes[4..]).unwrap()),
        };
        let ours = decode::<Value>(bytes).unwrap();
        // The other decoder reads a double as a double.
        let number = |value: &Value| value.as_f64().map(f64::to_bits);
        assert!(ours == theirs || number(&ours) == number(&theirs), "{name}: {theirs}");
    }
    if let Some(path) = env::var_os("WIRE_OUT") {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines: Vec<Value> = vectors
            .iter()
            .map(|(name, bytes, javascript)| {
                json!({ "name": name, "hex": hex(bytes), "javascript": javascript })
            })
            .collect();
        fs::write(path, serde_json::to_vec(&lines).unwrap()).unwrap();
    }
}

/// Returns a text with this number of bytes in MessagePack, which compresses well or not at all.
fn text_of(packed: usize, compressible: bool) -> String {
    let head = if packed > 65_538 { 5 } else { 3 };
    let mut random = fastrand::Rng::with_seed(1);
    let letter = |_| if compressible { 'x' } else { char::from(random.u8(..128)) };
    (0..packed - head).map(letter).collect()
}

#[test]
fn large_payloads_are_compressed_if_that_saves_15_percent() {
    let small = WireCodec::new().serialize_with_stats(&text_of(65_535, true)).unwrap();
    assert_eq!(small.encoding, WireEncoding::MessagePack);
    assert_eq!((small.original_bytes, small.stored_bytes), (65_535, 65_539));
    assert!(!small.compressed && small.ratio == 0.0 && small.bytes.len() == 65_539);

    let large = WireCodec::new().serialize_with_stats(&text_of(65_536, true)).unwrap();
    assert_eq!(large.encoding.as_str(), "msgpack-gzip");
    assert_eq!(&large.bytes[..4], b"HC1G");
    assert_eq!(large.original_bytes, 65_536);
    assert_eq!(large.stored_bytes, large.bytes.len());
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let ratio = 1.0 - (large.stored_bytes - 4) as f64 / 65_536.0;
    assert!(large.compressed && large.ratio == ratio && ratio > 0.99, "{ratio}");

    // 128 of 256 byte values: gzip saves an eighth, which is too little.
    let noise = WireCodec::new().serialize_with_stats(&text_of(70_000, false)).unwrap();
    assert_eq!(noise.encoding, WireEncoding::MessagePack);
    let json = WireCodec::new().json().serialize_with_stats(&[1, 2]).unwrap();
    assert_eq!((json.encoding.as_str(), json.original_bytes, json.stored_bytes), ("json", 5, 9));
}

#[test]
fn each_size_gets_the_compression_with_the_greatest_threshold_it_reaches() {
    let codec = WireCodec::new().lz4_from(1_000).zstd_from(10_000);
    let encoding = |codec: WireCodec, size| {
        let text = text_of(size, true);
        let made = codec.serialize_with_stats(&text).unwrap();
        assert_eq!(decode::<String>(&made.bytes).unwrap(), text);
        made.encoding.to_string()
    };
    assert_eq!(encoding(codec, 999), "msgpack");
    assert_eq!(encoding(codec, 1_000), "msgpack-lz4");
    assert_eq!(encoding(codec, 10_000), "msgpack-zstd");
    assert_eq!(encoding(codec, 70_000), "msgpack-gzip");
    assert_eq!(encoding(codec.gzip_from(usize::MAX), 70_000), "msgpack-zstd");
    assert_eq!(encoding(codec.zstd_from(65_536), 70_000), "msgpack-zstd");
    assert_eq!(encoding(WireCodec::new().gzip_from(500), 999), "msgpack-gzip");
}

#[test]
fn every_limit_holds_for_encoding_and_for_decoding() {
    let codec = |limits| WireCodec::new().limits(limits);
    let limits = WireLimits::default;
    let text = text_of(1_000, true);
    let bytes = encode(&text);
    for (limits, fits) in [
        (limits().stored(1_004), true),
        (limits().stored(1_003), false),
        (limits().unpacked(1_000), true),
        (limits().unpacked(999), false),
    ] {
        assert_eq!(Codec::<String>::decode(&codec(limits), &bytes).is_ok(), fits, "{limits:?}");
        assert_eq!(codec(limits).encode(&text).is_ok(), fits, "{limits:?}");
    }
    let nested = vec![vec![vec![1]]];
    let bytes = encode(&nested);
    for (limits, fits) in [
        (limits().nesting(3), true),
        (limits().nesting(2), false),
        (limits().values(4), true),
        (limits().values(3), false),
    ] {
        let decoded = Codec::<Vec<Vec<Vec<u8>>>>::decode(&codec(limits), &bytes);
        assert_eq!(decoded.is_ok(), fits, "{limits:?}");
    }
    assert!(codec(limits().nesting(2)).encode(&nested).is_err());
    assert!(codec(limits().nesting(2)).json().encode(&nested).is_err());
    let bytes = encode(&ByteBuf::from(vec![1; 100]));
    let few = codec(limits().values(50));
    Codec::<ByteBuf>::decode(&few, &bytes).unwrap();
    Codec::<Value>::decode(&few, &bytes).unwrap_err();
    for tier in
        [WireCodec::new().gzip_from(0), WireCodec::new().zstd_from(0), WireCodec::new().lz4_from(0)]
    {
        let bytes = tier.encode(&text).unwrap();
        assert!(bytes.len() < 100);
        Codec::<String>::decode(&codec(limits().unpacked(1_000)), &bytes).unwrap();
        Codec::<String>::decode(&codec(limits().unpacked(999)), &bytes).unwrap_err();
    }
}

#[test]
fn a_value_deeper_than_the_stack_is_refused() {
    #[derive(Serialize)]
    struct Chain(Option<Box<Chain>>);
    #[derive(Serialize)]
    struct Link {
        next: Option<Box<Link>>,
    }
    let mut link = Link { next: None };
    for _ in 0..2_000 {
        link = Link { next: Some(Box::new(link)) };
    }
    assert!(WireCodec::new().serialize_with_stats(&link).is_err());
    WireCodec::new().serialize_with_stats(&Chain(Some(Box::new(Chain(None))))).unwrap();

    /// A type that contains itself without taking any bytes.
    #[derive(Debug, Serialize, Deserialize)]
    struct Endless(Option<Box<Endless>>);
    decode::<Endless>(&packed(&[1])).unwrap_err();
    decode::<Endless>(&packed(&[0xc0])).unwrap();
}

#[test]
fn trailing_bytes_and_truncated_payloads_are_errors() {
    let bytes: Vec<(&str, Vec<u8>)> =
        ["gzip", "zstd", "zstd of a stream", "lz4"].map(|name| (name, vector(name))).to_vec();
    for (name, bytes) in bytes {
        decode::<Value>(&bytes).unwrap();
        for garbage in [&b"\0"[..], b"garbage", &[0; 64], &bytes[4..]] {
            // Bytes after a block of lz4 belong to it, so zeros are empty matches.
            let more = [&bytes, garbage].concat();
            assert!(decode::<Value>(&more).is_err(), "{name} and {garbage:?}");
        }
        for end in [4, 5, 8, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode::<Value>(&bytes[..end]).is_err(), "{name} up to {end}");
        }
    }
}

#[test]
fn a_zstd_payload_is_one_whole_frame_with_a_window_of_at_most_8_mib() {
    let empty_frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];
    decode::<Value>(&[&vector("zstd"), &empty_frame[..]].concat()).unwrap_err();

    // A frame that announces its length needs no window.
    let content = encode(&text_of(100_000, false)).split_off(4);
    let frame = |window| {
        let mut encoder = zstd::stream::Encoder::new(b"HC1Z".to_vec(), 3).unwrap();
        encoder.window_log(window).unwrap();
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap()
    };
    decode::<String>(&frame(23)).unwrap();
    decode::<String>(&frame(24)).unwrap_err();

    let mut bytes = vector("lz4");
    let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    bytes[4..8].copy_from_slice(&(length + 1).to_le_bytes());
    // Zeros after the content would be integers after the value.
    let error = decode::<Value>(&bytes).unwrap_err().to_string();
    assert!(error.contains("announces"), "{error}");
}

#[test]
fn arrays_longer_than_the_type_are_refused_at_any_depth() {
    assert_eq!(decode::<(u8, u8)>(b"HC1M\x92\x01\x02").unwrap(), (1, 2));
    decode::<(u8, u8)>(b"HC1M\x93\x01\x02\x03").unwrap_err();
    decode::<Vec<(u8, u8)>>(b"HC1M\x91\x93\x01\x02\x03").unwrap_err();
    decode::<((u8, u8), u8)>(b"HC1M\x92\x93\x01\x02\x03\x04").unwrap_err();
}

#[test]
fn a_type_that_announces_a_wrong_length_is_not_written() {
    struct Liar(usize);
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut seq = serializer.serialize_seq(Some(self.0))?;
            seq.serialize_element(&1)?;
            seq.end()
        }
    }
    assert_eq!(WireCodec::new().serialize_with_stats(&Liar(1)).unwrap().bytes, packed(&[0x91, 1]));
    assert!(WireCodec::new().serialize_with_stats(&Liar(0)).is_err());
    assert!(WireCodec::new().serialize_with_stats(&Liar(2)).is_err());
}

#[test]
fn a_flipped_bit_in_gzip_is_detected() {
    let bytes = vector("gzip");
    let intact: Value = decode(&bytes).unwrap();
    for at in 4..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            // The time and the operating system in the header do not affect the content.
            assert!(decode::<Value>(&flipped).map_or(true, |read| read == intact), "byte {at}");
        }
    }
}

#[test]
fn compressed_and_large_payloads_are_heavy_to_decode() {
    let heavy = |bytes: &[u8]| Codec::<Value>::is_heavy_to_decode(&WireCodec::new(), bytes);
    assert!(heavy(&vector("gzip")) && heavy(b"HC1Z") && heavy(b"HC1L"));
    assert!(!heavy(&vector("event")) && !heavy(b"HC1J{}") && !heavy(b"") && !heavy(b"HC1"));
    assert!(!heavy(&[0; 64 << 10]) && heavy(&[0; (64 << 10) + 1]));
}

#[test]
fn only_from_env_reads_the_environment_variable() {
    const ROLE: &str = "WIRE_TEST_ROLE";
    if env::var_os(ROLE).is_some() {
        assert_eq!(&encode(&1)[..4], b"HC1M");
        let asked = WireCodec::from_env().encode(&1).unwrap();
        println!("wrote {}", String::from_utf8_lossy(&asked[..4]));
        return;
    }
    for (format, expected) in [(Some("json"), "HC1J"), (Some("JSON"), "HC1M"), (None, "HC1M")] {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "--nocapture"]);
        child.arg("wire::only_from_env_reads_the_environment_variable");
        child.env(ROLE, "child").env_remove("CACHE_FORMAT");
        child.envs(format.map(|format| ("CACHE_FORMAT", format)));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        assert!(text.contains(&format!("wrote {expected}")), "{format:?}: {text}");
    }
}
