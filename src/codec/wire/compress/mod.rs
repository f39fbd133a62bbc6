//! Compression: chooses an algorithm by the size of the value, and decompresses within the limits.
//!
//! All three algorithms announce the length of the content. So its buffer is allocated once, of
//! the right size, and content that does not fit is refused: a `Vec` that grows would take twice
//! the limit while it moves.

mod gzip;
mod lz4;
mod zstd;

use super::{envelope::WireEncoding, thresholds::Thresholds};
use crate::error::BoxError;

/// Readers pay for compression with time, so it is kept only if it saves at least this fraction.
const MIN_SAVED: f64 = 0.15;

/// Returns the compressed bytes with their prefix, and the fraction saved; `None` where the
/// MessagePack is too short or compression saves too little.
pub(super) fn compress(
    thresholds: Thresholds,
    packed: &[u8],
) -> Result<Option<(WireEncoding, Vec<u8>, f64)>, BoxError> {
    let Some(encoding) = thresholds.encoding_for(packed.len()) else { return Ok(None) };
    let mut out = Vec::with_capacity(packed.len() / 4);
    out.extend(encoding.prefix());
    match encoding {
        WireEncoding::Zstd => zstd::compress(packed, &mut out)?,
        WireEncoding::Lz4 => lz4::compress(packed, &mut out)?,
        _ => gzip::compress(packed, &mut out)?,
    }
    let saved = saved(packed.len(), out.len() - encoding.prefix().len());
    Ok((saved >= MIN_SAVED).then_some((encoding, out, saved)))
}

#[expect(clippy::cast_precision_loss, reason = "a fraction, of lengths far below 2^53")]
fn saved(packed: usize, compressed: usize) -> f64 {
    1.0 - compressed as f64 / packed as f64
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
mod tests {
    use super::*;

    #[test]
    fn without_its_feature_a_compression_is_an_error() {
        zstd::disabled::decompress(b"", 99).unwrap_err();
        zstd::disabled::compress(b"", &mut Vec::new()).unwrap_err();
        lz4::disabled::decompress(b"", 99).unwrap_err();
        lz4::disabled::compress(b"", &mut Vec::new()).unwrap_err();
    }
}
