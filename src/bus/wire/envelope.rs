//! The four bytes before an event, and what a value is within one.

use std::borrow::Cow;

use super::{
    decode_error::DecodeError,
    limits::{MAX_BODY, MAX_PAYLOAD},
};
use crate::msgpack::envelope::{NIL, NULL_TEXT, PREFIX};

/// The MessagePack of a payload. `unpack` turns what is neither `HC1M` nor bare MessagePack into
/// the MessagePack that it stands for, of at most so many bytes, if it knows how.
pub(crate) fn unwrap_body(
    payload: &[u8],
    unpack: impl FnOnce(&[u8], usize) -> Option<Vec<u8>>,
) -> Result<Cow<'_, [u8]>, DecodeError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(DecodeError::TooLarge);
    }
    let body = match (payload.strip_prefix(PREFIX), payload.first()) {
        (Some(body), _) => Cow::Borrowed(body),
        // Of before there were prefixes, if it begins as a map does.
        (None, Some(0x80..=0x8f | 0xde | 0xdf)) => Cow::Borrowed(payload),
        _ => Cow::Owned(unpack(payload, MAX_BODY).ok_or(match payload {
            [b'H', b'C', b'1', tag, ..] => DecodeError::UnknownTag(*tag),
            _ => DecodeError::NotAMap,
        })?),
    };
    if body.len() > MAX_BODY { Err(DecodeError::TooLarge) } else { Ok(body) }
}

/// What stands in an event for a value that a codec has made these bytes of. `None` if it cannot
/// be said in an event as it is: the bytes are compressed, or not of the wire format.
pub(crate) fn strip_prefix(payload: &[u8]) -> Option<&[u8]> {
    match payload.strip_prefix(PREFIX)? {
        NULL_TEXT => Some(NIL),
        value => Some(value),
    }
}

/// The bytes that a codec makes the value of an event of. `None` for the one text that as a
/// payload would be read as null.
pub(crate) fn add_prefix(value: &[u8]) -> Option<Vec<u8>> {
    (value != NULL_TEXT).then(|| [PREFIX, value].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_is_a_null_in_an_event_and_a_text_in_a_payload() {
        let null = [&PREFIX[..], NULL_TEXT].concat();
        assert_eq!(strip_prefix(&null), Some(NIL));
        assert_eq!(add_prefix(NIL).unwrap(), b"HC1M\xc0");
        assert_eq!(add_prefix(NULL_TEXT), None, "as a value it is the text");
        assert_eq!(strip_prefix(b"HC1M\x07"), Some(&b"\x07"[..]));
        assert_eq!(add_prefix(b"\x07").unwrap(), b"HC1M\x07");
        assert_eq!(strip_prefix(b"HC1G\x07"), None);
    }

    #[test]
    fn what_is_not_known_is_left_to_who_knows_it() {
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
