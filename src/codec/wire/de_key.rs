//! Deserializes keys of maps.
//!
//! JavaScript has text as keys of objects and any value as keys of a `Map`. So a text is parsed
//! where a number is asked for, and a number is written out where text is asked for.

use serde::de::{
    Deserializer, Error as _, Visitor,
    value::{BorrowedStrDeserializer, Error, StringDeserializer},
};

use super::{date::Date, js_number::exact_i64};
use crate::msgpack::reader::Token;

/// More options and newtypes than any sensible type has around one value. They take no bytes, so a
/// type that contains itself through them alone would recurse without end.
pub(super) const MAX_WRAPPERS: u8 = 64;

/// A token that stands where a key is expected.
pub(super) struct KeyReader<'de> {
    token: Token<'de>,
    wrapper_depth: u8,
}

enum Key<'de> {
    Text(&'de str),
    Number(i128),
    /// The text of a value that has an obvious one.
    Other(String),
}

/// Returns the text of these bytes; an error where they are not UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(Error::custom)
}

impl<'de> KeyReader<'de> {
    pub(super) fn new(token: Token<'de>) -> Self {
        Self { token, wrapper_depth: 0 }
    }

    fn enter_wrapper(mut self) -> Result<Self, Error> {
        self.wrapper_depth += 1;
        if self.wrapper_depth > MAX_WRAPPERS {
            return Err(Error::custom("a type that contains itself without end"));
        }
        Ok(self)
    }

    fn key(self) -> Result<Key<'de>, Error> {
        let other = match self.token {
            Token::Text(text) => return Ok(Key::Text(utf8(text)?)),
            Token::Unsigned(number) => return Ok(Key::Number(i128::from(number))),
            Token::Signed(number) => return Ok(Key::Number(i128::from(number))),
            Token::Float(float) => match exact_i64(float) {
                Some(number) => return Ok(Key::Number(i128::from(number))),
                None => Some(float.to_string()),
            },
            Token::Bool(value) => Some(value.to_string()),
            Token::Extension(kind, bytes) => Date::read(kind, bytes)?.map(Date::text),
            Token::Nil | Token::Bytes(_) | Token::Array(_) | Token::Map(_) => None,
        };
        let refused = || Error::custom("a key of a map has to be text or a number");
        other.map(Key::Other).ok_or_else(refused)
    }

    fn visit_text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.key()? {
            Key::Text(text) => visitor.visit_borrowed_str(text),
            Key::Number(number) => visitor.visit_string(number.to_string()),
            Key::Other(text) => visitor.visit_string(text),
        }
    }

    /// Passes the parsed text of the key; the text itself, for the visitor to refuse, where it
    /// does not parse.
    fn visit_parsed<V: Visitor<'de>, T: std::str::FromStr>(
        self,
        visitor: V,
        visit: impl FnOnce(V, T) -> Result<V::Value, Error>,
    ) -> Result<V::Value, Error> {
        let text = match self.key()? {
            Key::Text(text) => text.to_owned(),
            Key::Number(number) => number.to_string(),
            Key::Other(text) => text,
        };
        match text.parse() {
            Ok(value) => visit(visitor, value),
            Err(_) => visitor.visit_string(text),
        }
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.visit_parsed(visitor, V::$visit)
        }
    )*};
}

impl<'de> Deserializer<'de> for KeyReader<'de> {
    type Error = Error;

    parsed! {
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32
        deserialize_i64 visit_i64 deserialize_i128 visit_i128
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
        deserialize_u64 visit_u64 deserialize_u128 visit_u128
        deserialize_f32 visit_f32 deserialize_f64 visit_f64 deserialize_bool visit_bool
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit_text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self.enter_wrapper()?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self.enter_wrapper()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.key()? {
            Key::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            Key::Number(number) => visitor.visit_enum(StringDeserializer::new(number.to_string())),
            Key::Other(name) => visitor.visit_enum(StringDeserializer::new(name)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.token.children() > 0 {
            return Err(Error::custom("a key of a map has to be text or a number"));
        }
        visitor.visit_unit()
    }
}
