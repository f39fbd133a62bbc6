//! gzip, by zlib-rs: as fast as the C libraries except libdeflate, and written in Rust.
//!
//! A large payload is compressed in two halves at the same time, as pigz does it. The second half
//! gets the end of the first as its dictionary, and the result is one ordinary gzip stream. A
//! caller waits for the result, so a second processor shortens the call.

use std::{io::Read, sync::LazyLock, thread};

use flate2::{Compress, Compression, Crc, FlushCompress, Status, bufread::GzDecoder};

use crate::codec::wire::limits::allocate;
use crate::error::BoxError;

/// Measured on a listing of 1 MB against level 6, the default of zlib: two fifths of the time on
/// one processor, for 5 % more bytes. Lower levels take less time, but up to 15 % more bytes.
const LEVEL: u32 = 4;

/// The least size that is compressed in two halves. It takes at least one millisecond, which makes
/// the start of a thread cheap.
const MIN_TWO_HALVES: usize = 128 * 1024;

/// The greatest distance of a reference in deflate.
const WINDOW: usize = 32 * 1024;

/// Method deflate, no flags, no time, an unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The most bytes of content for each byte: a match of 258 bytes takes at least two bits.
const MAX_RATIO: usize = 1_032;

static HAS_TWO_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));

pub(super) fn compress(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    out.extend(HEADER);
    let sum = match packed.split_at_checked(packed.len() / 2) {
        Some((first, second)) if packed.len() >= MIN_TWO_HALVES && *HAS_TWO_PROCESSORS => {
            deflate_both(first, second, out)?
        }
        _ => deflate(packed, &[], FlushCompress::Finish, out)?,
    };
    out.extend(sum.sum().to_le_bytes());
    // The format has the length modulo 2^32.
    out.extend(sum.amount().to_le_bytes());
    Ok(())
}

fn deflate_both(first: &[u8], second: &[u8], out: &mut Vec<u8>) -> Result<Crc, BoxError> {
    thread::scope(|scope| {
        let dictionary = first.get(first.len().saturating_sub(WINDOW)..).unwrap_or_default();
        let deflate_second = || {
            let mut out = Vec::new();
            let sum = deflate(second, dictionary, FlushCompress::Finish, &mut out);
            sum.map(|sum| (sum, out)).map_err(|error| error.to_string())
        };
        let helper = thread::Builder::new().spawn_scoped(scope, deflate_second);
        let mut sum = deflate(first, &[], FlushCompress::Sync, out)?;
        let done = match helper {
            Ok(helper) => helper.join().unwrap_or_else(|_| Err("the thread panicked".into())),
            // The system refused another thread.
            Err(_) => deflate_second(),
        };
        let (second, bytes) = done?;
        sum.combine(&second);
        out.extend(bytes);
        Ok(sum)
    })
}

/// Appends the deflated `content`, which may refer to the `dictionary` before it.
fn deflate(
    content: &[u8],
    dictionary: &[u8],
    end: FlushCompress,
    out: &mut Vec<u8>,
) -> Result<Crc, BoxError> {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary)?;
    }
    let mut rest = content;
    loop {
        // Usually enough; the loop reserves more where it is not.
        out.reserve(rest.len() / 4 + 1024);
        let before = deflate.total_in();
        let status = deflate.compress_vec(rest, out, end)?;
        let taken = usize::try_from(deflate.total_in() - before)?;
        rest = rest.get(taken..).unwrap_or_default();
        let is_done = match end {
            FlushCompress::Finish => status == Status::StreamEnd,
            // Room that is left shows that the encoder has no more to write.
            _ => rest.is_empty() && out.len() < out.capacity(),
        };
        if is_done {
            break;
        }
    }
    let mut sum = Crc::new();
    sum.update(content);
    Ok(sum)
}

pub(super) fn decompress(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, BoxError> {
    // The last four bytes are the length of the content modulo 2^32, which no limit reaches.
    let length = body.last_chunk().copied().map(u32::from_le_bytes).ok_or("not gzip")?;
    let mut content = allocate(usize::try_from(length)?, body.len(), MAX_RATIO, max_bytes)?;
    let mut decoder = GzDecoder::new(body);
    decoder.read_exact(&mut content)?;
    // Reading to the end compares the checksum.
    if decoder.read(&mut [0])? > 0 || !decoder.get_ref().is_empty() {
        return Err("bytes after the end of the gzip stream".into());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random words from a small vocabulary: compressible, and the second half refers to the first.
    fn text(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let words: Vec<u64> = (0..500).map(|_| random.u64(..)).collect();
        let words = std::iter::repeat_with(|| random.choice(&words).unwrap().to_string());
        words.flat_map(String::into_bytes).take(length).collect()
    }

    #[test]
    fn a_value_of_any_length_becomes_one_gzip_stream_with_the_same_content() {
        let long = text(3 * MIN_TWO_HALVES);
        for length in
            [0, 1, WINDOW, MIN_TWO_HALVES - 1, MIN_TWO_HALVES, MIN_TWO_HALVES + 1, long.len()]
        {
            let content = &long[..length];
            let mut out = Vec::new();
            compress(content, &mut out).unwrap();
            assert_eq!(decompress(&out, length).unwrap(), content, "{length}");
        }
    }

    #[test]
    fn two_halves_take_at_most_one_percent_more_bytes_than_one_piece() {
        let content = text(3 * MIN_TWO_HALVES);
        let (mut whole, mut halves) = (Vec::new(), Vec::new());
        deflate(&content, &[], FlushCompress::Finish, &mut whole).unwrap();
        let (first, second) = content.split_at(content.len() / 2);
        let sum = deflate_both(first, second, &mut halves).unwrap();
        assert!(halves.len() < whole.len() + whole.len() / 100, "{} {}", halves.len(), whole.len());
        assert_eq!(sum.amount() as usize, content.len());
    }

    #[test]
    fn random_bytes_survive_compression() {
        let mut random = fastrand::Rng::with_seed(7);
        let content: Vec<u8> =
            std::iter::repeat_with(|| random.u8(..)).take(MIN_TWO_HALVES).collect();
        let mut out = Vec::new();
        compress(&content, &mut out).unwrap();
        assert_eq!(decompress(&out, content.len()).unwrap(), content);
    }
}
