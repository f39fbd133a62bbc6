//! Serializes text and integers, as values and as keys of maps.

use serde::de::value::Error;
use serde::ser::Error as _;

use crate::msgpack::writer::{Writer, as_js_double};

/// Returns the length as MessagePack can write it; an error for more than 32 bits.
pub(super) fn checked_len(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(Error::custom)
}

pub(super) fn write_text(out: &mut Writer, text: &str) -> Result<(), Error> {
    checked_len(text.len())?;
    out.text(text);
    Ok(())
}

/// Writes an integer of at most 64 bits as JavaScript's encoder does; an error for a wider one.
pub(super) fn write_integer(out: &mut Writer, integer: i128) -> Result<(), Error> {
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
