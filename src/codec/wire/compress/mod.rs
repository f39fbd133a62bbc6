//! The compressions: which one a size gets, and how each is undone within bounds.
//!
//! All three say how long their content is, so the room for it is made once, of the right size,
//! and what does not fit is refused: a `Vec` that grows would hold twice the limit while it moves.

mod gzip;
#[cfg_attr(feature = "lz4", path = "lz4.rs")]
#[cfg_attr(not(feature = "lz4"), path = "without_lz4.rs")]
mod lz4;
#[cfg_attr(feature = "zstd", path = "zstd.rs")]
#[cfg_attr(not(feature = "zstd"), path = "without_zstd.rs")]
mod zstd;

use super::{encoded::WireEncoding, limits::at_most};
use crate::error::BoxError;

/// From how many bytes on each compression is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiers {
    pub(super) gzip: usize,
    pub(super) zstd: usize,
    pub(super) lz4: usize,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { gzip: 65_536, zstd: usize::MAX, lz4: usize::MAX }
    }
}

/// What compression has to save to be kept: it costs every reader time.
const LEAST_SAVED: f64 = 0.15;

impl Tiers {
    /// The one that begins nearest below this size; among equals zstd, which is the best.
    fn of(self, size: usize) -> Option<WireEncoding> {
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

    /// The bytes compressed and behind their prefix, and the fraction saved; `None` where their
    /// size asks for none or it does not pay.
    pub(super) fn compress(
        self,
        packed: &[u8],
    ) -> Result<Option<(WireEncoding, Vec<u8>, f64)>, BoxError> {
        let Some(encoding) = self.of(packed.len()) else { return Ok(None) };
        let mut out = Vec::with_capacity(packed.len() / 4);
        out.extend(encoding.prefix());
        match encoding {
            WireEncoding::Zstd => zstd::compress(packed, &mut out)?,
            WireEncoding::Lz4 => lz4::compress(packed, &mut out)?,
            _ => gzip::compress(packed, &mut out)?,
        }
        let saved = saved(packed.len(), out.len() - encoding.prefix().len());
        Ok((saved >= LEAST_SAVED).then_some((encoding, out, saved)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a fraction, of lengths far below 2^53")]
fn saved(packed: usize, compressed: usize) -> f64 {
    1.0 - compressed as f64 / packed as f64
}

/// The content of a compressed body; `None` if this encoding is none of a compression.
pub(super) fn decompress(
    encoding: WireEncoding,
    body: &[u8],
    limit: usize,
) -> Result<Option<Vec<u8>>, BoxError> {
    match encoding {
        WireEncoding::Gzip => gzip::decompress(body, limit).map(Some),
        WireEncoding::Zstd => zstd::decompress(body, limit).map(Some),
        WireEncoding::Lz4 => lz4::decompress(body, limit).map(Some),
        WireEncoding::MessagePack | WireEncoding::Json => Ok(None),
    }
}

/// Room for content that says it is so long, in a body so long. It is believed only as far as the
/// format can compress at all.
fn room(content: usize, body: usize, best: usize, limit: usize) -> Result<Vec<u8>, BoxError> {
    at_most(content, limit)?;
    if content / best > body {
        return Err("no such few bytes are so many compressed".into());
    }
    Ok(vec![0; content])
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
