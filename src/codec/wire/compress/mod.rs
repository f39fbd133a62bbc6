//! Compression: chooses an algorithm by the size of the value, and decompresses within the limits.
//!
//! All three algorithms announce the length of the content. So its buffer is allocated once, of
//! the right size, and content that does not fit is refused: a `Vec` that grows would take twice
//! the limit while it moves.

mod gzip;
#[cfg_attr(feature = "lz4", path = "lz4.rs")]
#[cfg_attr(not(feature = "lz4"), path = "without_lz4.rs")]
mod lz4;
#[cfg_attr(feature = "zstd", path = "zstd.rs")]
#[cfg_attr(not(feature = "zstd"), path = "without_zstd.rs")]
mod zstd;

use super::envelope::WireEncoding;
use crate::error::BoxError;

/// Readers pay for compression with time, so it is kept only if it saves at least this fraction.
const MIN_SAVED: f64 = 0.15;

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

    /// Returns the compressed bytes with their prefix, and the fraction saved; `None` where the
    /// MessagePack is too short or compression saves too little.
    pub(super) fn compress(
        self,
        packed: &[u8],
    ) -> Result<Option<(WireEncoding, Vec<u8>, f64)>, BoxError> {
        // Of equal thresholds `max_by_key` takes the last: zstd, because it compresses best.
        let greatest_threshold = [
            (self.gzip, WireEncoding::Gzip),
            (self.lz4, WireEncoding::Lz4),
            (self.zstd, WireEncoding::Zstd),
        ]
        .into_iter()
        .filter(|(from, _)| *from <= packed.len())
        .max_by_key(|(from, _)| *from);
        let Some((_, encoding)) = greatest_threshold else { return Ok(None) };
        let mut out = Vec::with_capacity(packed.len() / 4);
        out.extend(encoding.prefix());
        match encoding {
            WireEncoding::Zstd => zstd::compress(packed, &mut out)?,
            WireEncoding::Lz4 => lz4::compress(packed, &mut out)?,
            _ => gzip::compress(packed, &mut out)?,
        }
        let compressed = out.len() - encoding.prefix().len();
        #[expect(clippy::cast_precision_loss, reason = "a fraction, of lengths far below 2^53")]
        let saved = 1.0 - compressed as f64 / packed.len() as f64;
        Ok((saved >= MIN_SAVED).then_some((encoding, out, saved)))
    }
}

/// Returns the content of a compressed body; `None` if the encoding is not compressed.
pub(super) fn decompress(
    encoding: WireEncoding,
    body: &[u8],
    max_bytes: usize,
) -> Result<Option<Vec<u8>>, BoxError> {
    match encoding {
        WireEncoding::Gzip => gzip::decompress(body, max_bytes).map(Some),
        WireEncoding::Zstd => zstd::decompress(body, max_bytes).map(Some),
        WireEncoding::Lz4 => lz4::decompress(body, max_bytes).map(Some),
        WireEncoding::MessagePack | WireEncoding::Json => Ok(None),
    }
}

#[cfg(test)]
mod without_lz4;
#[cfg(test)]
mod without_zstd;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_its_feature_a_compression_is_an_error() {
        without_zstd::decompress(b"", 99).unwrap_err();
        without_zstd::compress(b"", &mut Vec::new()).unwrap_err();
        without_lz4::decompress(b"", 99).unwrap_err();
        without_lz4::compress(b"", &mut Vec::new()).unwrap_err();
    }
}
