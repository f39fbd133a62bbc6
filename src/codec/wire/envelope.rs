//! The encodings of a payload and their prefixes.

use std::fmt;

use crate::msgpack::envelope::PREFIX;

/// The encoding of a payload.
///
/// ```
/// use lazy_layers_cache::{WireCodec, WireEncoding};
///
/// assert_eq!(WireCodec::new().serialize_with_stats(&7)?.encoding, WireEncoding::MessagePack);
/// # Ok::<(), lazy_layers_cache::BoxError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WireEncoding {
    /// `msgpack`, with the prefix `HC1M`.
    MessagePack,
    /// `msgpack-gzip`, with the prefix `HC1G`.
    Gzip,
    /// `msgpack-zstd`, with the prefix `HC1Z`.
    Zstd,
    /// `msgpack-lz4`, with the prefix `HC1L`.
    Lz4,
    /// `json`, with the prefix `HC1J`.
    Json,
}

impl WireEncoding {
    /// Returns the name that the TypeScript package uses.
    ///
    /// ```
    /// use lazy_layers_cache::WireEncoding;
    ///
    /// assert_eq!(WireEncoding::Gzip.as_str(), "msgpack-gzip");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessagePack => "msgpack",
            Self::Gzip => "msgpack-gzip",
            Self::Zstd => "msgpack-zstd",
            Self::Lz4 => "msgpack-lz4",
            Self::Json => "json",
        }
    }

    pub(super) fn is_compressed(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstd | Self::Lz4)
    }

    pub(super) fn prefix(self) -> &'static [u8; 4] {
        match self {
            Self::MessagePack => PREFIX,
            Self::Gzip => b"HC1G",
            Self::Zstd => b"HC1Z",
            Self::Lz4 => b"HC1L",
            Self::Json => b"HC1J",
        }
    }

    /// Splits a payload into its encoding and its body. `None` without a prefix; the tag of the
    /// prefix as error where only another release knows it.
    pub(super) fn split(bytes: &[u8]) -> Option<(Result<Self, char>, &[u8])> {
        let (prefix, body) = bytes.split_first_chunk::<4>()?;
        let [b'H', b'C', b'1', tag] = prefix else { return None };
        let all = [Self::MessagePack, Self::Gzip, Self::Zstd, Self::Lz4, Self::Json];
        let known = all.into_iter().find(|encoding| encoding.prefix() == prefix);
        Some((known.ok_or(char::from(*tag)), body))
    }
}

impl fmt::Display for WireEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A payload and how it was encoded: the result of
/// [`serialize_with_stats`](crate::WireCodec::serialize_with_stats).
///
/// ```
/// use lazy_layers_cache::WireCodec;
///
/// let serialized = WireCodec::new().serialize_with_stats("Ada")?;
/// assert_eq!(serialized.bytes, b"HC1M\xa3Ada");
/// assert_eq!((serialized.original_bytes, serialized.stored_bytes), (4, 8));
/// assert!(!serialized.compressed);
/// # Ok::<(), lazy_layers_cache::BoxError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Serialized {
    /// The payload, as stored.
    pub bytes: Vec<u8>,
    /// The encoding of the payload.
    pub encoding: WireEncoding,
    /// Number of bytes of the MessagePack or JSON, uncompressed and without the prefix.
    pub original_bytes: usize,
    /// Number of bytes of the payload, with the prefix.
    pub stored_bytes: usize,
    /// The fraction that compression saved: `1 - compressed / original`, both without the prefix.
    /// 0 where the payload is not compressed.
    pub ratio: f64,
    /// Whether the payload is compressed.
    pub compressed: bool,
}
