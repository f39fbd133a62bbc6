//! The error of decoding, and a record of texts that a type refused because it asked for a number
//! or a bool.

use std::{cell::Cell, collections::VecDeque, fmt, ops::Range};

use serde::de::{self, Expected, Unexpected};

use super::scalar::parse_scalar;

/// Why a payload is no value of the type asked for.
#[derive(Debug)]
pub(super) struct Error(Box<str>);

/// The record keeps this number of texts, the last ones: a type that fails for a text reads little
/// after it.
const MAX_RECORDED: usize = 64;

/// The record of one decode.
struct Record {
    payload: Range<*const u8>,
    texts: VecDeque<*const u8>,
}

thread_local! {
    static RECORD: Cell<Option<Record>> = const { Cell::new(None) };
}

/// Decodes, and returns where the payload has texts that stand for a number or a bool and were
/// refused. Serde's errors are created without context, and an untagged enum drops those of its
/// variants. Hence the record is kept beside the errors, per thread, and finds the text by its
/// address: texts without escapes are borrowed from the payload.
pub(super) fn record_refused_texts<T>(
    payload: &[u8],
    decode: impl FnOnce() -> T,
) -> (T, Vec<*const u8>) {
    let record = Record { payload: payload.as_ptr_range(), texts: VecDeque::new() };
    replace_record(Some(record));
    let decoded = decode();
    let texts = replace_record(None).map(|record| record.texts);
    (decoded, texts.unwrap_or_default().into())
}

fn replace_record(record: Option<Record>) -> Option<Record> {
    RECORD.try_with(|current| current.replace(record)).ok().flatten()
}

fn note_refused(text: &str) {
    let Some(mut record) = replace_record(None) else { return };
    if record.payload.contains(&text.as_ptr()) && parse_scalar(text.as_bytes()).is_some() {
        if record.texts.len() == MAX_RECORDED {
            record.texts.pop_front();
        }
        record.texts.push_back(text.as_ptr());
    }
    replace_record(Some(record));
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string().into())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        if let Unexpected::Str(text) = unexpected {
            note_refused(text);
        }
        Self::custom(format_args!("invalid type: {unexpected}, expected {expected}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
