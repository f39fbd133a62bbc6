//! Keys of maps. In JavaScript those of an object are text and those of a `Map` anything, so text
//! serves for whoever wants a number, and a number for whoever wants text.

use serde::de::{
    Deserializer, Error as _, Visitor,
    value::{BorrowedStrDeserializer, Error, StringDeserializer},
};

use super::{head::Head, number, read::Reader};

pub(super) struct KeyReader<'r, 'de>(pub(super) &'r mut Reader<'de>);

/// What a key says.
enum Key<'de> {
    Text(&'de str),
    Number(i128),
    /// What has an obvious text all the same.
    Other(String),
}

impl<'de> KeyReader<'_, 'de> {
    fn take(self) -> Result<Key<'de>, Error> {
        Ok(match self.0.head()? {
            Head::Text(text) => Key::Text(text),
            Head::Unsigned(number) => Key::Number(i128::from(number)),
            Head::Signed(number) => Key::Number(i128::from(number)),
            Head::Float(float) => match number::whole(float) {
                Some(number) => Key::Number(i128::from(number)),
                None => Key::Other(float.to_string()),
            },
            Head::Bool(value) => Key::Other(value.to_string()),
            Head::Date(date) => Key::Other(date.text()),
            Head::Null | Head::Bytes(_) | Head::Array(_) | Head::Map(_) => {
                return Err(Error::custom("a key of a map has to be text or a number"));
            }
        })
    }

    fn visit_text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.take()? {
            Key::Text(text) => visitor.visit_borrowed_str(text),
            Key::Number(number) => visitor.visit_string(number.to_string()),
            Key::Other(text) => visitor.visit_string(text),
        }
    }

    /// The key as something that can be parsed; as text where it cannot, for the visitor to
    /// refuse.
    fn visit_parsed<V: Visitor<'de>, T: std::str::FromStr>(
        self,
        visitor: V,
        visit: impl FnOnce(V, T) -> Result<V::Value, Error>,
    ) -> Result<V::Value, Error> {
        let text = match self.take()? {
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
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit_text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.wrap()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.wrap()?;
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.take()? {
            Key::Text(name) => visitor.visit_enum(BorrowedStrDeserializer::new(name)),
            Key::Number(number) => visitor.visit_enum(StringDeserializer::new(number.to_string())),
            Key::Other(name) => visitor.visit_enum(StringDeserializer::new(name)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_ignored_any(visitor)
    }
}
