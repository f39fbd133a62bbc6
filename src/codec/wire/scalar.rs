//! Reads numbers and bools that are written as text, as keys of objects are in JavaScript and JSON.

use crate::msgpack::reader::Token;

/// Returns the number or the bool that a text stands for. Words such as `nan` stand for none.
pub(super) fn parse_scalar(text: &[u8]) -> Option<Token<'static>> {
    match text {
        b"true" => return Some(Token::Bool(true)),
        b"false" => return Some(Token::Bool(false)),
        [b'0'..=b'9', ..] | [b'-', b'0'..=b'9', ..] => {}
        _ => return None,
    }
    let text = std::str::from_utf8(text).ok()?;
    let integer = text.parse().map(Token::Unsigned).or_else(|_| text.parse().map(Token::Signed));
    integer.ok().or_else(|| text.parse().map(Token::Float).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_for_a_number_or_a_bool_or_for_nothing() {
        for (text, scalar) in [
            ("true", Token::Bool(true)),
            ("0", Token::Unsigned(0)),
            ("18446744073709551615", Token::Unsigned(u64::MAX)),
            ("-7", Token::Signed(-7)),
            ("1.5", Token::Float(1.5)),
            ("-1e300", Token::Float(-1e300)),
        ] {
            assert_eq!(parse_scalar(text.as_bytes()), Some(scalar), "{text}");
        }
        for other in ["", "-", "+1", "nan", "-inf", "True", "7 ", "0x1", "1a", "\u{661}"] {
            assert_eq!(parse_scalar(other.as_bytes()), None, "{other}");
        }
    }
}
