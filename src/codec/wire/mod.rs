//! The wire format: four bytes that say what follows, then MessagePack or JSON.

mod compress;
mod date;
mod encoded;
mod head;
mod limits;
mod number;
mod read;
mod read_key;
mod scan;
mod write;
mod write_key;

use std::env;

use serde::{Serialize, de::DeserializeOwned};

use self::{
    compress::{Tiers, decompress},
    limits::at_most,
    read::read,
    scan::scan,
    write::write,
};
pub use self::{
    encoded::{Serialized, WireEncoding},
    limits::WireLimits,
};
use super::Codec;
use crate::error::BoxError;

/// The bytes that the TypeScript package writes and reads: fields by name, in MessagePack.
///
/// | prefix | what follows | |
/// | --- | --- | --- |
/// | `HC1M` | MessagePack | written |
/// | `HC1G` | gzip of MessagePack | written from 64 KiB on, where it saves 15 % or more |
/// | `HC1J` | JSON | written under [`json`](Self::json), for people to read |
/// | `HC1Z` | zstd of MessagePack | read under the feature `zstd`, written under its `zstd_from` |
/// | `HC1L` | lz4 of MessagePack | read under the feature `lz4`, written under its `lz4_from` |
/// | `HC1` and another | what another release writes | an error, hence a miss |
/// | none of these | MessagePack or JSON of before there were prefixes | read |
///
/// A null (a `None` in `V`) is written as the package writes it, and so is a hit there too.
///
/// # What JavaScript sees
///
/// Structs are objects, enums what JSON makes of them (`"Name"` or `{ Name: content }`), and types
/// with a human-readable form (addresses, UUIDs, times of chrono, jiff or time) are text, in
/// MessagePack as in JSON. Keys of maps are text. Integers are numbers up to 2^53 and a `BigInt`
/// beyond; of more than 64 bits they are an error. A `Vec<u8>` is an array of numbers, and a
/// `Uint8Array` if it is written as bytes (by the crate serde_bytes, say).
///
/// # What Rust sees
///
/// | of JavaScript | in Rust |
/// | --- | --- |
/// | number without a fraction | whichever integer or float is asked for, if it fits |
/// | `undefined` | as null: `None`, `()` |
/// | `Date` | RFC 3339 in UTC, as `toISOString` has it, for whoever asks for text or for anything (times of chrono, jiff and time, `serde_json::Value`); milliseconds since 1970, as `getTime` has it, for whoever asks for a number; null if it is no valid date |
/// | `Uint8Array`, `Buffer` | bytes or a list of numbers, whichever is asked for |
/// | `Map` | a map; its keys and those of objects are text or numbers, whichever is asked for |
/// | `Set` | a list |
/// | `BigInt` | an integer |
/// | text cut between the halves of a surrogate pair | an error, as it is no text in Rust |
/// | records, which a `Packr` of msgpackr writes unless told `useRecords: false` | an error |
///
/// Where a type asks for anything (`serde_json::Value`, untagged enums, `#[serde(flatten)]`), a
/// double beyond 32 bits without a fraction is an integer and bytes are a list, as in JSON. In
/// payloads that are JSON (`HC1J`) a `Date` is text for everyone and bytes are what JSON made of
/// them.
///
/// # Bytes are not trusted
///
/// What is longer, deeper or of more values than [`WireLimits`] allow, truncated or with anything
/// behind its end is an error before it is decoded; decompression stops at the limit. Beside the
/// value itself, decoding takes the unpacked bytes and little else.
#[derive(Debug, Clone, Copy, Default)]
pub struct WireCodec {
    json: bool,
    tiers: Tiers,
    limits: WireLimits,
}

/// A null is written as this text, so that it can be told from nothing.
const NULL: &str = "__hybridcache_null__";
const NIL: [u8; 1] = [0xc0];

/// JSON is for people who look into a bus.
const LONGEST_JSON_EVENT: usize = 1 << 20;

/// From here on, decoding is worth a thread of its own.
const HEAVY: usize = 64 << 10;

impl WireCodec {
    /// Writes MessagePack, with gzip from 64 KiB on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), but [`json`](Self::json) if the environment variable `CACHE_FORMAT`
    /// is `json`, which is how the TypeScript package is told. It is read here and now; other
    /// values mean nothing.
    #[must_use]
    pub fn from_env() -> Self {
        Self { json: env::var_os("CACHE_FORMAT").is_some_and(|it| it == "json"), ..Self::new() }
    }

    /// Writes JSON, to be read by people. Both are read in any case.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// Writes `HC1G` (gzip) from so many bytes of MessagePack on, where it saves 15 % or more.
    /// Default: 65,536. `usize::MAX` is never.
    ///
    /// Where more than one compression begins below a size, the one that begins nearest to it is
    /// taken.
    #[must_use]
    pub fn gzip_from(mut self, bytes: usize) -> Self {
        self.tiers.gzip = bytes;
        self
    }

    /// What is refused. Default: [`WireLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: WireLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The payload of a value, as [`encode`](Codec::encode) makes it, and what became of its size.
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Codec::encode).
    pub fn serialize_with_stats<V: Serialize + ?Sized>(
        &self,
        value: &V,
    ) -> Result<Serialized, BoxError> {
        let mut bytes = WireEncoding::MessagePack.prefix().to_vec();
        let prefix = bytes.len();
        write(&mut bytes, value, self.limits.nesting)?;
        let mut encoding = WireEncoding::MessagePack;
        let packed = bytes.get(prefix..).unwrap_or_default();
        if packed == NIL {
            bytes.truncate(prefix);
            write(&mut bytes, NULL, self.limits.nesting)?;
        } else if self.json || packed == null()? {
            // A caller who really means that text gets it back.
            encoding = WireEncoding::Json;
            bytes = encoding.prefix().to_vec();
            serde_json::to_writer(&mut bytes, value)?;
        }
        let original_bytes = bytes.len() - prefix;
        at_most(original_bytes, self.limits.unpacked)?;
        let mut ratio = 0.0;
        let packed = bytes.get(prefix..).unwrap_or_default();
        if encoding == WireEncoding::MessagePack
            && let Some(smaller) = self.tiers.compress(packed)?
        {
            (encoding, bytes, ratio) = smaller;
        }
        at_most(bytes.len(), self.limits.stored)?;
        Ok(Serialized {
            encoding,
            original_bytes,
            stored_bytes: bytes.len(),
            ratio,
            compressed: encoding.is_compressed(),
            bytes,
        })
    }

    fn without_tiers(&self) -> Self {
        let never = Tiers { gzip: usize::MAX, zstd: usize::MAX, lz4: usize::MAX };
        Self { tiers: never, ..*self }
    }

    fn read<V: DeserializeOwned>(&self, packed: &[u8]) -> Result<V, BoxError> {
        let limits = self.limits;
        at_most(packed.len(), limits.unpacked)?;
        scan(packed, limits.nesting, limits.values)?;
        Ok(read(packed, limits.values)?)
    }

    /// What was written before there were prefixes.
    fn legacy<V: DeserializeOwned>(&self, bytes: &[u8]) -> Result<V, BoxError> {
        if bytes == null()? || bytes == serde_json::to_vec(NULL)? {
            return self.read(&NIL);
        }
        let packed = match self.read(bytes) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let text = serde_json::from_slice(bytes);
        text.map_err(|text| format!("neither MessagePack ({packed}) nor JSON ({text})").into())
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for WireCodec {
    fn encode(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        Ok(self.serialize_with_stats(value)?.bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        at_most(bytes.len(), self.limits.stored)?;
        let Some((encoding, body)) = WireEncoding::split(bytes) else {
            return self.legacy(bytes);
        };
        match encoding.map_err(|tag| format!("tag {tag:?} is not known here"))? {
            WireEncoding::Json => Ok(serde_json::from_slice(body)?),
            WireEncoding::MessagePack if body == null()? => self.read(&NIL),
            encoding => match decompress(encoding, body, self.limits.unpacked)? {
                Some(packed) => self.read(&packed),
                None => self.read(body),
            },
        }
    }

    fn encode_plain(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        Ok(self.without_tiers().serialize_with_stats(value)?.bytes)
    }

    /// What is compressed, and JSON.
    fn unpack(&self, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
        let (encoding, body) = match WireEncoding::split(bytes) {
            Some((encoding, body)) => (encoding.ok()?, body),
            None => (WireEncoding::Json, bytes),
        };
        if encoding != WireEncoding::Json {
            return decompress(encoding, body, limit).ok().flatten();
        }
        // What is built of it takes a multiple of its length.
        let event: serde_json::Value =
            (body.len() <= LONGEST_JSON_EVENT).then(|| serde_json::from_slice(body).ok())??;
        let mut packed = Vec::new();
        write(&mut packed, &event, self.limits.nesting).ok()?;
        Some(packed)
    }

    /// What is compressed or longer than 64 KiB.
    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        let split = WireEncoding::split(bytes);
        bytes.len() > HEAVY
            || split.is_some_and(|(encoding, _)| encoding.is_ok_and(WireEncoding::is_compressed))
    }
}

/// [`WireCodec::serialize_with_stats`] of a codec as [`WireCodec::new`] makes it.
///
/// # Errors
///
/// What cannot be said in MessagePack, and what is longer or deeper than [`WireLimits`] allow.
pub fn serialize_with_stats<V: Serialize + ?Sized>(value: &V) -> Result<Serialized, BoxError> {
    WireCodec::new().serialize_with_stats(value)
}

fn null() -> Result<Vec<u8>, BoxError> {
    let mut null = Vec::new();
    write(&mut null, NULL, 0)?;
    Ok(null)
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
    fn fields_go_by_name_so_that_one_more_or_less_does_no_harm() {
        let bytes = encode(&user());
        assert_eq!(bytes, b"HC1M\x83\xa2id\x07\xa4name\xa3Ann\xa5admin\xc3");
        assert_eq!(decode::<User>(&bytes).unwrap(), user());
        let other = b"HC1M\x83\xa4more\x01\xa4name\xa3Ann\xa2id\x07";
        assert_eq!(decode::<User>(other).unwrap(), User { admin: false, ..user() });
    }

    #[test]
    fn a_null_is_said_as_the_package_says_it() {
        let bytes = encode(&None::<User>);
        assert_eq!(bytes, b"HC1M\xb4__hybridcache_null__");
        assert_eq!(decode::<Option<User>>(&bytes).unwrap(), None);
        // The text itself is another matter.
        let text = NULL.to_owned();
        assert_eq!(encode(&text), b"HC1J\"__hybridcache_null__\"");
        assert_eq!(decode::<String>(&encode(&text)).unwrap(), text);
    }

    #[test]
    fn json_and_what_was_written_before_there_were_prefixes_are_read() {
        let json = WireCodec::new().json().encode(&user()).unwrap();
        assert_eq!(json, br#"HC1J{"id":7,"name":"Ann","admin":true}"#);
        assert_eq!(decode::<User>(&json).unwrap(), user());
        assert_eq!(decode::<User>(&json[4..]).unwrap(), user());
        assert_eq!(decode::<User>(&encode(&user())[4..]).unwrap(), user());
    }

    #[test]
    fn what_another_release_wrote_is_never_data() {
        for tag in [b'X', b'S', b'2', b'm'] {
            let bytes = [b"HC1", &[tag][..], b"\x07"].concat();
            decode::<u32>(&bytes).unwrap_err();
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_recurse() {
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
