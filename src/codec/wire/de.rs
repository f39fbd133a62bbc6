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
    value::{BorrowedStrDeserializer, Error, SeqDeserializer},
};

use super::{
    date::{self, Date},
    de_key::{KeyReader, MAX_WRAPPERS, utf8},
    js_number::{exact_i64, is_js_double},
};
use crate::msgpack::reader::{Reader, Token};

/// Returns the value in these bytes. Binary data that `V` asks for as lists may become at most
/// `max_values` list elements in total.
pub(super) fn read<V: DeserializeOwned>(bytes: &[u8], max_values: usize) -> Result<V, Error> {
    let mut reader =
        ValueReader { bytes: Reader::new(bytes), values_left: max_values, wrapper_depth: 0 };
    let value = V::deserialize(&mut reader)?;
    // `V` may have taken fewer elements of an array or a map than there are.
    reader.bytes.end().map_err(|_| Error::custom("not all of the value was read"))?;
    Ok(value)
}

struct ValueReader<'de> {
    bytes: Reader<'de>,
    /// How many list elements may still be made from binary data.
    values_left: usize,
    /// Options and newtypes entered since the last token: at most [`MAX_WRAPPERS`].
    wrapper_depth: u8,
}

impl<'de> ValueReader<'de> {
    fn token(&mut self) -> Result<Token<'de>, Error> {
        self.wrapper_depth = 0;
        self.bytes.token().map_err(Error::custom)
    }

    /// Reads a null, in any of its forms, if there is one.
    fn read_null(&mut self) -> bool {
        let mut after = self.bytes;
        let is_null =
            matches!(after.token(), Ok(Token::Nil | Token::Extension(date::EXTENSION, [_])));
        if is_null {
            self.bytes = after;
        }
        is_null
    }

    fn enter_wrapper(&mut self) -> Result<(), Error> {
        self.wrapper_depth += 1;
        if self.wrapper_depth > MAX_WRAPPERS {
            return Err(Error::custom("a type that contains itself without end"));
        }
        Ok(())
    }

    /// Reads past one value with all its children.
    fn skip_value(&mut self) -> Result<(), Error> {
        let mut to_come = 1u64;
        while to_come > 0 {
            let token = self.bytes.token().map_err(Error::custom)?;
            to_come = (to_come - 1).saturating_add(token.children());
        }
        Ok(())
    }

    /// Passes the value to the visitor in its own type.
    fn visit<V: Visitor<'de>>(&mut self, token: Token<'de>, visitor: V) -> Result<V::Value, Error> {
        match token {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => match exact_i64(value) {
                // JavaScript writes integers beyond 32 bits like this. Visitors of floats take
                // integers too.
                Some(integer) if is_js_double(integer) => visit_integer(integer, visitor),
                _ => visitor.visit_f64(value),
            },
            Token::Text(text) => visitor.visit_borrowed_str(utf8(text)?),
            Token::Bytes(bytes) => self.visit_bytes_as_list(bytes, visitor),
            Token::Extension(kind, bytes) => match Date::read(kind, bytes)? {
                Some(date) => visitor.visit_string(date.text()),
                None => visitor.visit_unit(),
            },
            Token::Array(length) => visitor.visit_seq(Items { reader: self, left: length }),
            Token::Map(length) => visitor.visit_map(Items { reader: self, left: length }),
        }
    }

    /// Passes bytes as a list of numbers, as JSON does: many types refuse bytes, and types that
    /// take bytes take a list too.
    fn visit_bytes_as_list<V: Visitor<'de>>(
        &mut self,
        bytes: &'de [u8],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.values_left = self
            .values_left
            .checked_sub(bytes.len())
            .ok_or_else(|| Error::custom("too many bytes for a list of numbers"))?;
        let mut list = SeqDeserializer::new(bytes.iter().copied());
        let value = visitor.visit_seq(&mut list)?;
        list.end()?;
        Ok(value)
    }
}

/// Passes an integer by a method that visitors of signed and of unsigned integers have.
fn visit_integer<'de, V: Visitor<'de>>(integer: i64, visitor: V) -> Result<V::Value, Error> {
    match u64::try_from(integer) {
        Ok(unsigned) => visitor.visit_u64(unsigned),
        Err(_) => visitor.visit_i64(integer),
    }
}

/// Passes a `Date` as milliseconds since 1970.
fn visit_as_millis<'de, V: Visitor<'de>>(
    kind: i8,
    bytes: &[u8],
    visitor: V,
) -> Result<V::Value, Error> {
    match Date::read(kind, bytes)? {
        Some(date) => visit_integer(date.millis(), visitor),
        None => visitor.visit_unit(),
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.token()? {
                Token::Float(value) => match exact_i64(value) {
                    Some(integer) => visit_integer(integer, visitor),
                    None => visitor.visit_f64(value),
                },
                Token::Extension(kind, bytes) => visit_as_millis(kind, bytes, visitor),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.token()? {
                Token::Float(value) => visitor.visit_f64(value),
                Token::Extension(kind, bytes) => visit_as_millis(kind, bytes, visitor),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

macro_rules! bytes {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.token()? {
                Token::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut ValueReader<'de> {
    type Error = Error;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }
    floats! { deserialize_f32 deserialize_f64 }
    bytes! { deserialize_bytes deserialize_byte_buf }

    serde::forward_to_deserialize_any! {
        bool char str string identifier unit unit_struct seq tuple tuple_struct map
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let token = self.token()?;
        self.visit(token, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.read_null() {
            return visitor.visit_none();
        }
        self.enter_wrapper()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.enter_wrapper()?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.token()? {
            // Fields by position would be mixed up between two versions of the struct.
            Token::Array(_) | Token::Bytes(_) => {
                Err(Error::invalid_type(Unexpected::Seq, &visitor))
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
        match self.token()? {
            Token::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(utf8(name)?)),
            Token::Map(1) => visitor.visit_enum(Variant(self)),
            Token::Map(_) => Err(Error::invalid_value(Unexpected::Map, &"a map with one key")),
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip_value()?;
        visitor.visit_unit()
    }
}

/// The elements of an array or the entries of a map.
struct Items<'r, 'de> {
    reader: &'r mut ValueReader<'de>,
    left: u32,
}

impl Items<'_, '_> {
    /// Visitors allocate for the `size_hint` before they decode anything, and the length comes
    /// from bytes that are not trusted.
    const MAX_HINT: u32 = 1_024;

    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn capped_len(&self) -> Option<usize> {
        usize::try_from(self.left.min(Self::MAX_HINT)).ok()
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        if self.next() { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.capped_len()
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        if self.next() {
            seed.deserialize(KeyReader::new(self.reader.token()?)).map(Some)
        } else {
            Ok(None)
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.capped_len()
    }
}

/// A variant of an enum with its content: a map of one entry, whose header has been read.
struct Variant<'r, 'de>(&'r mut ValueReader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name = seed.deserialize(KeyReader::new(self.0.token()?))?;
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
