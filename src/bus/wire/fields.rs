//! Reads and writes the fields of a message one by one, each within its limits.

use super::{
    decode_error::DecodeError,
    limits::{MAX_CACHES, MAX_DEPTH, MAX_KEYS, MAX_PAYLOAD, MAX_TEXT},
};
use crate::msgpack::{
    envelope::PREFIX,
    reader::{Malformed, Reader, Token, validate},
    writer::{MAX_EXACT, Writer},
};

/// The value of `beacon` in a beacon that asks publishers for a beacon.
pub(super) const HELLO: &str = "hello";

/// Writes a message. A field without a value is left out.
pub(crate) struct MessageWriter {
    pub(crate) bytes: Writer,
    fields: u8,
}

impl MessageWriter {
    pub(crate) fn new() -> Self {
        // Longer than the message of a delete.
        let mut bytes = Writer(Vec::with_capacity(256));
        bytes.raw(PREFIX);
        // A map with a length of 16 bits, which `finish` fills in.
        bytes.raw(&[0xde, 0, 0]);
        Self { bytes, fields: 0 }
    }

    pub(crate) fn field(&mut self, name: &str) {
        self.bytes.text(name);
        self.fields += 1;
    }

    pub(crate) fn text<'t>(
        &mut self,
        name: &'static str,
        text: impl Into<Option<&'t str>>,
    ) -> Result<(), DecodeError> {
        let Some(text) = text.into() else { return Ok(()) };
        if text.len() > MAX_TEXT {
            return Err(DecodeError::TooLong(name));
        }
        self.field(name);
        self.bytes.text(text);
        Ok(())
    }

    pub(crate) fn number(&mut self, name: &str, number: impl Into<Option<u64>>) {
        if let Some(number) = number.into() {
            self.field(name);
            self.bytes.number(number);
        }
    }

    pub(crate) fn texts(&mut self, name: &'static str, texts: &[&str]) -> Result<(), DecodeError> {
        if texts.len() > MAX_KEYS {
            return Err(DecodeError::TooManyKeys);
        }
        if texts.iter().any(|text| text.len() > MAX_TEXT) {
            return Err(DecodeError::TooLong(name));
        }
        self.field(name);
        self.bytes.array(texts.len());
        texts.iter().for_each(|text| self.bytes.text(text));
        Ok(())
    }

    /// Writes a value that is MessagePack already.
    pub(crate) fn value<'v>(
        &mut self,
        name: &str,
        value: impl Into<Option<&'v [u8]>>,
    ) -> Result<(), DecodeError> {
        let Some(value) = value.into() else { return Ok(()) };
        validate(value, MAX_DEPTH, usize::MAX)?;
        self.field(name);
        self.bytes.raw(value);
        Ok(())
    }

    pub(crate) fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.field(name);
        self.bytes.bytes(bytes);
    }

    pub(crate) fn flag(&mut self, name: &str, flag: impl Into<Option<bool>>) {
        if let Some(flag) = flag.into() {
            self.field(name);
            self.bytes.bool(flag);
        }
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

/// The fields of a message, whatever its type.
#[derive(Default)]
pub(crate) struct Fields<'a> {
    pub(crate) id: Option<&'a str>,
    /// Not checked to be UTF-8, as no type is that is not known.
    pub(crate) kind: Option<&'a [u8]>,
    pub(crate) source: Option<&'a str>,
    pub(crate) ts: Option<u64>,
    pub(crate) generation: Option<u64>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) keys: Option<Vec<&'a str>>,
    pub(crate) pattern: Option<&'a str>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) stale_ms: Option<u64>,
    pub(crate) l2: Option<bool>,
    pub(crate) retried: bool,
    pub(crate) prime: bool,
    pub(crate) raw: Option<&'a [u8]>,
    pub(crate) raw_keys: Option<Vec<&'a str>>,
    /// Any value: only the causal filter decodes it.
    pub(crate) context: Option<&'a [u8]>,
    pub(crate) incarnation: Option<&'a str>,
    pub(crate) seq: Option<u64>,
    pub(crate) next_within_ms: Option<u64>,
    /// Whether the beacon is a hello.
    pub(crate) beacon: Option<bool>,
    /// The names of the caches of a beacon's publisher.
    pub(crate) caches: Option<Vec<&'a str>>,
    pub(crate) idle_ms: Option<u64>,
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
                b"type" => fields.kind = bytes_of_text(r, "type")?,
                b"source" => fields.source = text(r, "source")?,
                b"ts" => fields.ts = number(r, "ts")?,
                b"generation" => fields.generation = number(r, "generation")?,
                b"namespace" => fields.namespace = text(r, "namespace")?,
                b"keys" => fields.keys = texts(r, "keys", MAX_KEYS)?,
                b"pattern" => fields.pattern = text(r, "pattern")?,
                b"value" => fields.value = Some(skip(r)?),
                b"ttlMs" => fields.ttl_ms = number(r, "ttlMs")?,
                b"staleMs" => fields.stale_ms = optional_field(r, number)?,
                b"l2" => {
                    fields.l2 = match first_token(r)? {
                        Token::Bool(has_it) => Some(has_it),
                        _ => None,
                    }
                }
                b"retried" => fields.retried = first_token(r)? == Token::Bool(true),
                b"prime" => fields.prime = first_token(r)? == Token::Bool(true),
                b"raw" => fields.raw = optional_field(r, raw_bytes)?,
                b"rawKeys" => {
                    fields.raw_keys = optional_field(r, |r, name| texts(r, name, MAX_KEYS))?;
                }
                b"seen" => fields.context = Some(skip(r)?),
                b"inc" => fields.incarnation = optional_field(r, text)?,
                b"seq" => fields.seq = optional_field(r, number)?,
                b"due" => fields.next_within_ms = optional_field(r, number)?,
                b"idle" => fields.idle_ms = optional_field(r, number)?,
                b"caches" => {
                    fields.caches = optional_field(r, |r, name| texts(r, name, MAX_CACHES))?;
                }
                b"beacon" => {
                    fields.beacon = match first_token(r)? {
                        Token::Bool(true) => Some(false),
                        Token::Text(text) if text == HELLO.as_bytes() => Some(true),
                        _ => None,
                    }
                }
                _ => drop(skip(r)?),
            }
        }
        reader.end()?;
        Ok(fields)
    }
}

impl<'a> Fields<'a> {
    /// Returns only the namespace and the number of a message that has another field which cannot
    /// be read. A beacon has no number of its own.
    pub(crate) fn read_place(body: &'a [u8]) -> Option<Self> {
        let (mut fields, mut is_beacon) = (Self::default(), false);
        let mut reader = Reader::new(body);
        let Token::Map(pairs) = reader.token().ok()? else { return None };
        for _ in 0..pairs {
            let Token::Text(name) = reader.token().ok()? else { return None };
            let r = &mut reader;
            match name {
                b"namespace" => fields.namespace = text(r, "namespace").ok()?,
                b"inc" => fields.incarnation = optional_field(r, text).ok()?,
                b"seq" => fields.seq = optional_field(r, number).ok()?,
                b"due" => fields.next_within_ms = optional_field(r, number).ok()?,
                b"idle" => fields.idle_ms = optional_field(r, number).ok()?,
                _ => {
                    is_beacon |= name == b"beacon";
                    skip(r).ok()?;
                }
            }
        }
        reader.end().ok()?;
        // mutant unreadable-number: s/is_beacon/true/
        fields.seq = fields.seq.filter(|_| !is_beacon);
        Some(fields)
    }
}

/// Reads past one value and returns its bytes. The size of the message limits its values.
fn skip<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    reader.value(MAX_DEPTH, usize::MAX)
}

/// Reads past one value and returns its first token.
fn first_token<'a>(reader: &mut Reader<'a>) -> Result<Token<'a>, Malformed> {
    let mut value = *reader;
    skip(reader)?;
    value.token()
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
    let Some(bytes) = bytes_of_text(reader, field)? else { return Ok(None) };
    std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::WrongType(field))
}

fn bytes_of_text<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.token()? {
        Token::Nil => Ok(None),
        Token::Text(bytes) if bytes.len() > MAX_TEXT => Err(DecodeError::TooLong(field)),
        Token::Text(bytes) => Ok(Some(bytes)),
        _ => Err(DecodeError::WrongType(field)),
    }
}

fn raw_bytes<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.token()? {
        Token::Bytes(bytes) => Ok(Some(bytes)),
        _ => Err(DecodeError::WrongType(field)),
    }
}

/// Reads a count or milliseconds. JavaScript writes large numbers as floats, and may compute a time
/// that is negative or has a fraction. Numbers that a double cannot hold exactly are capped.
fn number(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<u64>, DecodeError> {
    match reader.token()? {
        Token::Nil => Ok(None),
        Token::Unsigned(number) => Ok(Some(number.min(MAX_EXACT))),
        Token::Signed(number) => Ok(Some(u64::try_from(number).unwrap_or(0).min(MAX_EXACT))),
        Token::Float(number) if number.is_finite() => Ok(Some((number as u64).min(MAX_EXACT))),
        _ => Err(DecodeError::WrongType(field)),
    }
}

fn texts<'a>(
    reader: &mut Reader<'a>,
    field: &'static str,
    most: usize,
) -> Result<Option<Vec<&'a str>>, DecodeError> {
    let count = match reader.token()? {
        Token::Nil => return Ok(None),
        Token::Array(count) => count,
        _ => return Err(DecodeError::WrongType(field)),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > most {
        return Err(DecodeError::TooManyKeys);
    }
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(text(reader, field)?.ok_or(DecodeError::WrongType(field))?);
    }
    Ok(Some(texts))
}

/// Reads a field that is ignored if it has another type, because it is then not a field of this
/// library.
fn optional_field<'a, T>(
    reader: &mut Reader<'a>,
    read: fn(&mut Reader<'a>, &'static str) -> Result<Option<T>, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    let mut attempt = *reader;
    let Ok(value) = read(&mut attempt, "") else {
        skip(reader)?;
        return Ok(None);
    };
    *reader = attempt;
    Ok(value)
}
