//! Converts between encoded payloads and the plain MessagePack inside messages.

use std::borrow::Cow;

use super::{
    decode_error::DecodeError,
    limits::{MAX_BODY, MAX_PAYLOAD},
};
use crate::msgpack::envelope::{NIL, NULL_TEXT, PREFIX};

/// Whether a message is neither `HC1M` nor bare MessagePack, so that a codec must unpack it.
pub(crate) fn is_packed(payload: &[u8]) -> bool {
    payload.len() <= MAX_PAYLOAD && plain_body(payload).is_none()
}

/// Returns the MessagePack of a message. `unpacked` is that of a message that
/// [is packed](is_packed), of at most `MAX_BODY` bytes; `None` if it could not be unpacked.
pub(crate) fn unwrap_body(
    payload: &[u8],
    unpacked: Option<Vec<u8>>,
) -> Result<Cow<'_, [u8]>, DecodeError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(DecodeError::TooLarge);
    }
    let body = match plain_body(payload) {
        Some(body) => Cow::Borrowed(body),
        None => Cow::Owned(unpacked.ok_or(match payload {
            [b'H', b'C', b'1', tag, ..] => DecodeError::UnknownTag(*tag),
            _ => DecodeError::NotAMap,
        })?),
    };
    if body.len() > MAX_BODY { Err(DecodeError::TooLarge) } else { Ok(body) }
}

fn plain_body(payload: &[u8]) -> Option<&[u8]> {
    match (payload.strip_prefix(PREFIX), payload.first()) {
        (Some(body), _) => Some(body),
        // An old release writes no prefix. The first byte is that of a map.
        (None, Some(0x80..=0x8f | 0xde | 0xdf)) => Some(payload),
        _ => None,
    }
}

/// Returns the MessagePack of a value that a codec has encoded, to be sent in a message. `None` if
/// the bytes are compressed, or are not of the wire format.
pub(crate) fn strip_prefix(payload: &[u8]) -> Option<&[u8]> {
    match payload.strip_prefix(PREFIX)? {
        NULL_TEXT => Some(NIL),
        value => Some(value),
    }
}

/// Returns the bytes from which a codec decodes a value of a message. `None` for the one text that
/// a codec would decode as null.
pub(crate) fn add_prefix(value: &[u8]) -> Option<Vec<u8>> {
    (value != NULL_TEXT).then(|| [PREFIX, value].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_is_nil_in_a_message_and_a_text_in_a_payload() {
        let null = [&PREFIX[..], NULL_TEXT].concat();
        assert_eq!(strip_prefix(&null), Some(NIL));
        assert_eq!(add_prefix(NIL).unwrap(), b"HC1M\xc0");
        assert_eq!(add_prefix(NULL_TEXT), None, "a codec would decode it as null");
        assert_eq!(strip_prefix(b"HC1M\x07"), Some(&b"\x07"[..]));
        assert_eq!(add_prefix(b"\x07").unwrap(), b"HC1M\x07");
        assert_eq!(strip_prefix(b"HC1G\x07"), None);
    }

    #[test]
    fn an_unknown_encoding_is_left_to_unpack() {
        for plain in [&b"HC1M\x80"[..], b"\x80"] {
            assert!(!is_packed(plain));
            assert_eq!(unwrap_body(plain, None).unwrap().as_ref(), b"\x80");
        }
        for (packed, error) in [
            (&b"HC1J{}"[..], DecodeError::UnknownTag(b'J')),
            (b"HC1G", DecodeError::UnknownTag(b'G')),
            (b"{ \"id\"", DecodeError::NotAMap),
            (b"HC1", DecodeError::NotAMap),
        ] {
            assert!(is_packed(packed));
            assert_eq!(unwrap_body(packed, Some(vec![7])).unwrap().as_ref(), b"\x07");
            assert_eq!(unwrap_body(packed, None), Err(error));
        }
        let too_large = Some(vec![0; MAX_BODY + 1]);
        assert_eq!(unwrap_body(b"HC1G", too_large), Err(DecodeError::TooLarge));
    }
}
