//! What encoding a value came to.

use std::fmt;

/// How a payload is encoded.
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
    /// The name that the TypeScript package has for it.
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
            Self::MessagePack => b"HC1M",
            Self::Gzip => b"HC1G",
            Self::Zstd => b"HC1Z",
            Self::Lz4 => b"HC1L",
            Self::Json => b"HC1J",
        }
    }

    /// What the prefix says, and the bytes behind it; `None` without a prefix of this family, and
    /// the tag itself where it is of a release that is not known here.
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

/// A payload and how it was come by, see
/// [`serialize_with_stats`](crate::WireCodec::serialize_with_stats).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Serialized {
    /// What would be stored.
    pub bytes: Vec<u8>,
    /// How it is encoded.
    pub encoding: WireEncoding,
    /// The bytes of the MessagePack or JSON, uncompressed and without the prefix.
    pub original_bytes: usize,
    /// The length of `bytes`, with the prefix.
    pub stored_bytes: usize,
    /// The fraction saved: `1 - compressed / original`, both without the prefix. 0 where nothing
    /// was compressed.
    pub ratio: f64,
    /// Whether it is compressed.
    pub compressed: bool,
}
