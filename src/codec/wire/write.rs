//! MessagePack as JavaScript's encoder would write the same value: objects for structs, doubles
//! for integers beyond 32 bits, text for keys and for whatever has a human-readable form.
//!
//! An encoder of our own, because each of these is a wish that the encoders there are do not have,
//! and because one that counts how deep it is refuses what it could not read again, instead of
//! finding out with its stack.

use serde::de::value::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{number, write_key::KeyWriter};

/// Appends the value; nested deeper than allowed it is an error.
pub(super) fn write<V: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &V,
    nesting: usize,
) -> Result<(), Error> {
    value.serialize(&mut Writer { out, nesting })
}

pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How much deeper it may get.
    nesting: usize,
}

/// The markers of a kind of value whose length is said in 8, 16 or 32 bits; and before these, of
/// one short enough for the marker itself.
struct Markers {
    short: u8,
    short_up_to: u32,
    bits_8: Option<u8>,
    bits_16: u8,
    bits_32: u8,
}

const STR: Markers =
    Markers { short: 0xa0, short_up_to: 31, bits_8: Some(0xd9), bits_16: 0xda, bits_32: 0xdb };
const ARRAY: Markers =
    Markers { short: 0x90, short_up_to: 15, bits_8: None, bits_16: 0xdc, bits_32: 0xdd };
const MAP: Markers =
    Markers { short: 0x80, short_up_to: 15, bits_8: None, bits_16: 0xde, bits_32: 0xdf };

impl Writer<'_> {
    fn head(&mut self, markers: &Markers, length: usize) -> Result<(), Error> {
        let length = u32::try_from(length).map_err(Error::custom)?;
        match (u8::try_from(length), u16::try_from(length), markers.bits_8) {
            (Ok(short), ..) if length <= markers.short_up_to => {
                self.out.push(markers.short | short);
            }
            (Ok(length), _, Some(marker)) => self.out.extend([marker, length]),
            (_, Ok(length), _) => {
                self.out.push(markers.bits_16);
                self.out.extend(length.to_be_bytes());
            }
            _ => {
                self.out.push(markers.bits_32);
                self.out.extend(length.to_be_bytes());
            }
        }
        Ok(())
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.head(&STR, text.len())?;
        self.out.extend(text.as_bytes());
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.nesting =
            self.nesting.checked_sub(1).ok_or_else(|| Error::custom("nested too deeply"))?;
        Ok(())
    }

    fn integer(&mut self, integer: i128) -> Result<(), Error> {
        if let Some(double) = number::double(integer) {
            return self.serialize_f64(double);
        }
        if let Ok(integer) = u64::try_from(integer) {
            let [.., _, _, _, a, b, c, d] = integer.to_be_bytes();
            match integer {
                0..=0x7f => self.out.push(d),
                0x80..=0xff => self.out.extend([0xcc, d]),
                0x100..=0xffff => self.out.extend([0xcd, c, d]),
                0x1_0000..=0xffff_ffff => self.out.extend([0xce, a, b, c, d]),
                _ => {
                    self.out.push(0xcf);
                    self.out.extend(integer.to_be_bytes());
                }
            }
            return Ok(());
        }
        let integer =
            i64::try_from(integer).map_err(|_| Error::custom("an integer of more than 64 bits"))?;
        let [.., a, b, c, d] = integer.to_be_bytes();
        match integer {
            -0x20..=-1 => self.out.push(d),
            -0x80..=-0x21 => self.out.extend([0xd0, d]),
            -0x8000..=-0x81 => self.out.extend([0xd1, c, d]),
            -0x8000_0000..=-0x8001 => self.out.extend([0xd2, a, b, c, d]),
            _ => {
                self.out.push(0xd3);
                self.out.extend(integer.to_be_bytes());
            }
        }
        Ok(())
    }

    /// The head of an object that names a variant: in JavaScript `{ name: content }`.
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.deeper()?;
        self.head(&MAP, 1)?;
        self.text(name)
    }
}

impl<'w, 'o> Writer<'o> {
    /// An array or a map, of a length that may turn out at its end only.
    fn open(
        &'w mut self,
        markers: &Markers,
        length: Option<usize>,
        in_variant: bool,
    ) -> Result<Open<'w, 'o>, Error> {
        self.deeper()?;
        let length = match length {
            Some(length) => {
                self.head(markers, length)?;
                Length::Told(length)
            }
            None => {
                self.out.push(markers.bits_32);
                let at = self.out.len();
                self.out.extend([0; 4]);
                Length::At(at)
            }
        };
        Ok(Open { writer: self, length, written: 0, levels: 1 + usize::from(in_variant) })
    }
}

enum Length {
    Told(usize),
    /// Room was left for it here.
    At(usize),
}

/// An array or map that is being written.
pub(super) struct Open<'w, 'o> {
    writer: &'w mut Writer<'o>,
    length: Length,
    written: usize,
    levels: usize,
}

impl Open<'_, '_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.written += 1;
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        self.writer.text(name)?;
        self.item(value)
    }

    fn close(self) -> Result<(), Error> {
        match self.length {
            // Serializers of other formats forgive a wrong length. Here it would be written.
            Length::Told(told) if told != self.written => {
                return Err(Error::custom("not as many elements as announced"));
            }
            Length::Told(_) => {}
            Length::At(at) => {
                let length = u32::try_from(self.written).map_err(Error::custom)?;
                if let Some(room) = self.writer.out.get_mut(at..at + 4) {
                    room.copy_from_slice(&length.to_be_bytes());
                }
            }
        }
        self.writer.nesting += self.levels;
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

impl<'w, 'o> Serializer for &'w mut Writer<'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Open<'w, 'o>;
    type SerializeTuple = Open<'w, 'o>;
    type SerializeTupleStruct = Open<'w, 'o>;
    type SerializeTupleVariant = Open<'w, 'o>;
    type SerializeMap = Open<'w, 'o>;
    type SerializeStruct = Open<'w, 'o>;
    type SerializeStructVariant = Open<'w, 'o>;

    integers! {
        serialize_i8 i8 serialize_i16 i16 serialize_i32 i32 serialize_i64 i64 serialize_i128 i128
        serialize_u8 u8 serialize_u16 u16 serialize_u32 u32 serialize_u64 u64
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        self.integer(i128::try_from(value).unwrap_or(i128::MAX))
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.push(if value { 0xc3 } else { 0xc2 });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.out.push(0xca);
        self.out.extend(value.to_be_bytes());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.out.push(0xcb);
        self.out.extend(value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        // There is no short form.
        const BIN: Markers =
            Markers { short: 0, short_up_to: 0, bits_8: Some(0xc4), bits_16: 0xc5, bits_32: 0xc6 };
        if value.is_empty() {
            self.out.extend([0xc4, 0]);
        } else {
            self.head(&BIN, value.len())?;
        }
        self.out.extend(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.push(0xc0);
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
        self.text(name)
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
        self.nesting += 1;
        Ok(())
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Open<'w, 'o>, Error> {
        self.open(&ARRAY, length, false)
    }

    fn serialize_tuple(self, length: usize) -> Result<Open<'w, 'o>, Error> {
        self.open(&ARRAY, Some(length), false)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Open<'w, 'o>, Error> {
        self.open(&ARRAY, Some(length), false)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Open<'w, 'o>, Error> {
        self.variant(name)?;
        self.open(&ARRAY, Some(length), true)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Open<'w, 'o>, Error> {
        self.open(&MAP, length, false)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Open<'w, 'o>, Error> {
        self.open(&MAP, Some(length), false)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        length: usize,
    ) -> Result<Open<'w, 'o>, Error> {
        self.variant(name)?;
        self.open(&MAP, Some(length), true)
    }
}

/// The traits that differ in names only.
macro_rules! items {
    ($($trait:ident $method:ident)*) => {$(
        impl $trait for Open<'_, '_> {
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
        impl $trait for Open<'_, '_> {
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

impl SerializeMap for Open<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(KeyWriter(&mut *self.writer))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.item(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}
