//! The wire format: four bytes that say what follows, then MessagePack or JSON.

use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, scan::scan};
use crate::error::BoxError;

/// The bytes that the TypeScript package writes and reads: fields by name, in MessagePack.
///
/// | prefix | what follows | |
/// | --- | --- | --- |
/// | `HC1M` | MessagePack | written |
/// | `HC1J` | JSON | written under [`json`](Self::json), for people to read |
/// | `HC1` and another | what another release writes, or a compression not supported here | an error, hence a miss |
/// | none of these | MessagePack or JSON of before there were prefixes | read |
///
/// A null (a `None` in `V`) is written as the package writes it, and so is a hit there too.
///
/// Bytes are not trusted: longer than 32 MiB, nested deeper than 128, truncated or with anything
/// behind their end they are an error before they are decoded.
///
/// Not here yet: compression, and numbers, dates and `undefined` in the forms that only
/// JavaScript gives them.
#[derive(Debug, Clone, Copy, Default)]
pub struct WireCodec {
    json: bool,
}

/// A null is written as this text, so that it can be told from nothing.
const NULL: &str = "__hybridcache_null__";
const NIL: [u8; 1] = [0xc0];

const MESSAGE_PACK: &[u8; 4] = b"HC1M";
const JSON: &[u8; 4] = b"HC1J";

const MAX_BYTES: usize = 32 << 20;
const MAX_DEPTH: usize = 128;

impl WireCodec {
    /// Writes MessagePack.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes JSON, to be read by people. Both are read in any case.
    #[must_use]
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }
}

impl<V: Serialize + DeserializeOwned> Codec<V> for WireCodec {
    fn encode(&self, value: &V) -> Result<Vec<u8>, BoxError> {
        let mut bytes = MESSAGE_PACK.to_vec();
        if self.json {
            bytes = with_json(value)?;
        } else {
            rmp_serde::encode::write_named(&mut bytes, value)?;
            let null = null()?;
            let body = bytes.get(MESSAGE_PACK.len()..).unwrap_or_default();
            // What could not be read again is not written.
            scan(body, MAX_DEPTH)?;
            if body == NIL {
                bytes.truncate(MESSAGE_PACK.len());
                bytes.extend(null);
            } else if body == null {
                // A caller who really means that text gets it back.
                bytes = with_json(value)?;
            }
        }
        if bytes.len() > MAX_BYTES {
            return Err(format!("{} bytes are more than {MAX_BYTES}", bytes.len()).into());
        }
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("{} bytes are more than {MAX_BYTES}", bytes.len()).into());
        }
        match bytes.split_first_chunk::<4>() {
            Some((MESSAGE_PACK, body)) if body == null()? => unpack(&NIL),
            Some((MESSAGE_PACK, body)) => unpack(body),
            Some((JSON, body)) => Ok(serde_json::from_slice(body)?),
            Some(([b'H', b'C', b'1', tag], _)) => {
                Err(format!("tag {:?} is not known here", char::from(*tag)).into())
            }
            _ => unpack(bytes).or_else(|_| Ok(serde_json::from_slice(bytes)?)),
        }
    }
}

fn unpack<V: DeserializeOwned>(body: &[u8]) -> Result<V, BoxError> {
    scan(body, MAX_DEPTH)?;
    Ok(rmp_serde::from_slice(body)?)
}

fn null() -> Result<Vec<u8>, BoxError> {
    Ok(rmp_serde::to_vec(NULL)?)
}

fn with_json(value: &impl Serialize) -> Result<Vec<u8>, BoxError> {
    let mut bytes = JSON.to_vec();
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
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
        for tag in [b'G', b'Z', b'L', b'X', b'2'] {
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
