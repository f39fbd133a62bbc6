//! The codec of the wire format.

use std::env;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    compress::{Thresholds, decompress},
    de::read,
    envelope::{Serialized, WireEncoding},
    limits::{WireLimits, check_len},
    ser::write,
};
use crate::codec::contract::Codec;
use crate::error::BoxError;
use crate::msgpack::{
    envelope::{NIL, NULL_TEXT},
    reader::validate,
};

/// Encodes values as the TypeScript package does: fields by name, in MessagePack.
///
/// | prefix | content | |
/// | --- | --- | --- |
/// | `HC1M` | MessagePack | written |
/// | `HC1G` | gzip of MessagePack | written from 64 KiB on, where it saves at least 15 % |
/// | `HC1J` | JSON, for people to read | written under [`json`](Self::json) |
/// | `HC1Z` | zstd of MessagePack | read under the feature `zstd`, written under its `zstd_from` |
/// | `HC1L` | lz4 of MessagePack | read under the feature `lz4`, written under its `lz4_from` |
/// | `HC1` and another tag | the format of another release | an error, hence a miss |
/// | no prefix | MessagePack or JSON of releases before the prefixes | read |
///
/// A null (a `None` in `V`) is written as the TypeScript package writes it, so it is a hit there
/// too.
///
/// # Rust values in JavaScript
///
/// | in Rust | in JavaScript |
/// | --- | --- |
/// | struct | object |
/// | enum | `"Name"` or `{ Name: content }`, as in JSON |
/// | type with a human-readable form (address, UUID, time of chrono, jiff or time) | text |
/// | key of a map | text |
/// | integer up to 2^53 | number |
/// | integer of at most 64 bits beyond 2^53 | `BigInt` |
/// | integer of more than 64 bits | an error |
/// | `Vec<u8>` | array of numbers |
/// | bytes, written as such (for example by the crate serde_bytes) | `Uint8Array` |
///
/// # JavaScript values in Rust
///
/// | in JavaScript | in Rust |
/// | --- | --- |
/// | number without a fraction | the integer or float type asked for, if the number fits |
/// | `undefined` | as null: `None`, `()` |
/// | `Date`, read as text or as any type | RFC 3339 in UTC, as `toISOString` returns (times of chrono, jiff and time, `serde_json::Value`) |
/// | `Date`, read as a number | milliseconds since 1970, as `getTime` returns |
/// | invalid `Date` | null |
/// | `Uint8Array`, `Buffer` | bytes or a list of numbers, as asked for |
/// | `Map`, object | a map, with text or numbers as keys, as asked for |
/// | `Set` | a list |
/// | `BigInt` | an integer |
/// | text with half of a surrogate pair | an error, because Rust has no such text |
/// | record of msgpackr (a `Packr` without `useRecords: false`) | an error |
///
/// For types that take any value (`serde_json::Value`, untagged enums, `#[serde(flatten)]`), a
/// double beyond 32 bits without a fraction is an integer, and bytes are a list, as in JSON. In
/// JSON payloads (`HC1J`) a `Date` is always text, and bytes have the form that JSON gave them.
///
/// # Untrusted bytes
///
/// The codec checks the structure of a payload before it decodes it. Bytes that exceed
/// [`WireLimits`] in length, depth or number of values, that are truncated, or that continue after
/// the value are an error. Decompression stops at the limit. Beside the value itself, decoding
/// takes memory for the unpacked bytes and little else.
#[derive(Debug, Clone, Copy, Default)]
pub struct WireCodec {
    json: bool,
    pub(super) thresholds: Thresholds,
    limits: WireLimits,
}

/// The most bytes of a bus message in JSON, a format for people who watch the bus. The parsed
/// message takes a multiple of its length.
const MAX_JSON_MESSAGE: usize = 1 << 20;

/// Longer payloads are decoded on the blocking pool.
const MAX_INLINE_DECODE: usize = 64 << 10;

impl WireCodec {
    /// Creates a codec that writes MessagePack, with gzip from 64 KiB on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a codec as [`new`](Self::new) does, with [`json`](Self::json) if the environment
    /// variable `CACHE_FORMAT` is `json`, as in the TypeScript package. The variable is read during
    /// this call; its other values are ignored.
    #[must_use]
    pub fn from_env() -> Self {
        Self { json: env::var_os("CACHE_FORMAT").is_some_and(|it| it == "json"), ..Self::new() }
    }

    /// Writes JSON instead of MessagePack, for people to read. The codec always reads both.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Compresses MessagePack of at least this many bytes with gzip (`HC1G`), where that saves at
    /// least 15 %. Default: 65,536. `usize::MAX` is never.
    ///
    /// If a value is long enough for several compressions, the one with the greatest threshold is
    /// used.
    #[must_use]
    pub fn gzip_from(mut self, bytes: usize) -> Self {
        self.thresholds.gzip = bytes;
        self
    }

    /// Limits on the payloads that are read and written. Default: [`WireLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: WireLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the payload that [`encode`](Codec::encode) returns, with its encoding and the sizes
    /// before and after compression.
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Codec::encode).
    pub fn serialize_with_stats<V: Serialize + ?Sized>(
        &self,
        value: &V,
    ) -> Result<Serialized, BoxError> {
        let mut encoding = WireEncoding::MessagePack;
        let prefix = encoding.prefix().len();
        let mut bytes = write(encoding.prefix(), value, self.limits.nesting)?;
        let packed = bytes.get(prefix..).unwrap_or_default();
        if packed == NIL {
            bytes.truncate(prefix);
            bytes.extend(NULL_TEXT);
        } else if self.json || packed == NULL_TEXT {
            // A value that is this very text must not be read as null.
            encoding = WireEncoding::Json;
            bytes = encoding.prefix().to_vec();
            serde_json::to_writer(&mut bytes, value)?;
        }
        let original_bytes = bytes.len() - prefix;
        check_len(original_bytes, self.limits.unpacked)?;
        let mut ratio = 0.0;
        let packed = bytes.get(prefix..).unwrap_or_default();
        if encoding == WireEncoding::MessagePack
            && let Some(smaller) = self.thresholds.compress(packed)?
        {
            (encoding, bytes, ratio) = smaller;
        }
        check_len(bytes.len(), self.limits.stored)?;
        Ok(Serialized {
            encoding,
            original_bytes,
            stored_bytes: bytes.len(),
            ratio,
            compressed: encoding.is_compressed(),
            bytes,
        })
    }

    fn read<V: DeserializeOwned>(&self, packed: &[u8]) -> Result<V, BoxError> {
        check_len(packed.len(), self.limits.unpacked)?;
        validate(packed, self.limits.nesting, self.limits.values)?;
        Ok(read(packed, self.limits.values)?)
    }

    /// Reads a payload of a release before the prefixes.
    fn legacy<V: DeserializeOwned>(&self, bytes: &[u8]) -> Result<V, BoxError> {
        if bytes == NULL_TEXT || bytes == b"\"__hybridcache_null__\"" {
            return self.read(NIL);
        }
        self.read(bytes).or_else(|packed| {
            let json = serde_json::from_slice(bytes);
            json.map_err(|json| format!("neither MessagePack ({packed}) nor JSON ({json})").into())
        })
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for WireCodec {
    fn encode(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        Ok(self.serialize_with_stats(value)?.bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        check_len(bytes.len(), self.limits.stored)?;
        let Some((encoding, body)) = WireEncoding::split(bytes) else {
            return self.legacy(bytes);
        };
        match encoding.map_err(|tag| format!("unknown format tag {tag:?}"))? {
            WireEncoding::Json => Ok(serde_json::from_slice(body)?),
            WireEncoding::MessagePack if body == NULL_TEXT => self.read(NIL),
            encoding => match decompress(encoding, body, self.limits.unpacked)? {
                Some(packed) => self.read(&packed),
                None => self.read(body),
            },
        }
    }

    fn encode_plain(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        let plain = Self { thresholds: Thresholds::NEVER, ..*self };
        Ok(plain.serialize_with_stats(value)?.bytes)
    }

    /// Unpacks compressed messages and JSON.
    fn unpack(&self, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
        let (encoding, body) = match WireEncoding::split(bytes) {
            Some((encoding, body)) => (encoding.ok()?, body),
            None => (WireEncoding::Json, bytes),
        };
        if encoding != WireEncoding::Json {
            return decompress(encoding, body, limit).ok().flatten();
        }
        let message: serde_json::Value =
            (body.len() <= MAX_JSON_MESSAGE).then(|| serde_json::from_slice(body).ok())??;
        write(b"", &message, self.limits.nesting).ok()
    }

    /// Returns `true` for compressed payloads and for payloads of more than 64 KiB.
    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        let split = WireEncoding::split(bytes);
        bytes.len() > MAX_INLINE_DECODE
            || split.is_some_and(|(encoding, _)| encoding.is_ok_and(WireEncoding::is_compressed))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct User {
        id: u32,
        name: String,
        #[serde(default)]
        admin: bool,
    }

    fn user() -> User {
        User { id: 7, name: "Ann".to_owned(), admin: true }
    }

    fn encode<V: Serialize + DeserializeOwned>(value: &V) -> Vec<u8> {
        WireCodec::new().encode(value).unwrap()
    }

    fn decode<V: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<V, BoxError> {
        WireCodec::new().decode(bytes)
    }

    #[test]
    fn fields_are_written_by_name_so_unknown_and_missing_ones_do_no_harm() {
        let bytes = encode(&user());
        assert_eq!(bytes, b"HC1M\x83\xa2id\x07\xa4name\xa3Ann\xa5admin\xc3");
        assert_eq!(decode::<User>(&bytes).unwrap(), user());
        let other = b"HC1M\x83\xa4more\x01\xa4name\xa3Ann\xa2id\x07";
        assert_eq!(decode::<User>(other).unwrap(), User { admin: false, ..user() });
    }

    #[test]
    fn a_null_is_written_as_the_typescript_package_writes_it() {
        let bytes = encode(&None::<User>);
        assert_eq!(bytes, b"HC1M\xb4__hybridcache_null__");
        assert_eq!(decode::<Option<User>>(&bytes).unwrap(), None);
        // The text itself is read as text again.
        let text = String::from_utf8(NULL_TEXT[1..].to_vec()).unwrap();
        assert_eq!(encode(&text), b"HC1J\"__hybridcache_null__\"");
        assert_eq!(decode::<String>(&encode(&text)).unwrap(), text);
    }

    #[test]
    fn json_and_payloads_without_a_prefix_are_read() {
        let json = WireCodec::new().json().encode(&user()).unwrap();
        assert_eq!(json, br#"HC1J{"id":7,"name":"Ann","admin":true}"#);
        assert_eq!(decode::<User>(&json).unwrap(), user());
        assert_eq!(decode::<User>(&json[4..]).unwrap(), user());
        assert_eq!(decode::<User>(&encode(&user())[4..]).unwrap(), user());
    }

    #[test]
    fn a_list_may_have_any_number_of_wrapped_nulls() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Wrapped(Option<u8>);

        let list: Vec<Wrapped> = (0..200).map(|_| Wrapped(None)).collect();
        assert_eq!(decode::<Vec<Wrapped>>(&encode(&list)).unwrap(), list);
    }

    #[test]
    fn unknown_tags_are_errors() {
        for tag in [b'X', b'S', b'2', b'm'] {
            let bytes = [b"HC1", &[tag][..], b"\x07"].concat();
            decode::<u32>(&bytes).unwrap_err();
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic_or_overflow_the_stack() {
        let bytes = encode(&user());
        for end in 0..bytes.len() {
            decode::<User>(&bytes[..end]).unwrap_err();
        }
        decode::<User>(&[bytes.as_slice(), b"\0"].concat()).unwrap_err();
        for body in [vec![0x91; 100_000], vec![0x81; 100_000], vec![b'['; 100_000]] {
            for prefix in [&b"HC1M"[..], b"HC1J", b""] {
                let bytes = [prefix, &body].concat();
                decode::<serde_json::Value>(&bytes).unwrap_err();
            }
        }
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..200_000 {
            let mut bytes = encode(&user());
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = decode::<serde_json::Value>(&bytes);
            let _ = decode::<User>(&bytes);
        }
    }
}
