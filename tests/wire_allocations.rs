//! What decoding may cost in memory, whatever the bytes say. In a binary of its own, because it
//! counts every allocation.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "that is how a test fails")]

use std::{
    fmt::{self, Formatter},
    io::Write,
};

use flate2::{Compression, write::GzEncoder};
use lazy_layers_cache::{Codec, WireCodec, WireLimits};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// The most memory that decoding takes at one time beside what it is given, and whether it got a
/// value.
fn peak(codec: WireCodec, bytes: &[u8]) -> (usize, bool) {
    let mut decoded = false;
    let measured = allocation_counter::measure(|| {
        decoded = Codec::<Value>::decode(&codec, bytes).is_ok();
    });
    (usize::try_from(measured.bytes_max).unwrap(), decoded)
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(b"HC1G".to_vec(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    [b"HC1Z".to_vec(), zstd::bulk::compress(content, 3).unwrap()].concat()
}

/// Without the length in its head.
fn zstd_stream(content: &[u8]) -> Vec<u8> {
    [b"HC1Z".to_vec(), zstd::stream::encode_all(content, 3).unwrap()].concat()
}

fn lz4(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut block = vec![0; lz4_flex::block::get_maximum_output_size(content.len())];
    let written = lz4_flex::block::compress_into(content, &mut block).unwrap();
    [&b"HC1L"[..], &length, &block[..written]].concat()
}

type Compress = fn(&[u8]) -> Vec<u8>;

const COMPRESSIONS: [(&str, Compress); 4] =
    [("gzip", gzip), ("zstd", zstd), ("zstd stream", zstd_stream), ("lz4", lz4)];

/// MessagePack of so many bytes that becomes an error only where all of it has been read: half a
/// surrogate pair at the end of a text.
fn nearly_text(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes - 5).unwrap().to_be_bytes();
    let mut packed = [&[0xdb][..], &length, &vec![b'x'; bytes - 5]].concat();
    packed[bytes - 1] = 0xed;
    packed
}

#[test]
fn a_bomb_takes_no_more_than_the_limit_and_a_mebibyte() {
    assert_eq!(WireLimits::default().unpacked, 64 * MIB);
    // Less than that, as the compressors are slow without optimisation.
    let limit = 12 * MIB;
    let codec = WireCodec::new().limits(WireLimits::default().unpacked(limit));
    for (name, compress) in COMPRESSIONS {
        // Up to the limit it is unpacked, once.
        let within = compress(&nearly_text(limit));
        assert!(within.len() < limit / 200, "{name} is a bomb");
        let (most, decoded) = peak(codec, &within);
        assert!(!decoded && (limit..limit + MIB).contains(&most), "{name}: {most}");
        // What says that it is beyond is not even begun.
        let (most, decoded) = peak(codec, &compress(&nearly_text(limit + 1)));
        assert!(!decoded && most < MIB, "{name}: {most}");
    }
}

#[test]
fn lengths_are_believed_as_far_as_they_are_possible() {
    let limits = WireLimits::default();
    let lie = u32::try_from(limits.unpacked).unwrap();
    let mut gzip = gzip(&[0xc0]);
    let end = gzip.len() - 4;
    gzip[end..].copy_from_slice(&lie.to_le_bytes());
    let mut lz4 = lz4(&[0xc0]);
    lz4[4..8].copy_from_slice(&lie.to_le_bytes());
    for bytes in [&gzip, &lz4] {
        let (most, decoded) = peak(WireCodec::new(), bytes);
        assert!(!decoded && most < MIB, "{most}");
    }
    // Less than there is: what does not fit is noticed and not made room for.
    for compress in [COMPRESSIONS[0].1, COMPRESSIONS[3].1] {
        let mut bytes = compress(&nearly_text(8 * MIB));
        let at = if bytes.starts_with(b"HC1G") { bytes.len() - 4 } else { 4 };
        bytes[at..at + 4].copy_from_slice(&1_000_u32.to_le_bytes());
        let (most, decoded) = peak(WireCodec::new(), &bytes);
        assert!(!decoded && most < MIB, "{most}");
    }
}

#[test]
fn depth_and_lengths_cost_nothing() {
    let gigabyte = 1_u32 << 30;
    let mut hostile = vec![vec![0x91; 100_000], vec![0x81; 100_000], vec![b'['; 100_000]];
    for marker in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
        let head = [&[marker][..], &gigabyte.to_be_bytes()].concat();
        hostile.push(head.clone());
        hostile.push([head, vec![0; 1_000]].concat());
    }
    for body in hostile {
        for prefix in [&b""[..], b"HC1M", b"HC1J"] {
            let (most, decoded) = peak(WireCodec::new(), &[prefix, &body].concat());
            assert!(!decoded && most < MIB, "{most} for {:x?}", &body[..5]);
        }
        for (name, compress) in COMPRESSIONS {
            let (most, decoded) = peak(WireCodec::new(), &compress(&body));
            assert!(!decoded && most < 2 * MIB, "{name}: {most}");
        }
    }
}

#[test]
fn values_that_take_more_in_memory_than_in_bytes_are_counted() {
    // A MiB of nulls is 32 of `Value`s.
    let head = [&[0xdd][..], &(1_u32 << 20).to_be_bytes()].concat();
    let nulls = gzip(&[head, vec![0xc0; MIB]].concat());
    assert!(peak(WireCodec::new(), &nulls).0 > 32 * MIB);
    let codec = WireCodec::new().limits(WireLimits::default().values(MIB));
    let (most, decoded) = peak(codec, &nulls);
    assert!(!decoded && most < 2 * MIB, "{most}");
    // So is one of bytes, where a list is made of them.
    let bytes = gzip(&[&[0xc6][..], &(1_u32 << 20).to_be_bytes(), &vec![0; MIB]].concat());
    let codec = WireCodec::new().limits(WireLimits::default().values(MIB - 1));
    let (most, decoded) = peak(codec, &bytes);
    assert!(!decoded && most < 2 * MIB, "{most}");
}

/// Makes room for as many as are announced, as some containers do.
struct Trusting;

impl<'de> Deserialize<'de> for Trusting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Room;
        impl<'de> Visitor<'de> for Room {
            type Value = Trusting;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Trusting, A::Error> {
                let mut room: Vec<[u64; 64]> = Vec::with_capacity(list.size_hint().unwrap());
                while list.next_element::<()>()?.is_some() {
                    room.truncate(1);
                    room.push([0; 64]);
                }
                Ok(Trusting)
            }
        }
        deserializer.deserialize_seq(Room)
    }
}

impl Serialize for Trusting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

#[test]
fn no_more_elements_are_announced_than_there_is_room_for() {
    let bytes = [&b"HC1M\xdd"[..], &100_000_u32.to_be_bytes(), &[0xc0; 100_000]].concat();
    let measured = allocation_counter::measure(|| {
        Codec::<Trusting>::decode(&WireCodec::new(), &bytes).unwrap();
    });
    assert!(measured.bytes_max < MIB as u64, "{}", measured.bytes_max);
}
