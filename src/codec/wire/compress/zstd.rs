//! zstd, by its C library.

use std::io::Read;

use ::zstd::{bulk, stream::read::Decoder, zstd_safe};

use crate::codec::wire::limits::at_most;
use crate::{codec::WireCodec, error::BoxError};

/// Node's own default.
const LEVEL: i32 = 3;

/// The most that a frame may make us remember while its length is counted: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

impl WireCodec {
    /// Writes `HC1Z` (zstd) from so many bytes of MessagePack on, where it saves 15 % or more.
    /// Default: never.
    ///
    /// As small as gzip in a fraction of its time. Instances of the TypeScript package read it
    /// only in later releases and on Node.js 22.15 or later; for others it is a miss.
    #[must_use]
    pub fn zstd_from(mut self, bytes: usize) -> Self {
        self.tiers.zstd = bytes;
        self
    }
}

pub(super) fn compress(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    out.extend(bulk::compress(packed, LEVEL)?);
    Ok(())
}

pub(super) fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, BoxError> {
    let frame = zstd_safe::find_frame_compressed_size(body).map_err(zstd_safe::get_error_name)?;
    if frame != body.len() {
        return Err("bytes after the end of the zstd frame".into());
    }
    let length = match zstd_safe::get_frame_content_size(body) {
        Ok(Some(length)) => usize::try_from(length)?,
        Ok(None) => counted(body, limit)?,
        Err(_) => return Err("no zstd".into()),
    };
    // It can compress without bound, so here nothing but the limit bounds what is believed.
    at_most(length, limit)?;
    let mut content = vec![0; length];
    if bulk::decompress_to_buffer(body, &mut content)? != length {
        return Err("less content than the zstd frame announces".into());
    }
    Ok(content)
}

/// The length of a frame that does not say it, found by decompressing it to nowhere: a buffer that
/// grows would take twice the limit while it moves.
fn counted(body: &[u8], limit: usize) -> Result<usize, BoxError> {
    let mut decoder = Decoder::with_buffer(body)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut scratch = [0; 16 << 10];
    let mut length = 0;
    loop {
        match decoder.read(&mut scratch)? {
            0 => return Ok(length),
            more => length += more,
        }
        at_most(length, limit)?;
    }
}
