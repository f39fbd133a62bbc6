//! The fields of an event, read and written one by one, each within its limits.

use super::{
    decode_error::DecodeError,
    limits::{MAX_DEPTH, MAX_KEYS, MAX_PAYLOAD, MAX_TEXT},
};
use crate::msgpack::{
    envelope::PREFIX,
    reader::{Malformed, Reader, Token, validate},
    writer::{MAX_EXACT, Writer},
};

const HELLO: &str = "hello";

/// An event being written.
pub(crate) struct MessageWriter {
    pub(crate) bytes: Writer,
    fields: u8,
}

impl MessageWriter {
    pub(crate) fn new() -> Self {
        let mut bytes = Writer::default();
        bytes.raw(PREFIX);
        // A map with a length of 16 bits, which `finish` fills in.
        bytes.raw(&[0xde, 0, 0]);
        Self { bytes, fields: 0 }
    }

    pub(crate) fn field(&mut self, name: &str) {
        self.bytes.text(name);
        self.fields += 1;
    }

    pub(crate) fn text(&mut self, name: &'static str, text: &str) -> Result<(), DecodeError> {
        if text.len() > MAX_TEXT {
            return Err(DecodeError::TooLong(name));
        }
        self.field(name);
        self.bytes.text(text);
        Ok(())
    }

    pub(crate) fn number(&mut self, name: &str, number: u64) {
        self.field(name);
        self.bytes.number(number);
    }

    pub(crate) fn keys(&mut self, keys: &[&str]) -> Result<(), DecodeError> {
        if keys.len() > MAX_KEYS {
            return Err(DecodeError::TooManyKeys);
        }
        if keys.iter().any(|key| key.len() > MAX_TEXT) {
            return Err(DecodeError::TooLong("keys"));
        }
        self.field("keys");
        self.bytes.array(keys.len());
        keys.iter().for_each(|key| self.bytes.text(key));
        Ok(())
    }

    pub(crate) fn value(&mut self, name: &str, value: &[u8]) -> Result<(), DecodeError> {
        validate(value, MAX_DEPTH, usize::MAX)?;
        self.field(name);
        self.bytes.raw(value);
        Ok(())
    }

    pub(crate) fn beacon(&mut self, hello: bool) -> Result<(), DecodeError> {
        if hello {
            return self.text("beacon", HELLO);
        }
        self.yes("beacon");
        Ok(())
    }

    pub(crate) fn yes(&mut self, name: &str) {
        self.field(name);
        self.bytes.bool(true);
    }

    pub(crate) fn finish(self) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = self.bytes.0;
        if bytes.len() > MAX_PAYLOAD {
            return Err(DecodeError::TooLarge);
        }
        if let Some(fields) = bytes.get_mut(PREFIX.len() + 2) {
            *fields = self.fields;
        }
        Ok(bytes)
    }
}

/// What is in an event, each field by itself, whichever type the event has.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) kind: Option<&'a str>,
    pub(crate) source: Option<&'a str>,
    pub(crate) ts: Option<u64>,
    pub(crate) generation: Option<u64>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) keys: Option<Vec<&'a str>>,
    pub(crate) pattern: Option<&'a str>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) prime: bool,
    /// Whatever it is: it is read where it is needed.
    pub(crate) context: Option<&'a [u8]>,
    pub(crate) incarnation: Option<&'a str>,
    pub(crate) seq: Option<u64>,
    pub(crate) due: Option<u64>,
    /// Whether it is a hello.
    pub(crate) beacon: Option<bool>,
}

impl<'a> Fields<'a> {
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        let Token::Map(pairs) = reader.token()? else { return Err(DecodeError::NotAMap) };
        for _ in 0..pairs {
            let Token::Text(name) = reader.token()? else { return Err(DecodeError::NotAMap) };
            let r = &mut reader;
            match name {
                b"id" => fields.id = text(r, "id")?,
                b"type" => fields.kind = text(r, "type")?,
                b"source" => fields.source = text(r, "source")?,
                b"ts" => fields.ts = number(r, "ts")?,
                b"generation" => fields.generation = number(r, "generation")?,
                b"namespace" => fields.namespace = text(r, "namespace")?,
                b"keys" => fields.keys = keys(r)?,
                b"pattern" => fields.pattern = text(r, "pattern")?,
                b"value" => fields.value = Some(skip(r)?),
                b"ttlMs" => fields.ttl_ms = number(r, "ttlMs")?,
                b"prime" => {
                    fields.prime = Reader::new(skip(r)?).token()? == Token::Bool(true);
                }
                b"seen" => fields.context = Some(skip(r)?),
                b"inc" => fields.incarnation = optional_field(r, text)?,
                b"seq" => fields.seq = optional_field(r, number)?,
                b"due" => fields.due = optional_field(r, number)?,
                b"beacon" => fields.beacon = beacon(r)?,
                _ => drop(skip(r)?),
            }
        }
        reader.end()?;
        Ok(fields)
    }
}

/// Reads past one value and returns its bytes. The size of the message limits its values.
fn skip<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    reader.value(MAX_DEPTH, usize::MAX)
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
    match reader.token()? {
        Token::Nil => Ok(None),
        Token::Text(bytes) if bytes.len() > MAX_TEXT => Err(DecodeError::TooLong(field)),
        Token::Text(bytes) => {
            std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::WrongType(field))
        }
        _ => Err(DecodeError::WrongType(field)),
    }
}

/// A number of things or of milliseconds. JavaScript writes large ones as floats, and may have
/// computed a time below zero or between two milliseconds. What it could not write without loss is
/// as much as can be.
fn number(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<u64>, DecodeError> {
    match reader.token()? {
        Token::Nil => Ok(None),
        Token::Unsigned(number) => Ok(Some(number.min(MAX_EXACT))),
        Token::Signed(number) => Ok(Some(u64::try_from(number).unwrap_or(0).min(MAX_EXACT))),
        Token::Float(number) if number.is_finite() => Ok(Some((number as u64).min(MAX_EXACT))),
        _ => Err(DecodeError::WrongType(field)),
    }
}

fn keys<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<&'a str>>, DecodeError> {
    let count = match reader.token()? {
        Token::Nil => return Ok(None),
        Token::Array(count) => count,
        _ => return Err(DecodeError::WrongType("keys")),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > MAX_KEYS {
        return Err(DecodeError::TooManyKeys);
    }
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        keys.push(text(reader, "keys")?.ok_or(DecodeError::WrongType("keys"))?);
    }
    Ok(Some(keys))
}

/// What is ours only if it has the type that we give it, and else another's and none of ours.
fn optional_field<'a, T>(
    reader: &mut Reader<'a>,
    read: fn(&mut Reader<'a>, &'static str) -> Result<Option<T>, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    let mut whole = Reader::new(skip(reader)?);
    Ok(read(&mut whole, "").ok().flatten())
}

fn beacon(reader: &mut Reader<'_>) -> Result<Option<bool>, DecodeError> {
    Ok(match Reader::new(skip(reader)?).token()? {
        Token::Bool(true) => Some(false),
        Token::Text(text) if text == HELLO.as_bytes() => Some(true),
        _ => None,
    })
}
