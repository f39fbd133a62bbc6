//! Why bytes are not taken for an event.

use std::fmt;

use super::limits::{MAX_KEYS, MAX_TEXT};
use crate::msgpack::reader::Malformed;

/// Why bytes are no event for us, or a message cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// Belongs to another namespace. Nobody's fault, and nothing of ours is lost.
    OtherNamespace,
    /// Packed in a way that is not known here.
    UnknownTag(u8),
    NotMessagePack(Malformed),
    NotAMap,
    /// A type of a newer release. What it would have said is lost on us.
    UnknownType,
    Missing(&'static str),
    /// The field is not of its type.
    WrongType(&'static str),
    TooLong(&'static str),
    TooManyKeys,
    TooLarge,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherNamespace => f.write_str("event of another namespace"),
            Self::UnknownTag(tag) => {
                write!(f, "event packed as {:?}, which is not known here", char::from(*tag))
            }
            Self::NotMessagePack(malformed) => write!(f, "event of malformed bytes: {malformed}"),
            Self::NotAMap => f.write_str("event is not a map of fields by name"),
            Self::UnknownType => f.write_str("event of an unknown type"),
            Self::Missing(field) => write!(f, "event without `{field}`"),
            Self::WrongType(field) => write!(f, "`{field}` of an event is not of its type"),
            Self::TooLong(field) => {
                write!(f, "`{field}` of an event is longer than {MAX_TEXT} bytes")
            }
            Self::TooManyKeys => write!(f, "event with more than {MAX_KEYS} keys"),
            Self::TooLarge => f.write_str("event of too many bytes"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        Self::NotMessagePack(malformed)
    }
}
