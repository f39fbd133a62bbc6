//! lz4, framed as the TypeScript package does: the length of the content in four little-endian
//! bytes, then one block.

use lz4_flex::block;

use crate::codec::wire::limits::allocate;
use crate::error::BoxError;

/// The most bytes of content for each byte of a block: the length of a match grows by at most 255
/// with each of its bytes.
const MAX_RATIO: usize = 255;

pub(super) fn compress(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    out.extend(u32::try_from(packed.len())?.to_le_bytes());
    let head = out.len();
    out.resize(head + block::get_maximum_output_size(packed.len()), 0);
    let written = block::compress_into(packed, out.get_mut(head..).unwrap_or_default())?;
    out.truncate(head + written);
    Ok(())
}

pub(super) fn decompress(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, BoxError> {
    let (length, block) = body.split_first_chunk().ok_or("not lz4")?;
    let length = usize::try_from(u32::from_le_bytes(*length))?;
    let mut content = allocate(length, body.len(), MAX_RATIO, max_bytes)?;
    if block::decompress_into(block, &mut content)? != length {
        return Err("the lz4 block has less content than it announces".into());
    }
    Ok(content)
}
