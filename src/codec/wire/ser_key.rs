//! Serializes keys of maps: text, numbers and bools. JavaScript reads each as the name of a
//! property of an object.
//!
//! A number is written as a number, because serde buffers the content of untagged, flattened and
//! internally tagged types and converts no text of its buffer into a number.

use serde::de::value::Error;
use serde::ser::{Error as _, Impossible, Serialize, Serializer};

use super::ser_scalar::{write_integer, write_text};
use crate::msgpack::writer::Writer;

pub(super) struct KeyWriter<'o>(pub(super) &'o mut Writer);

macro_rules! integers {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            write_integer(self.0, i128::from(value))
        }
    )*};
}

// MessagePack has no integers of more than 64 bits, so they are written as text.
macro_rules! wide_integers {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            match i64::try_from(value) {
                Ok(integer) => write_integer(self.0, i128::from(integer)),
                Err(_) => write_text(self.0, &value.to_string()),
            }
        }
    )*};
}

// Types without an obvious name of a property.
macro_rules! refused {
    ($($method:ident$(<$type:ident>)?($($argument:ty),*) -> $result:ty;)*) => {$(
        fn $method$(<$type: Serialize + ?Sized>)?(
            self,
            $(_: $argument),*
        ) -> Result<$result, Error> {
            Err(Error::custom(
                "a key of a map has to be text, a number, a bool or a variant without fields",
            ))
        }
    )*};
}

impl Serializer for KeyWriter<'_> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    wide_integers! { serialize_i128 i128 serialize_u128 u128 }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.bool(value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.0.double(value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        write_text(self.0, value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_text(self.0, value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        write_text(self.0, name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    refused! {
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_newtype_variant<T>(&'static str, u32, &'static str, &T) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant;
    }
}
