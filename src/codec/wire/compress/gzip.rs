//! gzip, by zlib-rs: as fast as the C libraries but for libdeflate, and no C.
//!
//! A large payload is compressed in two halves at the same time, as pigz does it: the second half
//! knows the end of the first, so that it can refer to it, and what comes out is one gzip stream
//! like any other. It is a caller that waits for this, and a processor that would be idle is of no
//! use to it.

use std::{io::Read, sync::LazyLock, thread};

use flate2::{Compress, Compression, Crc, FlushCompress, Status, bufread::GzDecoder};

use super::room;
use crate::error::BoxError;

/// Measured on a listing of a megabyte against zlib's own level 6: two fifths of its time, on one
/// processor, for 5 % more bytes. The levels below take less time, but up to 15 % more bytes.
const LEVEL: u32 = 4;

/// From so many bytes on it takes a millisecond and more, beside which a thread costs nothing.
const TWO_HALVES: usize = 128 * 1024;

/// How far back deflate refers.
const WINDOW: usize = 32 * 1024;

/// Deflated, no name, no time, no flags, by an unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// No bit can stand for more: a match of 258 bytes takes two bits at least.
const BEST: usize = 1_032;

static HAS_TWO_PROCESSORS: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));

pub(super) fn compress(packed: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    let halves = if packed.len() < TWO_HALVES || !*HAS_TWO_PROCESSORS {
        None
    } else {
        packed.split_at_checked(packed.len() / 2)
    };
    out.extend(HEAD);
    let sum = match halves {
        Some((first, second)) => deflate_both(first, second, out)?,
        None => deflate(packed, &[], FlushCompress::Finish, out)?,
    };
    out.extend(sum.sum().to_le_bytes());
    // Modulo 2^32, as the format has it.
    out.extend(sum.amount().to_le_bytes());
    Ok(())
}

fn deflate_both(first: &[u8], second: &[u8], out: &mut Vec<u8>) -> Result<Crc, BoxError> {
    thread::scope(|scope| {
        let known = first.get(first.len().saturating_sub(WINDOW)..).unwrap_or_default();
        let deflate_second = || {
            let mut out = Vec::new();
            let sum = deflate(second, known, FlushCompress::Finish, &mut out);
            sum.map(|sum| (sum, out)).map_err(|error| error.to_string())
        };
        let helper = thread::Builder::new().spawn_scoped(scope, deflate_second);
        let mut sum = deflate(first, &[], FlushCompress::Sync, out)?;
        let done = match helper {
            Ok(helper) => helper.join().unwrap_or_else(|_| Err("the thread panicked".into())),
            // There is no thread to be had.
            Err(_) => deflate_second(),
        };
        let (second, bytes) = done?;
        sum.combine(&second);
        out.extend(bytes);
        Ok(sum)
    })
}

/// Appends `content`, deflated to its end. It may refer to what is `known`.
fn deflate(
    content: &[u8],
    known: &[u8],
    end: FlushCompress,
    out: &mut Vec<u8>,
) -> Result<Crc, BoxError> {
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    if !known.is_empty() {
        deflate.set_dictionary(known)?;
    }
    let mut rest = content;
    loop {
        // Mostly enough, and where it is not there is more.
        out.reserve(rest.len() / 4 + 1024);
        let before = deflate.total_in();
        let status = deflate.compress_vec(rest, out, end)?;
        let taken = usize::try_from(deflate.total_in() - before)?;
        rest = rest.get(taken..).unwrap_or_default();
        let is_done = match end {
            FlushCompress::Finish => status == Status::StreamEnd,
            // All is out once there is room left.
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

pub(super) fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, BoxError> {
    // Its last four bytes say how long the content is, modulo 2^32 which no limit reaches.
    let length = body.last_chunk().copied().map(u32::from_le_bytes).ok_or("no gzip")?;
    let mut content = room(usize::try_from(length)?, body.len(), BEST, limit)?;
    let mut decoder = GzDecoder::new(body);
    decoder.read_exact(&mut content)?;
    // Only its end has the checksum compared.
    if decoder.read(&mut [0])? > 0 || !decoder.get_ref().is_empty() {
        return Err("bytes after the end of the gzip stream".into());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words from few, so that it can be compressed, and its second half refers to the first.
    fn text(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let words: Vec<u64> = (0..500).map(|_| random.u64(..)).collect();
        let words = std::iter::repeat_with(|| random.choice(&words).unwrap().to_string());
        words.flat_map(String::into_bytes).take(length).collect()
    }

    #[test]
    fn of_whatever_length_it_is_one_stream_with_the_same_content() {
        let long = text(3 * TWO_HALVES);
        for length in [0, 1, WINDOW, TWO_HALVES - 1, TWO_HALVES, TWO_HALVES + 1, long.len()] {
            let content = &long[..length];
            let mut out = Vec::new();
            compress(content, &mut out).unwrap();
            assert_eq!(decompress(&out, length).unwrap(), content, "{length}");
        }
    }

    #[test]
    fn two_halves_take_hardly_more_bytes_than_one_piece() {
        let content = text(3 * TWO_HALVES);
        let (mut whole, mut halves) = (Vec::new(), Vec::new());
        deflate(&content, &[], FlushCompress::Finish, &mut whole).unwrap();
        let (first, second) = content.split_at(content.len() / 2);
        let sum = deflate_both(first, second, &mut halves).unwrap();
        assert!(halves.len() < whole.len() + whole.len() / 100, "{} {}", halves.len(), whole.len());
        assert_eq!(sum.amount() as usize, content.len());
    }

    #[test]
    fn what_cannot_be_compressed_is_whole_too() {
        let mut random = fastrand::Rng::with_seed(7);
        let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(TWO_HALVES).collect();
        let mut out = Vec::new();
        compress(&content, &mut out).unwrap();
        assert_eq!(decompress(&out, content.len()).unwrap(), content);
    }
}
