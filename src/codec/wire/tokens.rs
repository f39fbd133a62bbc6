//! Reads the tokens of a payload: text has to be UTF-8, and numbers are those of JavaScript, which
//! has one kind of number, the double.

use serde::de::{Error as _, Visitor};

use super::decode_error::Error;
use crate::msgpack::{
    reader::{Reader, Token},
    writer::{MAX_EXACT, as_js_double},
};

/// More options and newtypes than any sensible type has around one value. They take no bytes, so a
/// type that contains itself through them alone would recurse without end.
const MAX_WRAPPERS: u8 = 64;

pub(super) struct Tokens<'de> {
    pub(super) bytes: Reader<'de>,
    /// Options and newtypes entered since the last token: at most [`MAX_WRAPPERS`].
    wrapper_depth: u8,
}

impl<'de> Tokens<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes: Reader::new(bytes), wrapper_depth: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Token<'de>, Error> {
        self.wrapper_depth = 0;
        self.bytes.token().map_err(Error::custom)
    }

    pub(super) fn enter_wrapper(&mut self) -> Result<(), Error> {
        self.wrapper_depth += 1;
        if self.wrapper_depth > MAX_WRAPPERS {
            return Err(Error::custom("a type that contains itself without end"));
        }
        Ok(())
    }

    /// Reads past one value with all its children.
    pub(super) fn skip_value(&mut self) -> Result<(), Error> {
        let mut to_come = 1u64;
        while to_come > 0 {
            to_come = (to_come - 1).saturating_add(self.next()?.children());
        }
        Ok(())
    }
}

/// Returns the text of these bytes; an error where they are not UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(Error::custom)
}

/// Returns the integer that a double stands for: it has no fraction and is within 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the double has no fraction and is within 2^53"
)]
pub(super) fn exact_i64(double: f64) -> Option<i64> {
    (double.abs() <= MAX_EXACT as f64 && double.fract() == 0.0).then_some(double as i64)
}

/// Passes a double to a type that takes any value: as an integer if JavaScript writes that integer
/// like this, that is, beyond 32 bits. Visitors of floats take integers too.
pub(super) fn visit_any_double<'de, V: Visitor<'de>>(
    visitor: V,
    double: f64,
) -> Result<V::Value, Error> {
    match exact_i64(double) {
        Some(integer) if as_js_double(integer.into()).is_some() => visit_integer(integer, visitor),
        _ => visitor.visit_f64(double),
    }
}

/// Passes an integer by a method that visitors of signed and of unsigned integers have.
pub(super) fn visit_integer<'de, V: Visitor<'de>>(
    integer: i64,
    visitor: V,
) -> Result<V::Value, Error> {
    match u64::try_from(integer) {
        Ok(unsigned) => visitor.visit_u64(unsigned),
        Err(_) => visitor.visit_i64(integer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_stands_for_the_integer_it_equals_up_to_2_53() {
        assert_eq!(exact_i64(MAX_EXACT as f64), Some(1 << 53));
        assert_eq!(exact_i64(-(MAX_EXACT as f64)), Some(-(1 << 53)));
        let beyond = MAX_EXACT as f64 + 2.0;
        for other in [beyond, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(exact_i64(other), None, "{other}");
        }
    }
}
