//! Deserializes keys of maps.
//!
//! JavaScript has text as keys of objects and any value as keys of a `Map`. So a text is parsed
//! where a number is asked for, and a number is written out where text is asked for. A type that
//! takes any value gets the key in the form that [`KeyForm`] says.

use std::borrow::Cow;

use serde::de::{
    Deserializer, Error as _, Visitor,
    value::{BorrowedStrDeserializer, StringDeserializer},
};

use super::{
    date::Date,
    decode_error::Error,
    key_form::KeyForm,
    scalar::parse_scalar,
    tokens::{Tokens, exact_i64, utf8, visit_any_double, visit_integer},
};
use crate::msgpack::reader::Token;

/// Reads the next value, which stands where a key is expected.
pub(super) struct KeyReader<'r, 'de> {
    pub(super) tokens: &'r mut Tokens<'de>,
    pub(super) form: KeyForm,
}

impl<'de> KeyReader<'_, 'de> {
    /// Passes a number as it is, and the parsed text of any other key; the text itself, for the
    /// visitor to refuse, where it does not parse.
    fn visit_parsed<V: Visitor<'de>, T: std::str::FromStr>(
        self,
        visitor: V,
        visit: impl FnOnce(V, T) -> Result<V::Value, Error>,
    ) -> Result<V::Value, Error> {
        let text = match self.tokens.next()? {
            Token::Unsigned(value) => return visitor.visit_u64(value),
            Token::Signed(value) => return visitor.visit_i64(value),
            other => text_of(other)?,
        };
        match text.parse() {
            Ok(value) => visit(visitor, value),
            Err(_) => visit_text(text, visitor),
        }
    }
}

/// Returns the text of a key; an error for a value that has no obvious one.
fn text_of(key: Token<'_>) -> Result<Cow<'_, str>, Error> {
    let text = match key {
        Token::Text(text) => return utf8(text).map(Cow::Borrowed),
        Token::Unsigned(number) => Some(number.to_string()),
        Token::Signed(number) => Some(number.to_string()),
        Token::Float(float) => match exact_i64(float) {
            Some(number) => Some(number.to_string()),
            None => Some(float.to_string()),
        },
        Token::Bool(value) => Some(value.to_string()),
        Token::Extension(kind, bytes) => Date::read(kind, bytes)?.map(Date::text),
        Token::Nil | Token::Bytes(_) | Token::Array(_) | Token::Map(_) => None,
    };
    let refused = || Error::custom("a key of a map has to be text, a number or a bool");
    text.map(Cow::Owned).ok_or_else(refused)
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, Error> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.visit_parsed(visitor, V::$visit)
        }
    )*};
}

macro_rules! text {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visit_text(text_of(self.tokens.next()?)?, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for KeyReader<'_, 'de> {
    type Error = Error;

    parsed! {
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32
        deserialize_i64 visit_i64 deserialize_i128 visit_i128
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
        deserialize_u64 visit_u64 deserialize_u128 visit_u128
        deserialize_f32 visit_f32 deserialize_f64 visit_f64 deserialize_bool visit_bool
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }

    text! { deserialize_char deserialize_str deserialize_string }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let token = self.tokens.next()?;
        let scalar = match (self.form, token) {
            (KeyForm::Text, _) => None,
            (KeyForm::Parsed, Token::Text(text)) => parse_scalar(text),
            (KeyForm::Parsed | KeyForm::AsWritten, _) => Some(token),
        };
        match scalar {
            Some(Token::Bool(value)) => visitor.visit_bool(value),
            Some(Token::Unsigned(value)) => visitor.visit_u64(value),
            Some(Token::Signed(value)) => visit_integer(value, visitor),
            Some(Token::Float(value)) => visit_any_double(visitor, value),
            _ => visit_text(text_of(token)?, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.tokens.enter_wrapper()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.tokens.enter_wrapper()?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match text_of(self.tokens.next()?)? {
            Cow::Borrowed(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            Cow::Owned(name) => visitor.visit_enum(StringDeserializer::new(name)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.tokens.skip_value()?;
        visitor.visit_unit()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, de::IgnoredAny};

    use super::*;

    #[test]
    fn an_ignored_key_may_be_an_array() {
        let mut tokens = Tokens::new(b"\x92\x01\x91\xc0");
        let key = KeyReader { tokens: &mut tokens, form: KeyForm::AsWritten };
        IgnoredAny::deserialize(key).unwrap();
        tokens.bytes.end().unwrap();
    }
}
