//! Converts between encoded payloads and the plain MessagePack inside messages.

use std::borrow::Cow;

use super::{
    decode_error::DecodeError,
    limits::{MAX_BODY, MAX_PAYLOAD},
};
use crate::msgpack::envelope::{NIL, NULL_TEXT, PREFIX};

/// Returns the MessagePack of a message. `unpack` decodes a payload that is neither `HC1M` nor bare
/// MessagePack to at most the given number of bytes, or returns `None` if it cannot.
pub(crate) fn unwrap_body(
    payload: &[u8],
    unpack: impl FnOnce(&[u8], usize) -> Option<Vec<u8>>,
) -> Result<Cow<'_, [u8]>, DecodeError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(DecodeError::TooLarge);
    }
    let body = match (payload.strip_prefix(PREFIX), payload.first()) {
        (Some(body), _) => Cow::Borrowed(body),
        // An old release writes no prefix. The first byte is that of a map.
        (None, Some(0x80..=0x8f | 0xde | 0xdf)) => Cow::Borrowed(payload),
        _ => Cow::Owned(unpack(payload, MAX_BODY).ok_or(match payload {
            [b'H', b'C', b'1', tag, ..] => DecodeError::UnknownTag(*tag),
            _ => DecodeError::NotAMap,
        })?),
    };
    if body.len() > MAX_BODY { Err(DecodeError::TooLarge) } else { Ok(body) }
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
        fn unpack(payload: &[u8], max: usize) -> Option<Vec<u8>> {
            assert_eq!(max, MAX_BODY);
            Some(vec![payload[3]])
        }
        assert_eq!(unwrap_body(b"HC1M\x80", unpack).unwrap().as_ref(), b"\x80");
        assert_eq!(unwrap_body(b"\x80", unpack).unwrap().as_ref(), b"\x80");
        assert_eq!(unwrap_body(b"HC1J{}", unpack).unwrap().as_ref(), b"J");
        assert_eq!(unwrap_body(b"{ \"id\"", unpack).unwrap().as_ref(), b"i");
        assert_eq!(unwrap_body(b"HC1G", |_, _| None), Err(DecodeError::UnknownTag(b'G')));
        assert_eq!(unwrap_body(b"HC1", |_, _| None), Err(DecodeError::NotAMap));
        assert_eq!(
            unwrap_body(b"HC1G", |_, max| Some(vec![0; max + 1])),
            Err(DecodeError::TooLarge)
        );
    }
}
