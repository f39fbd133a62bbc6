//! The first bytes of a MessagePack value, as far as a reader has to know what comes.

use serde::de::{Error as _, value::Error};

use super::{
    date::{self, Date},
    scan::number,
};

/// A value, or the head of one that holds others: for these, how many elements or entries follow.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head<'de> {
    /// `null` and `undefined`, and a `Date` that is none: JSON has null for it too.
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'de str),
    Bytes(&'de [u8]),
    Date(Date),
    Array(u32),
    Map(u32),
}

/// Takes it from the front of the bytes.
pub(super) fn take_head<'de>(rest: &mut &'de [u8]) -> Result<Head<'de>, Error> {
    let marker = length(rest, 1)?;
    Ok(match marker {
        0xc0 => Head::Null,
        0xc2 => Head::Bool(false),
        0xc3 => Head::Bool(true),
        0x00..=0x7f => Head::Unsigned(u64::from(marker)),
        0xe0..=0xff => Head::Signed(i64::from(marker) - 0x100),
        0xcc..=0xcf => Head::Unsigned(integer(rest, 1 << (marker - 0xcc))?),
        0xd0..=0xd3 => {
            let bytes = 1 << (marker - 0xd0);
            // Moved to the top and back, so that the sign spreads.
            let unused = 64 - 8 * bytes;
            Head::Signed((integer(rest, bytes)? << unused).cast_signed() >> unused)
        }
        0xca => Head::Float(f64::from(f32::from_bits(length(rest, 4)?))),
        0xcb => Head::Float(f64::from_bits(integer(rest, 8)?)),
        0xa0..=0xbf => text(rest, marker & 0x1f)?,
        0xd9..=0xdb => {
            let length = length(rest, 1 << (marker - 0xd9))?;
            text(rest, length)?
        }
        0xc4..=0xc6 => {
            let length = length(rest, 1 << (marker - 0xc4))?;
            Head::Bytes(take(rest, length)?)
        }
        0x90..=0x9f => Head::Array(marker & 0x0f),
        0xdc..=0xdd => Head::Array(length(rest, 2 << (marker - 0xdc))?),
        0x80..=0x8f => Head::Map(marker & 0x0f),
        0xde..=0xdf => Head::Map(length(rest, 2 << (marker - 0xde))?),
        0xd4..=0xd8 => extension(rest, 1 << (marker - 0xd4))?,
        0xc7..=0xc9 => {
            let length = length(rest, 1 << (marker - 0xc7))?;
            extension(rest, length)?
        }
        _ => return Err(Error::custom("no MessagePack")),
    })
}

fn text<'de>(rest: &mut &'de [u8], length: u32) -> Result<Head<'de>, Error> {
    std::str::from_utf8(take(rest, length)?).map(Head::Text).map_err(Error::custom)
}

fn extension<'de>(rest: &mut &'de [u8], length: u32) -> Result<Head<'de>, Error> {
    let kind = take(rest, 1)?.first().map(|kind| kind.cast_signed());
    match (kind, take(rest, length)?) {
        (Some(0), [0]) | (Some(date::KIND), [_]) => Ok(Head::Null),
        (Some(date::KIND), bytes) => Date::from_extension(bytes)
            .map(Head::Date)
            .ok_or_else(|| Error::custom("a timestamp that is no time")),
        (Some(0x72), _) => {
            Err(Error::custom("a record of msgpackr: its `Packr` must be told useRecords: false"))
        }
        (kind, _) => Err(Error::custom(format_args!(
            "extension type {} is not known here",
            kind.unwrap_or_default()
        ))),
    }
}

fn integer(rest: &mut &[u8], bytes: usize) -> Result<u64, Error> {
    number(rest, bytes).map_err(Error::custom)
}

fn length(rest: &mut &[u8], bytes: usize) -> Result<u32, Error> {
    u32::try_from(integer(rest, bytes)?).map_err(Error::custom)
}

fn take<'de>(rest: &mut &'de [u8], length: u32) -> Result<&'de [u8], Error> {
    let parts = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, after) = parts.ok_or_else(|| Error::custom("it ends too early"))?;
    *rest = after;
    Ok(taken)
}
