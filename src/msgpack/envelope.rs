//! The prefix of uncompressed MessagePack, and how the wire format writes null.

/// The four bytes before the MessagePack of a value or of a message.
pub(crate) const PREFIX: &[u8; 4] = b"HC1M";

/// MessagePack's nil.
pub(crate) const NIL: &[u8] = b"\xc0";

/// The text, as MessagePack, that a codec writes for a null. The TypeScript package needs it
/// because its store cannot tell a null from a missing value. Inside a message of the bus a null
/// is written as [`NIL`].
pub(crate) const NULL_TEXT: &[u8] = b"\xb4__hybridcache_null__";
