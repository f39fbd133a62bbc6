//! The largest number of bytes that an adapter sends to a server as a limit.

/// Maximum number of bytes that an option means, 1 TiB: a larger number says "no limit", but
/// the scripts of Redis and JetStream cannot hold all of them.
pub(crate) const MAX_BYTES: usize = usize::MAX >> usize::BITS.saturating_sub(40);
