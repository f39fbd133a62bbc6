//! What the codec refuses to read, however it was compressed.

/// How much a payload may be and become. Whoever can write to the shared level or to a bus decides
/// what is in it, so what it may cost is decided here. What could not be read is not written
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireLimits {
    /// The most bytes as stored. Default: 32 MiB.
    pub stored: usize,
    /// The most bytes after decompression. Default: 64 MiB.
    pub unpacked: usize,
    /// How deep arrays and maps may be nested. Default: 128, and for JSON never more.
    ///
    /// Each level is a few stack frames of decoding, so tokio's stacks of 2 MiB bear a few hundred
    /// in a build without optimisation.
    pub nesting: usize,
    /// The most values, in all arrays and maps together. Default: 16,777,216.
    ///
    /// One byte of MessagePack may become 32 in memory, as a `serde_json::Value` for instance.
    /// Bytes count where they are decoded into a list of numbers, as a `Vec<u8>` is. Text and
    /// bytes that are decoded as such count as one. Of JSON only the bytes are counted.
    pub values: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self { stored: 32 << 20, unpacked: 64 << 20, nesting: 128, values: 1 << 24 }
    }
}

impl WireLimits {
    /// See the field [`stored`](Self::stored).
    #[must_use]
    pub fn stored(mut self, bytes: usize) -> Self {
        self.stored = bytes;
        self
    }

    /// See the field [`unpacked`](Self::unpacked).
    #[must_use]
    pub fn unpacked(mut self, bytes: usize) -> Self {
        self.unpacked = bytes;
        self
    }

    /// See the field [`nesting`](Self::nesting).
    #[must_use]
    pub fn nesting(mut self, levels: usize) -> Self {
        self.nesting = levels;
        self
    }

    /// See the field [`values`](Self::values).
    #[must_use]
    pub fn values(mut self, values: usize) -> Self {
        self.values = values;
        self
    }
}

/// An error where there are more of them than allowed.
pub(super) fn at_most(bytes: usize, limit: usize) -> Result<(), String> {
    if bytes > limit { Err(format!("{bytes} bytes are more than {limit}")) } else { Ok(()) }
}
