//! The limits on payloads that are read.

use crate::options::option_group;

option_group! {
    /// Limits on the size of a payload and of its content. Anyone with write access to L2 or the
    /// bus decides about the content of a payload, so its cost is limited here. The codec does not
    /// write a value that it would refuse to read.
    ///
    /// ```
    /// use lazy_layers_cache::{WireCodec, WireLimits};
    ///
    /// let limits = WireLimits::default()
    ///     .stored(1 << 20)
    ///     .unpacked(4 << 20)
    ///     .nesting(32)
    ///     .values(100_000);
    /// let codec = WireCodec::new().limits(limits);
    /// ```
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WireLimits {
        /// The most bytes as stored. Default: 32 MiB.
        pub stored: usize = 32 << 20,
        /// The most bytes after decompression. Default: 64 MiB.
        pub unpacked: usize = 64 << 20,
        /// How deep arrays and maps may be nested. Default: 128. JSON never allows more than 128.
        ///
        /// Decoding one level takes a few stack frames: in a build without optimisation, a stack of
        /// 2 MiB (the default of tokio) has room for a few hundred levels.
        pub nesting: usize = 128,
        /// The most values, in all arrays and maps together. Default: 16,777,216.
        ///
        /// One byte of MessagePack may become 32 bytes in memory, for example as a
        /// `serde_json::Value`. Each byte of binary data counts where it is decoded into a list of
        /// numbers, such as a `Vec<u8>`. Text, and binary data that is decoded as bytes, counts as
        /// one value. This limit does not apply to JSON.
        pub values: usize = 1 << 24,
    }
}

/// Returns an error where the length exceeds the limit.
pub(super) fn check_len(bytes: usize, max_bytes: usize) -> Result<(), String> {
    if bytes > max_bytes { Err(format!("{bytes} bytes are more than {max_bytes}")) } else { Ok(()) }
}

/// Allocates for `content` bytes that `body` compressed bytes announce. Refuses lengths above
/// `max_bytes`, and lengths that no compression with at most `max_ratio` reaches.
pub(super) fn allocate(
    content: usize,
    body: usize,
    max_ratio: usize,
    max_bytes: usize,
) -> Result<Vec<u8>, String> {
    check_len(content, max_bytes)?;
    if content / max_ratio > body {
        return Err(format!("{body} compressed bytes cannot have {content} bytes of content"));
    }
    Ok(vec![0; content])
}
