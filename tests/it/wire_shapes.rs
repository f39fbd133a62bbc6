//! Types of every shape that serde has, with keys of every type, are read as they were written: in
//! MessagePack, in JSON, and as JavaScript writes them, with text as keys.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    num::{NonZeroI16, NonZeroU32},
};

use lazy_layers_cache::{BoxError, Codec, WireCodec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// A type that keys of maps may have.
trait Key: Ord + Clone + Debug + Serialize + DeserializeOwned + 'static {
    fn any(random: &mut fastrand::Rng) -> Self;
}

macro_rules! keys {
    ($($type:ty: |$random:ident| $any:expr;)*) => {
        $(impl Key for $type {
            fn any($random: &mut fastrand::Rng) -> Self {
                $any
            }
        })*

        /// Runs the check for each type of keys.
        fn for_each_key_type(check: impl Check) {
            $(check.run::<$type>();)*
        }
    };
}

trait Check {
    fn run<K: Key>(&self);
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct UserId(u64);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Flag(bool);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct Name {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Side {
    Left,
    #[serde(rename = "7")]
    Right,
}

keys! {
    u8: |random| random.u8(..);
    u16: |random| random.u16(..);
    u32: |random| random.u32(..);
    u64: |random| random.u64(..) >> random.u8(0..64);
    usize: |random| random.usize(..);
    i8: |random| random.i8(..);
    i16: |random| random.i16(..);
    i32: |random| random.i32(..);
    i64: |random| random.i64(..) >> random.u8(0..64);
    NonZeroU32: |random| NonZeroU32::new(random.u32(1..)).unwrap();
    NonZeroI16: |random| NonZeroI16::new(random.i16(..) | 1).unwrap();
    bool: |random| random.bool();
    char: |random| random.choice(['a', 'ü', '7', '-', '🦀']).unwrap();
    String: |random| random.choice(["7", "-1", "true", "1e3", "x", ""]).unwrap().to_owned();
    Side: |random| if random.bool() { Side::Left } else { Side::Right };
    UserId: |random| UserId(random.u64(..) >> random.u8(0..64));
    Flag: |random| Flag(random.bool());
    Name: |random| Name { name: random.u8(..).to_string() };
    Option<u16>: |random| Some(random.u16(..));
}

/// Read as a key anywhere but in a type that serde buffers.
impl Key for u128 {
    fn any(random: &mut fastrand::Rng) -> Self {
        random.u128(..)
    }
}

type Names = BTreeMap<String, u8>;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", bound = "K: Key")]
enum Internal<K: Key> {
    Map(BTreeMap<K, u8>),
    Both { names: Names, map: BTreeMap<K, Vec<u8>>, other: Option<BTreeMap<K, f64>> },
    Deep { deep: BTreeMap<K, BTreeMap<K, Option<u8>>>, list: Vec<BTreeMap<K, u8>> },
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content", bound = "K: Key")]
enum Adjacent<K: Key> {
    Map(BTreeMap<K, u8>),
    Pair(Names, BTreeMap<K, Internal<K>>),
    Nothing,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, bound = "K: Key")]
enum Untagged<K: Key> {
    Number(u64),
    Flat(Flat<K>),
    Pair(u8, BTreeMap<K, Names>),
    Adjacent { adjacent: Adjacent<K>, text: String },
    Text(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "K: Key")]
struct Flat<K: Key> {
    identity: u32,
    names: Names,
    #[serde(flatten)]
    rest: BTreeMap<K, i64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "K: Key")]
struct Flattened<K: Key> {
    own: BTreeMap<K, bool>,
    #[serde(flatten)]
    inner: Inner<K>,
    #[serde(flatten)]
    tagged: Internal<K>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "K: Key")]
struct Inner<K: Key> {
    inner_map: BTreeMap<K, Names>,
    inner_names: BTreeMap<String, BTreeMap<K, u8>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "K: Key")]
enum External<K: Key> {
    Map(BTreeMap<K, Untagged<K>>),
    Fields {
        #[serde(flatten)]
        flat: Flat<K>,
    },
    Pair(Internal<K>, Adjacent<K>),
}

fn map<K: Key, T>(
    random: &mut fastrand::Rng,
    any: impl Fn(&mut fastrand::Rng) -> T,
) -> BTreeMap<K, T> {
    (0..random.u8(0..4)).map(|_| (K::any(random), any(random))).collect()
}

/// Names that stand for numbers, beside the maps whose keys are numbers.
fn names(random: &mut fastrand::Rng) -> Names {
    map(random, byte)
}

fn byte(random: &mut fastrand::Rng) -> u8 {
    random.u8(..)
}

fn internal<K: Key>(random: &mut fastrand::Rng) -> Internal<K> {
    match random.u8(..4) {
        0 => Internal::Map(map(random, byte)),
        1 => Internal::Both {
            names: names(random),
            map: map(random, |random| vec![byte(random)]),
            other: random.bool().then(|| map(random, |random| f64::from(random.u8(..)) / 4.0)),
        },
        2 => Internal::Deep {
            deep: map(random, |random| map(random, |random| random.bool().then_some(1))),
            list: vec![map(random, byte), map(random, byte)],
        },
        _ => Internal::Nothing,
    }
}

fn adjacent<K: Key>(random: &mut fastrand::Rng) -> Adjacent<K> {
    match random.u8(..3) {
        0 => Adjacent::Map(map(random, byte)),
        1 => Adjacent::Pair(names(random), map(random, internal)),
        _ => Adjacent::Nothing,
    }
}

fn flat<K: Key>(random: &mut fastrand::Rng) -> Flat<K> {
    let rest = map(random, |random| i64::from(random.i32(..)) << random.u8(0..20));
    Flat { identity: random.u32(..), names: names(random), rest }
}

/// A [`Flat`] within a type that serde buffers: serde then reads neither bools nor negative numbers
/// as keys of the flattened map.
fn buffered_flat<K: Key>(random: &mut fastrand::Rng) -> Flat<K> {
    let mut flat: Flat<K> = flat(random);
    flat.rest.retain(|key, _| match serde_json::to_value(key).unwrap() {
        Value::Bool(_) => false,
        Value::Number(number) => number.is_u64(),
        _ => true,
    });
    flat
}

fn untagged<K: Key>(random: &mut fastrand::Rng) -> Untagged<K> {
    match random.u8(..5) {
        0 => Untagged::Number(random.u64(..)),
        1 => Untagged::Flat(buffered_flat(random)),
        2 => Untagged::Pair(byte(random), map(random, names)),
        3 => Untagged::Adjacent { adjacent: adjacent(random), text: "12".to_owned() },
        _ => Untagged::Text("34".to_owned()),
    }
}

fn external<K: Key>(random: &mut fastrand::Rng) -> External<K> {
    match random.u8(..3) {
        0 => External::Map(map(random, untagged)),
        1 => External::Fields { flat: buffered_flat(random) },
        _ => External::Pair(internal(random), adjacent(random)),
    }
}

/// Encodes and decodes the value in all forms in which the codec may meet it.
fn is_read_in_all_forms<V>(value: &V)
where
    V: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let packed = WireCodec::new().encode(value).unwrap();
    let json = WireCodec::new().json().encode(value).unwrap();
    // JavaScript has text as keys, in MessagePack too.
    let object: Value = serde_json::from_slice(&json[4..]).unwrap();
    let javascript = WireCodec::new().encode(&object).unwrap();
    let legacy = |bytes: &[u8]| {
        let is_plain = bytes.len() > 8 && !bytes.starts_with(b"HC1G");
        if is_plain { bytes[4..].to_vec() } else { bytes.to_vec() }
    };
    for bytes in [&packed, &json, &javascript, &legacy(&packed), &legacy(&json)] {
        let read: Result<V, BoxError> = WireCodec::new().decode(bytes);
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(read.as_ref().ok(), Some(value), "{:?} of {text}", read.as_ref().err());
    }
}

#[test]
fn every_shape_with_keys_of_every_type_is_read_as_it_was_written() {
    struct Shapes;
    impl Check for Shapes {
        fn run<K: Key>(&self) {
            let mut random = fastrand::Rng::with_seed(5);
            for _ in 0..100 {
                let random = &mut random;
                is_read_in_all_forms(&internal::<K>(random));
                is_read_in_all_forms(&adjacent::<K>(random));
                is_read_in_all_forms(&untagged::<K>(random));
                is_read_in_all_forms(&flat::<K>(random));
                is_read_in_all_forms(&external::<K>(random));
                is_read_in_all_forms(&Flattened::<K> {
                    own: map(random, fastrand::Rng::bool),
                    inner: Inner {
                        inner_map: map(random, names),
                        inner_names: map(random, |random| map(random, byte)),
                    },
                    tagged: match internal(random) {
                        // The rest of the fields would be entries of the map.
                        Internal::Map(_) => Internal::Nothing,
                        other => other,
                    },
                });
                is_read_in_all_forms(&vec![Some(internal::<K>(random)), None]);
                is_read_in_all_forms(&map::<K, _>(random, external::<K>));
                is_read_in_all_forms(&map::<String, _>(random, untagged::<K>));
            }
        }
    }
    for_each_key_type(Shapes);
}

#[test]
fn maps_at_many_places_are_found_in_few_passes() {
    let mut random = fastrand::Rng::with_seed(6);
    let many: BTreeMap<String, Internal<u32>> = (0..300)
        .map(|number| {
            let map = BTreeMap::from([(number, vec![1])]);
            let names = BTreeMap::from([("7".to_owned(), 1)]);
            (format!("name-{number}"), Internal::Both { names, map, other: None })
        })
        .collect();
    is_read_in_all_forms(&many);
    let flat: BTreeMap<String, Vec<BTreeMap<String, Internal<bool>>>> = (0..300)
        .map(|number| {
            let map = Internal::Map(BTreeMap::from([(number % 2 == 0, 1)]));
            (format!("name-{number}"), vec![BTreeMap::from([(format!("{number}-name"), map)])])
        })
        .collect();
    is_read_in_all_forms(&flat);
    let list: Vec<Untagged<i64>> = (0..3_000).map(|_| untagged(&mut random)).collect();
    is_read_in_all_forms(&list);
}

#[test]
fn keys_of_javascript_are_read_in_each_form_that_it_has() {
    let read = |bytes: &[u8]| -> Adjacent<u64> { WireCodec::new().decode(bytes).unwrap() };
    let expected = || Adjacent::Map(BTreeMap::from([(7, 1), (1 << 40, 2)]));
    let json = br#"HC1J{"content":{"7":1,"1099511627776":2},"kind":"Map"}"#;
    assert_eq!(read(json), expected());
    let escaped = br#"HC1J{"content":{"\u0037":1,"1099511627776":2},"kind":"Map"}"#;
    assert_eq!(read(escaped), expected());
    // A `Map`, with a small number and a double as keys.
    let double = [&[0xcb][..], &1_099_511_627_776_f64.to_be_bytes()].concat();
    let map = [&b"\x82\x07\x01"[..], &double, b"\x02"].concat();
    let packed = [&b"HC1M\x82\xa7content"[..], &map, b"\xa4kind\xa3Map"].concat();
    assert_eq!(read(&packed), expected());
    // The same for a type that wants text.
    let names: Adjacent<String> = WireCodec::new().decode(&packed).unwrap();
    let text = |number: u64| number.to_string();
    assert_eq!(names, Adjacent::Map(BTreeMap::from([(text(7), 1), (text(1 << 40), 2)])));
    // And for a type that takes any value.
    let any: Value = WireCodec::new().decode(&packed).unwrap();
    assert_eq!(any, json!({ "content": { "7": 1, "1099511627776": 2 }, "kind": "Map" }));
}

#[test]
fn a_number_as_a_key_tells_two_types_of_keys_apart() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Numbers(BTreeMap<u64, u8>),
        Names(BTreeMap<String, u8>),
    }
    for value in [
        Either::Numbers(BTreeMap::from([(7, 1)])),
        Either::Names(BTreeMap::from([("7".to_owned(), 1)])),
    ] {
        let bytes = WireCodec::new().encode(&value).unwrap();
        assert_eq!(Codec::<Either>::decode(&WireCodec::new(), &bytes).unwrap(), value);
    }
}

/// The cache finds these when it first writes them, see `round_trips.rs`.
#[test]
fn shapes_that_serde_does_not_read_are_errors_and_never_other_values() {
    fn is_refused<V: Serialize + DeserializeOwned + Debug>(value: &V) {
        for codec in [WireCodec::new(), WireCodec::new().json()] {
            let read: Result<V, BoxError> = codec.decode(&codec.encode(value).unwrap());
            assert!(read.is_err(), "{read:?} of {value:?}");
        }
    }
    fn flat<K: Key>(key: K) -> Flat<K> {
        Flat { identity: 1, names: Names::new(), rest: BTreeMap::from([(key, 1)]) }
    }
    is_refused(&Untagged::Flat(flat(-1)));
    is_refused(&Untagged::Flat(flat(Flag(true))));
    is_refused(&External::Fields { flat: flat(false) });
    is_refused(&Adjacent::Pair(
        Names::new(),
        BTreeMap::from([(1_u128, Internal::Map(BTreeMap::from([(1_u128, 1)])))]),
    ));
}

#[test]
fn a_number_as_a_key_is_no_field_by_position() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pair {
        #[serde(default)]
        first: u8,
        #[serde(default)]
        second: u8,
    }
    let read: Pair = WireCodec::new().decode(b"HC1M\x82\x00\x05\xa6second\x06").unwrap();
    assert_eq!(read, Pair { first: 0, second: 6 });
}

#[test]
fn payloads_that_fit_no_form_of_keys_are_errors_without_many_passes() {
    type Type = BTreeMap<String, Internal<u8>>;
    let wrong = |bytes: &[u8]| Codec::<Type>::decode(&WireCodec::new(), bytes).unwrap_err();
    // Too great for the type, no number, another type of value.
    wrong(br#"HC1J{"a":{"kind":"Map","7":1,"300":1}}"#);
    wrong(br#"HC1J{"a":{"kind":"Map","7":1,"x":1}}"#);
    wrong(br#"HC1J{"a":{"kind":"Map","7":"x"}}"#);
    // The many maps of a hostile payload take a few passes, not one each.
    let mut entries: Vec<String> =
        (0..20_000).map(|name| format!(r#""n{name:05}":{{"kind":"Map","7":1}}"#)).collect();
    entries.push(r#""z":{"kind":"Map","7":"x"}"#.to_owned());
    let begun = std::time::Instant::now();
    wrong(format!("HC1J{{{}}}", entries.join(",")).as_bytes());
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}
