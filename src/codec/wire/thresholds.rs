//! The sizes from which the codec compresses.

use super::envelope::WireEncoding;

/// The least number of bytes of MessagePack for which each compression is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    pub(super) gzip: usize,
    pub(super) zstd: usize,
    pub(super) lz4: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { gzip: 65_536, ..Self::NEVER }
    }
}

impl Thresholds {
    pub(super) const NEVER: Self = Self { gzip: usize::MAX, zstd: usize::MAX, lz4: usize::MAX };

    /// Returns the compression with the greatest threshold that the size reaches. Among equal
    /// thresholds zstd comes first, because it compresses best.
    pub(super) fn encoding_for(self, size: usize) -> Option<WireEncoding> {
        [
            (self.gzip, WireEncoding::Gzip),
            (self.lz4, WireEncoding::Lz4),
            (self.zstd, WireEncoding::Zstd),
        ]
        .into_iter()
        .filter(|(from, _)| *from <= size)
        .max_by_key(|(from, _)| *from)
        .map(|(_, encoding)| encoding)
    }
}
