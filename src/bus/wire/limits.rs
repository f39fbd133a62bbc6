//! What an event may be, at most. What claims to be more is not looked at, and not written.

/// Keys of one event.
pub(crate) const MAX_KEYS: usize = 4_096;
/// Bytes of a key, a pattern, an id, a source, a namespace.
pub(crate) const MAX_TEXT: usize = 64 << 10;
/// Bytes of an event as it travels.
pub(crate) const MAX_PAYLOAD: usize = 32 << 20;
/// Bytes of an event's MessagePack, unpacked.
pub(crate) const MAX_BODY: usize = 64 << 20;
/// How deep the value of a `set`, or an unknown field, may be nested.
pub(crate) const MAX_DEPTH: usize = 128;
