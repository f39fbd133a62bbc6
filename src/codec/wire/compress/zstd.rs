//! zstd, by its C library.

use std::io::Read;

use ::zstd::{bulk, stream::read::Decoder, zstd_safe};

use crate::codec::wire::limits::check_len;
use crate::error::BoxError;

/// The default of Node.js.
const LEVEL: i32 = 3;

/// The most memory that a frame may request while its content is counted: 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

pub(super) fn compress(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    out.extend(bulk::compress(packed, LEVEL)?);
    Ok(())
}

pub(super) fn decompress(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, BoxError> {
    let frame = zstd_safe::find_frame_compressed_size(body).map_err(zstd_safe::get_error_name)?;
    if frame != body.len() {
        return Err("bytes after the end of the zstd frame".into());
    }
    let length = match zstd_safe::get_frame_content_size(body) {
        Ok(Some(length)) => usize::try_from(length)?,
        Ok(None) => count_content(body, max_bytes)?,
        Err(_) => return Err("not zstd".into()),
    };
    // The ratio of zstd is unbounded, so only the limit bounds the announced length.
    check_len(length, max_bytes)?;
    let mut content = vec![0; length];
    if bulk::decompress_to_buffer(body, &mut content)? != length {
        return Err("the zstd frame has less content than it announces".into());
    }
    Ok(content)
}

/// Returns the length of the content of a frame that does not announce it, by decompressing it
/// into a small buffer. A buffer that grows would take twice the limit while it moves.
fn count_content(body: &[u8], max_bytes: usize) -> Result<usize, BoxError> {
    let mut decoder = Decoder::with_buffer(body)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    let mut scratch = [0; 16 << 10];
    let mut length = 0;
    loop {
        match decoder.read(&mut scratch)? {
            0 => return Ok(length),
            more => length += more,
        }
        check_len(length, max_bytes)?;
    }
}
