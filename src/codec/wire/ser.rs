//! Serializes values as MessagePack as JavaScript's encoder would write them: objects for structs,
//! doubles for integers beyond 32 bits, text for types with a human-readable form.
//!
//! Alternatives considered: the serializer of a library. Refused because none does all of this,
//! and because this one counts the nesting: it refuses values that the reader would refuse,
//! instead of overflowing the stack.

use serde::de::value::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{
    ser_key::KeyWriter,
    ser_scalar::{checked_len, write_integer, write_text},
};
use crate::msgpack::{
    envelope::NIL,
    writer::{ARRAY, BIN, Markers, Writer},
};

const MAP: Markers =
    Markers { short: 0x80, short_lengths: 16, bits_8: None, bits_16: 0xde, bits_32: 0xdf };

/// Returns the prefix and the value; an error where the value is nested more than `max_depth` deep.
pub(super) fn write<V: Serialize + ?Sized>(
    prefix: &[u8],
    value: &V,
    max_depth: usize,
) -> Result<Vec<u8>, Error> {
    let mut writer = ValueWriter { out: Writer(prefix.to_vec()), depth_left: max_depth };
    value.serialize(&mut writer)?;
    Ok(writer.out.0)
}

struct ValueWriter {
    out: Writer,
    /// How many more arrays and maps may be nested in each other.
    depth_left: usize,
}

impl ValueWriter {
    fn enter(&mut self) -> Result<(), Error> {
        self.depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| Error::custom("nested too deeply"))?;
        Ok(())
    }

    /// Writes the header of an object that names a variant: `{ name: content }` in JavaScript.
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.enter()?;
        self.out.header(&MAP, 1);
        write_text(&mut self.out, name)
    }

    /// Begins an array or a map, whose length may be known only at its end.
    fn open(&mut self, markers: &Markers, length: Option<usize>) -> Result<Container<'_>, Error> {
        self.enter()?;
        match length {
            Some(length) => self.out.header(markers, checked_len(length)?),
            None => self.out.raw(&[markers.bits_32, 0, 0, 0, 0]),
        }
        let start = self.out.0.len();
        Ok(Container { writer: self, announced: length, start, written: 0, levels: 1 })
    }
}

/// An array or a map that is being written.
struct Container<'w> {
    writer: &'w mut ValueWriter,
    /// The length in the header. `None`: the end fills in the four bytes before `start`.
    announced: Option<usize>,
    start: usize,
    written: usize,
    /// How many levels of nesting its end gives back.
    levels: usize,
}

impl Container<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.written += 1;
        value.serialize(&mut *self.writer)
    }

    fn close(self) -> Result<(), Error> {
        match self.announced {
            // The length is written already, so a wrong one cannot be forgiven.
            Some(length) if length != self.written => {
                return Err(Error::custom("not as many elements as announced"));
            }
            Some(_) => {}
            None => {
                let length = checked_len(self.written)?;
                if let Some(room) = self.writer.out.0.get_mut(self.start - 4..self.start) {
                    room.copy_from_slice(&length.to_be_bytes());
                }
            }
        }
        self.writer.depth_left += self.levels;
        Ok(())
    }
}

macro_rules! integers {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            write_integer(&mut self.out, i128::from(value))
        }
    )*};
}

// The length is the last argument; the others do not matter in this format.
macro_rules! containers {
    ($($method:ident($($ignored:ty)?; $length:ty) => $markers:ident;)*) => {$(
        fn $method(self, $(_: $ignored,)? length: $length) -> Result<Container<'w>, Error> {
            self.open(&$markers, length.into())
        }
    )*};
}

macro_rules! variants {
    ($($method:ident => $markers:ident;)*) => {$(
        fn $method(
            self,
            _: &'static str,
            _: u32,
            name: &'static str,
            length: usize,
        ) -> Result<Container<'w>, Error> {
            self.variant(name)?;
            Ok(Container { levels: 2, ..self.open(&$markers, Some(length))? })
        }
    )*};
}

impl<'w> Serializer for &'w mut ValueWriter {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Container<'w>;
    type SerializeTuple = Container<'w>;
    type SerializeTupleStruct = Container<'w>;
    type SerializeTupleVariant = Container<'w>;
    type SerializeMap = Container<'w>;
    type SerializeStruct = Container<'w>;
    type SerializeStructVariant = Container<'w>;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    containers! {
        serialize_seq(; Option<usize>) => ARRAY;
        serialize_tuple(; usize) => ARRAY;
        serialize_tuple_struct(&'static str; usize) => ARRAY;
        serialize_map(; Option<usize>) => MAP;
        serialize_struct(&'static str; usize) => MAP;
    }

    variants! {
        serialize_tuple_variant => ARRAY;
        serialize_struct_variant => MAP;
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        write_integer(&mut self.out, i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.bool(value);
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.out.raw(&[0xca]);
        self.out.raw(&value.to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.out.double(value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        write_text(&mut self.out, value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_text(&mut self.out, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.out.header(&BIN, checked_len(value.len())?);
        self.out.raw(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.raw(NIL);
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
    ) -> Result<(), Error> {
        write_text(&mut self.out, name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(name)?;
        value.serialize(&mut *self)?;
        self.depth_left += 1;
        Ok(())
    }
}

// The traits differ in the names of their methods, and in whether an element has a name.
macro_rules! elements {
    ($($trait:ident $method:ident($($name:ident)?) $({ $($key_method:tt)* })?)*) => {$(
        impl $trait for Container<'_> {
            type Ok = ();
            type Error = Error;

            $($($key_method)*)?

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), Error> {
                $(write_text(&mut self.writer.out, $name)?;)?
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element()
    SerializeTuple serialize_element()
    SerializeTupleStruct serialize_field()
    SerializeTupleVariant serialize_field()
    SerializeStruct serialize_field(name)
    SerializeStructVariant serialize_field(name)
    SerializeMap serialize_value() {
        fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
            key.serialize(KeyWriter(&mut self.writer.out))
        }
    }
}
