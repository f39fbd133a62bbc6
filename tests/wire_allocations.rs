//! The memory that decoding takes is limited for any bytes. This is a binary of its own because it
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

/// Returns the most memory that decoding takes at one time, in bytes and without the payload, and
/// whether it returned a value.
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

/// A zstd frame that does not announce the length of its content.
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

/// Returns MessagePack of this number of bytes with an error at its very end: half of a surrogate
/// pair at the end of a text.
fn nearly_text(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes - 5).unwrap().to_be_bytes();
    let mut packed = [&[0xdb][..], &length, &vec![b'x'; bytes - 5]].concat();
    packed[bytes - 1] = 0xed;
    packed
}

#[test]
fn a_bomb_takes_no_more_than_the_limit_and_a_mebibyte() {
    assert_eq!(WireLimits::default().unpacked, 64 * MIB);
    // A smaller limit, because the compressors are slow without optimisation.
    let limit = 12 * MIB;
    let codec = WireCodec::new().limits(WireLimits::default().unpacked(limit));
    for (name, compress) in COMPRESSIONS {
        // Content up to the limit is decompressed, into one buffer.
        let within = compress(&nearly_text(limit));
        assert!(within.len() < limit / 200, "{name} is a bomb");
        let (most, decoded) = peak(codec, &within);
        assert!(!decoded && (limit..limit + MIB).contains(&most), "{name}: {most}");
        // Content that announces more than the limit is not decompressed.
        let (most, decoded) = peak(codec, &compress(&nearly_text(limit + 1)));
        assert!(!decoded && most < MIB, "{name}: {most}");
    }
}

#[test]
fn announced_lengths_are_refused_if_the_compression_cannot_reach_them() {
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
    // A length below the true one: no room is allocated for the rest, and the payload is refused.
    for compress in [COMPRESSIONS[0].1, COMPRESSIONS[3].1] {
        let mut bytes = compress(&nearly_text(8 * MIB));
        let at = if bytes.starts_with(b"HC1G") { bytes.len() - 4 } else { 4 };
        bytes[at..at + 4].copy_from_slice(&1_000_u32.to_le_bytes());
        let (most, decoded) = peak(WireCodec::new(), &bytes);
        assert!(!decoded && most < MIB, "{most}");
    }
}

#[test]
fn hostile_depths_and_lengths_take_less_than_a_mebibyte() {
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
fn the_number_of_values_limits_the_memory_of_a_decoded_value() {
    // 1 MiB of nulls becomes 32 MiB of `Value`s.
    let head = [&[0xdd][..], &(1_u32 << 20).to_be_bytes()].concat();
    let nulls = gzip(&[head, vec![0xc0; MIB]].concat());
    assert!(peak(WireCodec::new(), &nulls).0 > 32 * MIB);
    let codec = WireCodec::new().limits(WireLimits::default().values(MIB));
    let (most, decoded) = peak(codec, &nulls);
    assert!(!decoded && most < 2 * MIB, "{most}");
    // 1 MiB of bytes too, where it is decoded into a list.
    let bytes = gzip(&[&[0xc6][..], &(1_u32 << 20).to_be_bytes(), &vec![0; MIB]].concat());
    let codec = WireCodec::new().limits(WireLimits::default().values(MIB - 1));
    let (most, decoded) = peak(codec, &bytes);
    assert!(!decoded && most < 2 * MIB, "{most}");
}

/// Allocates for the announced number of elements, as some containers do.
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
fn the_announced_number_of_elements_is_capped() {
    let bytes = [&b"HC1M\xdd"[..], &100_000_u32.to_be_bytes(), &[0xc0; 100_000]].concat();
    let measured = allocation_counter::measure(|| {
        Codec::<Trusting>::decode(&WireCodec::new(), &bytes).unwrap();
    });
    assert!(measured.bytes_max < MIB as u64, "{}", measured.bytes_max);
}
