//! Encodes and decodes the messages of the bus.

pub(crate) mod decode_error;
pub(crate) mod envelope;
pub(crate) mod fields;
pub(crate) mod limits;
pub(crate) mod message;
pub(crate) mod namespace;
