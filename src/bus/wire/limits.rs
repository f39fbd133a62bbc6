//! Limits of a message. A message beyond them is neither decoded nor encoded.

/// Keys of one message.
pub(crate) const MAX_KEYS: usize = 4_096;
/// Caches of one instance.
pub(crate) const MAX_CACHES: usize = 1_024;
/// Bytes of a key, a pattern, an id, a source, a namespace.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// Bytes of an encoded message.
pub(crate) const MAX_PAYLOAD: usize = 32 << 20;
/// Bytes of a message's MessagePack, decompressed.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// Levels of nesting in the value of a `set`, or in an unknown field.
pub(crate) const MAX_DEPTH: usize = 128;
