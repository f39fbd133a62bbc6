//! MessagePack: tokens, writing, and structural validation of bytes that are not trusted.
//!
//! Messages of the bus and the wire format of values share this module. It has no dependency and
//! needs no feature. Serde stays outside: `codec::wire` builds on these functions.
//!
//! Alternatives considered: the decoder of a library. Refused because a `set` message carries a
//! value that the subscriber hands on as bytes, and because limits must hold before anything is
//! allocated: a usual decoder recurses as deep as its input says (700 bytes can overflow a stack)
//! and may believe the lengths in it (5 bytes can ask for 4 GiB).

pub(crate) mod envelope;
pub(crate) mod reader;
pub(crate) mod writer;
