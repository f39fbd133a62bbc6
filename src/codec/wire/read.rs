//! MessagePack as JavaScript's encoder writes it, into whatever Rust asks for.
//!
//! A decoder of our own, because what JavaScript means is known only together with what is asked
//! for: a double where an integer is wanted, a `Date` as text or as milliseconds. It reads what
//! [`scan`](super::scan::scan) has passed, so neither depth nor lengths are in doubt here; it
//! would end in an error all the same.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
    value::{BorrowedStrDeserializer, Error, SeqDeserializer},
};

use super::{
    head::{Head, take_head},
    number,
    read_key::KeyReader,
    scan::skip_value,
};

/// The value in these bytes. `values` is how many values bytes may become where they are asked
/// for as a list.
pub(super) fn read<V: DeserializeOwned>(bytes: &[u8], values: usize) -> Result<V, Error> {
    let mut reader = Reader { rest: bytes, values, wrapped: 0 };
    let value = V::deserialize(&mut reader)?;
    // Also where an array or a map inside had more than was asked for.
    if reader.rest.is_empty() { Ok(value) } else { Err(Error::custom("not all of it was read")) }
}

pub(super) struct Reader<'de> {
    pub(super) rest: &'de [u8],
    values: usize,
    /// Options and newtypes entered since the last byte was read. They take none, so a type that
    /// holds itself through them alone would recurse for ever.
    wrapped: u8,
}

/// More than any sensible type has around one value.
const MOST_WRAPPED: u8 = 64;

impl<'de> Reader<'de> {
    pub(super) fn head(&mut self) -> Result<Head<'de>, Error> {
        self.wrapped = 0;
        take_head(&mut self.rest)
    }

    /// Takes a null, in any of its forms, if there is one.
    fn null(&mut self) -> bool {
        let mut after = self.rest;
        let null = matches!(take_head(&mut after), Ok(Head::Null));
        if null {
            self.rest = after;
        }
        null
    }

    pub(super) fn wrap(&mut self) -> Result<(), Error> {
        self.wrapped += 1;
        if self.wrapped > MOST_WRAPPED { Err(Error::custom("a type without end")) } else { Ok(()) }
    }

    /// As the value itself would have it.
    fn visit<V: Visitor<'de>>(&mut self, head: Head<'de>, visitor: V) -> Result<V::Value, Error> {
        match head {
            Head::Null => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Unsigned(value) => visitor.visit_u64(value),
            Head::Signed(value) => visitor.visit_i64(value),
            Head::Float(value) => match number::whole(value) {
                // In JavaScript it has been an integer, or might as well have been. Whoever asks
                // for a float takes it too.
                Some(integer) if number::is_wide(integer) => visit_integer(integer, visitor),
                _ => visitor.visit_f64(value),
            },
            Head::Text(text) => visitor.visit_borrowed_str(text),
            Head::Bytes(bytes) => self.visit_bytes_as_list(bytes, visitor),
            Head::Date(date) => visitor.visit_string(date.text()),
            Head::Array(length) => visitor.visit_seq(Items { reader: self, left: length }),
            Head::Map(length) => visitor.visit_map(Items { reader: self, left: length }),
        }
    }

    /// A list, as JSON has them, because many types take no bytes but all that do take a list.
    fn visit_bytes_as_list<V: Visitor<'de>>(
        &mut self,
        bytes: &'de [u8],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.values = self
            .values
            .checked_sub(bytes.len())
            .ok_or_else(|| Error::custom("too many bytes to be made a list of"))?;
        let mut list = SeqDeserializer::new(bytes.iter().copied());
        let value = visitor.visit_seq(&mut list)?;
        list.end()?;
        Ok(value)
    }
}

/// An integer, by whichever name visitors of both kinds take.
fn visit_integer<'de, V: Visitor<'de>>(integer: i64, visitor: V) -> Result<V::Value, Error> {
    match u64::try_from(integer) {
        Ok(unsigned) => visitor.visit_u64(unsigned),
        Err(_) => visitor.visit_i64(integer),
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.head()? {
                Head::Float(value) => match number::whole(value) {
                    Some(integer) => visit_integer(integer, visitor),
                    None => visitor.visit_f64(value),
                },
                Head::Date(date) => visit_integer(date.millis(), visitor),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

macro_rules! floats {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.head()? {
                Head::Float(value) => visitor.visit_f64(value),
                Head::Date(date) => visit_integer(date.millis(), visitor),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

macro_rules! bytes {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.head()? {
                Head::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
                other => self.visit(other, visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
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
        let head = self.head()?;
        self.visit(head, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.null() {
            return visitor.visit_none();
        }
        self.wrap()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.wrap()?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.head()? {
            // By position, a field more or less would put values into the wrong ones.
            Head::Array(_) | Head::Bytes(_) => Err(Error::invalid_type(Unexpected::Seq, &visitor)),
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.head()? {
            Head::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            Head::Map(1) => visitor.visit_enum(Variant(self)),
            Head::Map(_) => Err(Error::invalid_value(Unexpected::Map, &"a map with one key")),
            other => self.visit(other, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        skip_value(&mut self.rest).map_err(Error::custom)?;
        visitor.visit_unit()
    }
}

/// The elements of an array or the entries of a map.
struct Items<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: u32,
}

impl Items<'_, '_> {
    /// What is announced is allocated by those who believe it, before anything is decoded; so no
    /// more is announced than costs little.
    const MOST_ANNOUNCED: u32 = 1_024;

    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn announced(&self) -> Option<usize> {
        usize::try_from(self.left.min(Self::MOST_ANNOUNCED)).ok()
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
        self.announced()
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        if self.next() {
            seed.deserialize(KeyReader(&mut *self.reader)).map(Some)
        } else {
            Ok(None)
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        self.announced()
    }
}

/// An enum's variant with what it holds: a map of one entry whose head is read.
struct Variant<'r, 'de>(&'r mut Reader<'de>);

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name = seed.deserialize(KeyReader(&mut *self.0))?;
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
