//! Why bytes are not accepted as a message of the bus.

use std::fmt;

use super::limits::{MAX_KEYS, MAX_TEXT};
use crate::msgpack::reader::Malformed;

/// Why bytes are no message for this instance, or a message cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    UnknownTag(u8),
    NotMessagePack(Malformed),
    NotAMap,
    /// A type of a newer release. The content of the message is lost.
    UnknownType,
    Missing(&'static str),
    WrongType(&'static str),
    TooLong(&'static str),
    TooManyKeys,
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTag(tag) => {
                write!(f, "message of the unknown encoding {:?}", char::from(*tag))
            }
            Self::NotMessagePack(malformed) => write!(f, "message of malformed bytes: {malformed}"),
            Self::NotAMap => f.write_str("message is not a map of fields by name"),
            Self::UnknownType => f.write_str("message of an unknown type"),
            Self::Missing(field) => write!(f, "message without `{field}`"),
            Self::WrongType(field) => write!(f, "`{field}` of a message has the wrong type"),
            Self::TooLong(field) => {
                write!(f, "`{field}` of a message is longer than {MAX_TEXT} bytes")
            }
            Self::TooManyKeys => write!(f, "message with more than {MAX_KEYS} keys"),
            Self::TooLarge => f.write_str("message of too many bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        Self::NotMessagePack(malformed)
    }
}
