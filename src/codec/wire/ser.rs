//! Serializes values as MessagePack as JavaScript's encoder would write them: objects for structs,
//! doubles for integers beyond 32 bits, text for keys and for types with a human-readable form.
//!
//! Alternatives considered: the serializer of a library. Refused because none does all of this,
//! and because this one counts the nesting: it refuses values that the reader would refuse,
//! instead of overflowing the stack.

use serde::de::value::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::ser_key::{KeyWriter, checked_len, write_text};
use crate::msgpack::{
    envelope::NIL,
    writer::{ARRAY, Markers, Writer, as_js_double},
};

const MAP: Markers =
    Markers { short: 0x80, max_short: 15, bits_8: None, bits_16: 0xde, bits_32: 0xdf };
/// Binary data, whose length never fits into the marker.
const BIN: Markers =
    Markers { short: 0xc4, max_short: 0, bits_8: Some(0xc4), bits_16: 0xc5, bits_32: 0xc6 };

/// Appends the value; an error where it is nested more than `max_depth` deep.
pub(super) fn write<V: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &V,
    max_depth: usize,
) -> Result<(), Error> {
    let mut writer = Writer(std::mem::take(out));
    let written = value.serialize(&mut ValueWriter { out: &mut writer, depth_left: max_depth });
    *out = writer.0;
    written
}

struct ValueWriter<'o> {
    out: &'o mut Writer,
    /// How many more arrays and maps may be nested in each other.
    depth_left: usize,
}

impl ValueWriter<'_> {
    fn enter(&mut self) -> Result<(), Error> {
        self.depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| Error::custom("nested too deeply"))?;
        Ok(())
    }

    fn integer(&mut self, integer: i128) -> Result<(), Error> {
        let out = &mut *self.out;
        if let Some(double) = as_js_double(integer) {
            out.double(double);
            return Ok(());
        }
        if let Ok(integer) = u64::try_from(integer) {
            out.unsigned(integer);
            return Ok(());
        }
        let integer =
            i64::try_from(integer).map_err(|_| Error::custom("an integer of more than 64 bits"))?;
        let [.., a, b, c, d] = integer.to_be_bytes();
        match integer {
            -0x20..=-1 => out.raw(&[d]),
            -0x80..=-0x21 => out.raw(&[0xd0, d]),
            -0x8000..=-0x81 => out.raw(&[0xd1, c, d]),
            -0x8000_0000..=-0x8001 => out.raw(&[0xd2, a, b, c, d]),
            _ => {
                out.raw(&[0xd3]);
                out.raw(&integer.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Writes the header of an object that names a variant: `{ name: content }` in JavaScript.
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.enter()?;
        self.out.header(&MAP, 1);
        write_text(self.out, name)
    }
}

impl<'w, 'o> ValueWriter<'o> {
    /// Begins an array or a map, whose length may be known only at its end.
    fn open(
        &'w mut self,
        markers: &Markers,
        length: Option<usize>,
        in_variant: bool,
    ) -> Result<Container<'w, 'o>, Error> {
        self.enter()?;
        let length = match length {
            Some(length) => {
                self.out.header(markers, checked_len(length)?);
                Length::Announced(length)
            }
            None => {
                self.out.raw(&[markers.bits_32]);
                let at = self.out.0.len();
                self.out.raw(&[0; 4]);
                Length::FilledInAt(at)
            }
        };
        Ok(Container { writer: self, length, written: 0, levels: 1 + usize::from(in_variant) })
    }
}

enum Length {
    Announced(usize),
    /// The position of the four bytes that the end fills in.
    FilledInAt(usize),
}

/// An array or a map that is being written.
struct Container<'w, 'o> {
    writer: &'w mut ValueWriter<'o>,
    length: Length,
    written: usize,
    /// How many levels of nesting its end gives back.
    levels: usize,
}

impl Container<'_, '_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.written += 1;
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        write_text(self.writer.out, name)?;
        self.item(value)
    }

    fn close(self) -> Result<(), Error> {
        match self.length {
            // The length is written already, so a wrong one cannot be forgiven.
            Length::Announced(length) if length != self.written => {
                return Err(Error::custom("not as many elements as announced"));
            }
            Length::Announced(_) => {}
            Length::FilledInAt(at) => {
                let length = checked_len(self.written)?;
                if let Some(room) = self.writer.out.0.get_mut(at..at + 4) {
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
            self.integer(i128::from(value))
        }
    )*};
}

impl<'w, 'o> Serializer for &'w mut ValueWriter<'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Container<'w, 'o>;
    type SerializeTuple = Container<'w, 'o>;
    type SerializeTupleStruct = Container<'w, 'o>;
    type SerializeTupleVariant = Container<'w, 'o>;
    type SerializeMap = Container<'w, 'o>;
    type SerializeStruct = Container<'w, 'o>;
    type SerializeStructVariant = Container<'w, 'o>;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        self.integer(i128::try_from(value).unwrap_or(i128::MAX))
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
        write_text(self.out, value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        write_text(self.out, value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        let length = checked_len(value.len())?;
        if length == 0 {
            self.out.raw(&[0xc4, 0]);
        } else {
            self.out.header(&BIN, length);
        }
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
        write_text(self.out, name)
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

    fn serialize_seq(self, length: Option<usize>) -> Result<Container<'w, 'o>, Error> {
        self.open(&ARRAY, length, false)
    }

    fn serialize_tuple(self, length: usize) -> Result<Container<'w, 'o>, Error> {
        self.open(&ARRAY, Some(length), false)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Container<'w, 'o>, Error> {
        self.open(&ARRAY, Some(length), false)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Container<'w, 'o>, Error> {
        self.variant(name)?;
        self.open(&ARRAY, Some(length), true)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Container<'w, 'o>, Error> {
        self.open(&MAP, length, false)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Container<'w, 'o>, Error> {
        self.open(&MAP, Some(length), false)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Container<'w, 'o>, Error> {
        self.variant(name)?;
        self.open(&MAP, Some(length), true)
    }
}

// The traits differ only in the names of their methods.
macro_rules! items {
    ($($trait:ident $method:ident)*) => {$(
        impl $trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.item(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl $trait for Container<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}

items! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}
fields! { SerializeStruct SerializeStructVariant }

impl SerializeMap for Container<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(KeyWriter(self.writer.out))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}
