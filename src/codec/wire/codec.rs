//! The codec of the wire format.

use std::env;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    compress::{Thresholds, decompress},
    de::read,
    envelope::{Serialized, WireEncoding},
    json::to_message_pack,
    limits::{WireLimits, check_len},
    ser::write,
};
use crate::codec::contract::Codec;
use crate::error::BoxError;
use crate::msgpack::{
    envelope::{NIL, NULL_TEXT, PREFIX},
    reader::{Reader, Token, validate},
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
/// | no prefix | MessagePack or JSON of releases before the prefixes | read, unless the bytes are both |
///
/// A null (a `None` in `V`) is written as the TypeScript package writes it, so it is a hit there
/// too. There is one null: `Some(None)` of an `Option<Option<T>>`, and `Some` of any other value
/// that is written as null, such as `()`, are read as `None`.
///
/// ```
/// use lazy_layers_cache::{Codec, WireCodec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, Debug, PartialEq)]
/// struct User { name: String, age: u8 }
///
/// let ada = User { name: "Ada".to_owned(), age: 36 };
/// let bytes = WireCodec::new().encode(&ada)?;
/// assert!(bytes.starts_with(b"HC1M"));
/// assert_eq!(ada, WireCodec::new().decode(&bytes)?);
/// # Ok::<(), lazy_layers_cache::BoxError>(())
/// ```
///
/// # Rust values in JavaScript
///
/// | in Rust | in JavaScript |
/// | --- | --- |
/// | struct | object |
/// | enum | `"Name"` or `{ Name: content }`, as in JSON |
/// | type with a human-readable form (address, UUID, time of chrono, jiff or time) | text |
/// | text, number, bool, `char` or variant without fields, as key of a map | name of a property |
/// | any other key of a map | an error |
/// | integer up to 2^53 | number |
/// | integer of at most 64 bits beyond 2^53 | `BigInt` |
/// | `i128`, `u128`: a number of more than 64 bits | an error, and the value stays in L1 (as key of a map: its digits) |
/// | infinity, NaN | the same number; an error under [`json`](Self::json), which has neither |
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
/// # Keys of maps
///
/// Serde buffers the content of untagged, flattened and internally tagged types before it converts
/// it, and converts no text into a number. Numbers and bools as keys of maps are read there all
/// the same. JavaScript and JSON have text as keys: a payload with such keys that does not decode
/// is decoded again with the texts as numbers or bools, map by map, which takes as long again for
/// each map of the type. Where a text and a number both fit, as for an untagged enum with a map of
/// each kind, a text is taken for a text.
///
/// Serde reads no integers of 128 bits within these types, and neither bools nor negative numbers
/// as keys of a map that is flattened within one of them. The cache notices values that are not
/// read again, see [`Codec`].
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
    ///
    /// ```
    /// use lazy_layers_cache::{Codec, WireCodec};
    ///
    /// assert_eq!(WireCodec::new().encode(&7_u8)?, b"HC1M\x07");
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a codec as [`new`](Self::new) does, with [`json`](Self::json) if the environment
    /// variable `CACHE_FORMAT` is `json`, as in the TypeScript package. The variable is read during
    /// this call; its other values are ignored.
    ///
    /// ```
    /// use lazy_layers_cache::{Codec, WireCodec};
    ///
    /// // Reads both formats, whichever it writes.
    /// let bytes = WireCodec::from_env().encode(&7_u8)?;
    /// let value: u8 = WireCodec::new().decode(&bytes)?;
    /// assert_eq!(value, 7);
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
    #[must_use]
    pub fn from_env() -> Self {
        Self { json: env::var_os("CACHE_FORMAT").is_some_and(|it| it == "json"), ..Self::new() }
    }

    /// Writes JSON instead of MessagePack, for people to read. The codec always reads both. Values
    /// in messages of the bus are MessagePack all the same. A value with an infinity or NaN in it
    /// cannot be encoded: JSON has neither, and a null is no float.
    ///
    /// ```
    /// use lazy_layers_cache::{Codec, WireCodec};
    ///
    /// let bytes = WireCodec::new().json().encode(&vec![1, 2, 3])?;
    /// assert_eq!(bytes, b"HC1J[1,2,3]");
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
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
    ///
    /// ```
    /// use lazy_layers_cache::{Codec, WireCodec};
    ///
    /// let page = "<p>".repeat(1_000);
    /// assert!(WireCodec::new().encode(&page)?.starts_with(b"HC1M"));
    /// assert!(WireCodec::new().gzip_from(1_000).encode(&page)?.starts_with(b"HC1G"));
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
    #[must_use]
    pub fn gzip_from(mut self, bytes: usize) -> Self {
        self.thresholds.gzip = bytes;
        self
    }

    /// Limits on the payloads that are read and written. Default: [`WireLimits::default`].
    ///
    /// ```
    /// use lazy_layers_cache::{Codec, WireCodec, WireLimits};
    ///
    /// let codec = WireCodec::new().limits(WireLimits::default().stored(1_000));
    /// assert!(codec.encode(&"x".repeat(100)).is_ok());
    /// assert!(codec.encode(&"x".repeat(2_000)).is_err());
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
    #[must_use]
    pub fn limits(mut self, limits: WireLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the payload that [`encode`](Codec::encode) returns, with its encoding and the sizes
    /// before and after compression.
    ///
    /// ```
    /// use lazy_layers_cache::{WireCodec, WireEncoding};
    ///
    /// let page = "<p>".repeat(50_000);
    /// let serialized = WireCodec::new().serialize_with_stats(&page)?;
    /// assert_eq!(serialized.encoding, WireEncoding::Gzip);
    /// println!("{} of {} bytes", serialized.stored_bytes, serialized.original_bytes);
    /// # Ok::<(), lazy_layers_cache::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Codec::encode).
    pub fn serialize_with_stats<V: Serialize + ?Sized>(
        &self,
        value: &V,
    ) -> Result<Serialized, BoxError> {
        let bytes = write(PREFIX, value, self.limits.nesting)?;
        let packed = bytes.get(PREFIX.len()..).unwrap_or_default();
        if packed == NIL {
            return self.pack([&PREFIX[..], NULL_TEXT].concat());
        }
        // A value that is the text of a null must not be read as null.
        if !self.json && packed != NULL_TEXT {
            return self.pack(bytes);
        }
        if has_non_finite(packed) {
            return Err("JSON has no infinity and no NaN: write MessagePack".into());
        }
        let encoding = WireEncoding::Json;
        let mut bytes = encoding.prefix().to_vec();
        serde_json::to_writer(&mut bytes, value)?;
        self.finish(encoding, bytes.len() - encoding.prefix().len(), bytes, 0.0)
    }

    /// Compresses MessagePack with its prefix, if it is long enough.
    fn pack(&self, bytes: Vec<u8>) -> Result<Serialized, BoxError> {
        let packed = bytes.get(PREFIX.len()..).unwrap_or_default();
        let length = packed.len();
        check_len(length, self.limits.unpacked)?;
        match self.thresholds.compress(packed)? {
            Some((encoding, bytes, ratio)) => self.finish(encoding, length, bytes, ratio),
            None => self.finish(WireEncoding::MessagePack, length, bytes, 0.0),
        }
    }

    fn finish(
        &self,
        encoding: WireEncoding,
        original_bytes: usize,
        bytes: Vec<u8>,
        ratio: f64,
    ) -> Result<Serialized, BoxError> {
        check_len(original_bytes, self.limits.unpacked)?;
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

    fn read_json<V: DeserializeOwned>(&self, json: &[u8]) -> Result<V, BoxError> {
        serde_json::from_slice(json).or_else(|error| {
            // The types whose keys `read` finds the form of.
            let packed = to_message_pack(json, self.limits.nesting);
            packed.and_then(|packed| self.read(&packed)).map_err(|_| error.into())
        })
    }

    /// Reads a payload of a release before the prefixes.
    fn legacy<V: DeserializeOwned>(&self, bytes: &[u8]) -> Result<V, BoxError> {
        if bytes == NULL_TEXT || bytes == b"\"__hybridcache_null__\"" {
            return self.read(NIL);
        }
        // The only JSON texts that are MessagePack too: in MessagePack, the first byte of a JSON
        // text is a whole value, an integer from 32 to 126.
        if let [b'0'..=b'9'] = bytes {
            return Err("ambiguous: one digit as JSON, another number as MessagePack".into());
        }
        self.read(bytes).or_else(|packed| {
            let json = self.read_json(bytes);
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
            WireEncoding::Json => self.read_json(body),
            WireEncoding::MessagePack if body == NULL_TEXT => self.read(NIL),
            encoding => match decompress(encoding, body, self.limits.unpacked)? {
                Some(packed) => self.read(&packed),
                None => self.read(body),
            },
        }
    }

    fn is_null(&self, bytes: &[u8]) -> bool {
        match WireEncoding::split(bytes) {
            Some((Ok(WireEncoding::Json), body)) => body == b"null",
            Some((Ok(_), body)) => body == NULL_TEXT || body == NIL,
            _ => false,
        }
    }

    /// Returns MessagePack also under [`json`](Self::json): messages are MessagePack.
    fn encode_plain(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        let plain = Self { thresholds: Thresholds::NEVER, json: false, ..*self };
        Ok(plain.serialize_with_stats(value)?.bytes)
    }

    fn plain_form(&self) -> Option<(&'static str, usize)> {
        Some(("HC1M", self.limits.nesting))
    }

    fn encode_from_plain(&self, value: &V, plain: &[u8]) -> Result<Vec<u8>, BoxError> {
        // JSON for a value that is the text of a null.
        if self.json || !plain.starts_with(PREFIX) {
            return self.encode(value);
        }
        Ok(self.pack(plain.to_vec())?.bytes)
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

/// Whether MessagePack has a float that JSON cannot write.
fn has_non_finite(packed: &[u8]) -> bool {
    let mut reader = Reader::new(packed);
    std::iter::from_fn(|| reader.token().ok())
        .any(|token| matches!(token, Token::Float(float) if !float.is_finite()))
}

#[cfg(test)]
mod tests;
