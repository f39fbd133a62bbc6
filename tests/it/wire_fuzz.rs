//! Decodes payloads of JavaScript after random changes, cuts and splices, with a fixed seed. The
//! targets in fuzz/ run longer.

use lazy_layers_cache::{Codec, WireCodec, WireLimits};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;

use crate::wire::vectors;

const INPUTS: usize = 200_000;

/// Has fields of all kinds that a type can ask for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Anything {
    Event { id: String, ts: u64, generation: Option<i64>, keys: Vec<String> },
    Map(std::collections::BTreeMap<i64, Box<Anything>>),
    List(Vec<Anything>),
    Number(f32),
    Bytes(ByteBuf),
    Text(String),
    Null(()),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Named {
    A,
    B(Vec<u8>),
    C { at: Option<u64> },
    D(i8, String),
}

fn try_all(codec: WireCodec, bytes: &[u8]) -> bool {
    let _ = Codec::<Anything>::decode(&codec, bytes);
    let _ = Codec::<Named>::decode(&codec, bytes);
    let _ = Codec::<ByteBuf>::decode(&codec, bytes);
    let Ok(value) = Codec::<Value>::decode(&codec, bytes) else { return false };
    // A decoded value can be encoded, and decodes to the same value again.
    let again = codec.encode(&value).unwrap();
    let read: Value = codec.decode(&again).unwrap();
    assert_eq!(read, value, "{bytes:x?}");
    true
}

#[test]
fn no_changed_payload_makes_decoding_panic() {
    let codec = WireCodec::new().limits(WireLimits::default().unpacked(1 << 20));
    // Large payloads are used rarely, because they would take most of the time.
    let (large, mut seeds): (Vec<_>, Vec<_>) = vectors()
        .into_iter()
        .map(|vector| vector.bytes)
        .partition(|bytes| Codec::<Value>::is_heavy_to_decode(&codec, bytes));
    let small = seeds.len();
    assert!(small > 60 && large.len() > 5);
    seeds.extend(large);
    let mut random = fastrand::Rng::with_seed(17);
    let mut decoded = 0;
    for input in 0..INPUTS {
        let choices = if input % 1_000 == 0 { seeds.len() } else { small };
        let mut bytes = seeds[random.usize(..choices)].clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..=bytes.len());
            match random.u8(..6) {
                0 => bytes.truncate(at.max(3)),
                1 => bytes.insert(at, random.u8(..)),
                2 => {
                    let other = &seeds[random.usize(..small)];
                    bytes.splice(at.., other.iter().skip(4).copied());
                }
                // The markers of values with a length.
                3 if at < bytes.len() => bytes[at] = random.u8(0xc0..0xe0),
                4 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
                _ if at < bytes.len() => bytes[at] = random.u8(..),
                _ => {}
            }
        }
        decoded += usize::from(try_all(codec, &bytes));
    }
    // The changes leave a part of the payloads valid.
    assert!(decoded > INPUTS / 20, "{decoded}");
}
