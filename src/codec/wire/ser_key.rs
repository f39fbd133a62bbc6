//! Serializes keys of maps as text: the keys of an object in JavaScript are text.

use serde::de::value::Error;
use serde::ser::{Error as _, Impossible, Serialize, Serializer};

use crate::msgpack::writer::Writer;

/// Returns the length as MessagePack can write it; an error for more than 32 bits.
pub(super) fn checked_len(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(Error::custom)
}

pub(super) fn write_text(out: &mut Writer, text: &str) -> Result<(), Error> {
    checked_len(text.len())?;
    out.text(text);
    Ok(())
}

pub(super) struct KeyWriter<'o>(pub(super) &'o mut Writer);

// Types that have one obvious text.
macro_rules! texts {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            write_text(self.0, &value.to_string())
        }
    )*};
}

// Types that have none.
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

    texts! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64 serialize_u128 u128
        serialize_bool bool serialize_char char serialize_f32 f32 serialize_f64 f64
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
