//! Deserializes MessagePack as JavaScript's encoder writes it, into the type that the caller asks
//! for.
//!
//! [`read`] expects bytes that the structural validation has passed, so depth and lengths are
//! within the limits; on other bytes it returns an error.
//!
//! Alternatives considered: the deserializer of a library. Refused because the meaning of a value
//! from JavaScript depends on the type asked for: a double becomes an integer, a `Date` becomes
//! text or milliseconds.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
    value::{BorrowedStrDeserializer, SeqDeserializer},
};

use super::{
    date::{self, Date},
    de_key::KeyReader,
    decode_error::Error,
    key_form::{KeyForm, KeyForms, decode_with_other_keys},
    tokens::{Tokens, exact_i64, utf8, visit_any_double, visit_integer},
};
use crate::msgpack::reader::Token;

/// Returns the value in these bytes. Binary data that `V` asks for as lists may become at most
/// `max_values` list elements in total.
pub(super) fn read<V: DeserializeOwned>(bytes: &[u8], max_values: usize) -> Result<V, Error> {
    let read_again = |keys| read_with_keys(bytes, max_values, keys);
    read_with_keys(bytes, max_values, KeyForms::default())
        .or_else(|error| decode_with_other_keys(bytes, read_again).ok_or(error))
}

fn read_with_keys<V: DeserializeOwned>(
    bytes: &[u8],
    max_values: usize,
    keys: KeyForms,
) -> Result<V, Error> {
    let mut reader = ValueReader { tokens: Tokens::new(bytes), values_left: max_values, keys };
    let value = V::deserialize(&mut reader)?;
    // `V` may have taken fewer elements of an array or a map than there are.
    reader.tokens.bytes.end().map_err(|_| Error::custom("not all of the value was read"))?;
    Ok(value)
}

struct ValueReader<'de> {
    tokens: Tokens<'de>,
    /// How many list elements may still be made from binary data.
    values_left: usize,
    keys: KeyForms,
}

impl<'de> ValueReader<'de> {
    /// Reads a null, in any of its forms, if there is one.
    fn read_null(&mut self) -> bool {
        let mut after = self.tokens.bytes;
        let is_null =
            matches!(after.token(), Ok(Token::Nil | Token::Extension(date::EXTENSION, [_])));
        // Reading it again counts it as a token.
        is_null && self.tokens.next().is_ok()
    }

    /// Passes the value to the visitor in its own type.
    fn visit<V: Visitor<'de>>(&mut self, token: Token<'de>, visitor: V) -> Result<V::Value, Error> {
        match token {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visit_any_double(visitor, value),
            Token::Text(text) => visitor.visit_borrowed_str(utf8(text)?),
            Token::Bytes(bytes) => {
                // A list of numbers, as in JSON: many types refuse bytes, and types that take bytes
                // take a list too.
                let left = self.values_left.checked_sub(bytes.len());
                let refused = || Error::custom("too many bytes for a list of numbers");
                self.values_left = left.ok_or_else(refused)?;
                SeqDeserializer::new(bytes.iter().copied()).deserialize_any(visitor)
            }
            Token::Extension(kind, bytes) => match Date::read(kind, bytes)? {
                Some(date) => visitor.visit_string(date.text()),
                None => visitor.visit_unit(),
            },
            Token::Array(left) => {
                visitor.visit_seq(Items { reader: self, left, keys: KeyForm::AsWritten })
            }
            Token::Map(left) => {
                let keys = self.keys.of_map(self.tokens.bytes.bytes_left());
                visitor.visit_map(Items { reader: self, left, keys })
            }
        }
    }
}

/// Passes a double as the integer that it stands for, if it stands for one.
fn visit_double<'de, V: Visitor<'de>>(visitor: V, double: f64) -> Result<V::Value, Error> {
    match exact_i64(double) {
        Some(integer) => visit_integer(integer, visitor),
        None => visitor.visit_f64(double),
    }
}

macro_rules! numbers {
    ($visit_double:expr; $($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.tokens.next()? {
                Token::Float(value) => $visit_double(visitor, value),
                Token::Extension(kind, bytes) => match Date::read(kind, bytes)? {
                    Some(date) => visit_integer(date.millis(), visitor),
                    None => visitor.visit_unit(),
                },
                other => self.visit(other, visitor),
            }
        }
    )*};
}

macro_rules! bytes {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.tokens.next()? {
                Token::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut ValueReader<'de> {
    type Error = Error;

    numbers! {
        visit_double;
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }
    numbers! { V::visit_f64; deserialize_f32 deserialize_f64 }
    bytes! { deserialize_bytes deserialize_byte_buf }

    serde::forward_to_deserialize_any! {
        bool char str string identifier unit unit_struct seq tuple tuple_struct map
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let token = self.tokens.next()?;
        self.visit(token, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.read_null() {
            return visitor.visit_none();
        }
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

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.tokens.next()? {
            // Fields by position would be mixed up between two versions of the struct.
            Token::Array(_) | Token::Bytes(_) => {
                Err(Error::invalid_type(Unexpected::Seq, &visitor))
            }
            // A number would stand for a field by its position.
            Token::Map(left) => {
                visitor.visit_map(Items { reader: self, left, keys: KeyForm::Text })
            }
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.tokens.next()? {
            Token::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(utf8(name)?)),
            Token::Map(1) => visitor.visit_enum(Variant(self)),
            Token::Map(_) => Err(Error::invalid_value(Unexpected::Map, &"a map with one key")),
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.tokens.skip_value()?;
        visitor.visit_unit()
    }
}

/// The elements of an array or the entries of a map.
struct Items<'r, 'de> {
    reader: &'r mut ValueReader<'de>,
    left: u32,
    keys: KeyForm,
}

impl<'de> Items<'_, 'de> {
    /// Visitors allocate for the `size_hint` before they decode anything, and the length comes
    /// from bytes that are not trusted.
    const MAX_HINT: u32 = 1_024;

    fn next(&mut self) -> Option<&mut ValueReader<'de>> {
        self.left = self.left.checked_sub(1)?;
        Some(self.reader)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.next().map(|reader| seed.deserialize(reader)).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        usize::try_from(self.left.min(Self::MAX_HINT)).ok()
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let form = self.keys;
        let Some(reader) = self.next() else { return Ok(None) };
        seed.deserialize(KeyReader { tokens: &mut reader.tokens, form }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        SeqAccess::size_hint(self)
    }
}

/// A variant of an enum with its content: a map of one entry, whose header has been read.
struct Variant<'r, 'de>(&'r mut ValueReader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name =
            seed.deserialize(KeyReader { tokens: &mut self.0.tokens, form: KeyForm::Text })?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        serde::Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}
