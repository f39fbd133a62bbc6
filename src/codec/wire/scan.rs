//! A look over MessagePack bytes before anything is made of them.
//!
//! A decoder recurses as deep as its input says and may believe the lengths in it: 700 bytes can
//! overflow a stack, five can ask for 4 GiB. So the shape is checked first, without recursion and
//! without allocation beyond the depth allowed.

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// They end before they should, or say that there is more in them than there is.
    Truncated,
    /// There is more after the value.
    Trailing,
    TooDeep,
    /// More values, in all arrays and maps together, than allowed.
    TooMany,
    /// The one byte that MessagePack never uses.
    Reserved,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "MessagePack bytes end too early",
            Self::Trailing => "bytes after the end of the MessagePack value",
            Self::TooDeep => "MessagePack value nested too deeply",
            Self::TooMany => "MessagePack value of too many values",
            Self::Reserved => "no MessagePack: byte 0xc1",
        })
    }
}

impl std::error::Error for Malformed {}

/// Whether the bytes are exactly one MessagePack value, nested no deeper than allowed and made of
/// no more values: in memory each may take many times its one byte.
pub(super) fn scan(bytes: &[u8], max_depth: usize, max_values: usize) -> Result<(), Malformed> {
    let mut rest = bytes;
    let mut left = max_values;
    // For each open array or map, how many values are still to come in it.
    let mut open: Vec<u64> = vec![1];
    while let Some(to_come) = open.last_mut() {
        if *to_come == 0 {
            open.pop();
            continue;
        }
        *to_come -= 1;
        left = left.checked_sub(1).ok_or(Malformed::TooMany)?;
        let values = skip_head(&mut rest)?;
        // Each takes a byte at least.
        if values > rest.len() as u64 {
            return Err(Malformed::Truncated);
        }
        if values > 0 {
            if open.len() > max_depth {
                return Err(Malformed::TooDeep);
            }
            open.push(values);
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
}

/// Skips one value with all that it holds.
pub(super) fn skip_value(rest: &mut &[u8]) -> Result<(), Malformed> {
    // Depth and lengths do not matter where nothing is made of the values.
    let mut to_come: u64 = 1;
    while to_come > 0 {
        to_come = (to_come - 1).saturating_add(skip_head(rest)?);
    }
    Ok(())
}

/// Skips a value that holds no others, or the head of one that does; says how many it holds.
fn skip_head(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let marker = u8::try_from(number(rest, 1)?).unwrap_or_default();
    match marker {
        // fixint, nil, false, true
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Ok(0),
        // fixmap, map 16, map 32
        0x80..=0x8f => Ok(u64::from(marker & 0x0f) * 2),
        0xde => Ok(number(rest, 2)? * 2),
        0xdf => Ok(number(rest, 4)? * 2),
        // fixarray, array 16, array 32
        0x90..=0x9f => Ok(u64::from(marker & 0x0f)),
        0xdc => number(rest, 2),
        0xdd => number(rest, 4),
        // fixstr; bin and str with 8, 16, 32 bits of length
        0xa0..=0xbf => skip(rest, u64::from(marker & 0x1f)),
        0xc4 | 0xd9 => sized(rest, 1, 0),
        0xc5 | 0xda => sized(rest, 2, 0),
        0xc6 | 0xdb => sized(rest, 4, 0),
        // ext 8, 16, 32: a type before the bytes
        0xc7 => sized(rest, 1, 1),
        0xc8 => sized(rest, 2, 1),
        0xc9 => sized(rest, 4, 1),
        // float 32 and 64; unsigned and signed integers of 1, 2, 4, 8 bytes
        0xca => skip(rest, 4),
        0xcb => skip(rest, 8),
        0xcc..=0xcf => skip(rest, 1 << (marker - 0xcc)),
        0xd0..=0xd3 => skip(rest, 1 << (marker - 0xd0)),
        // fixext of 1, 2, 4, 8, 16 bytes after a type
        0xd4..=0xd8 => skip(rest, 1 + (1 << (marker - 0xd4))),
        0xc1 => Err(Malformed::Reserved),
    }
}

fn sized(rest: &mut &[u8], length_bytes: usize, extra: u64) -> Result<u64, Malformed> {
    let length = number(rest, length_bytes)?;
    skip(rest, length + extra)
}

fn skip(rest: &mut &[u8], bytes: u64) -> Result<u64, Malformed> {
    let bytes = usize::try_from(bytes).map_err(|_| Malformed::Truncated)?;
    *rest = rest.get(bytes..).ok_or(Malformed::Truncated)?;
    Ok(0)
}

/// A big-endian number of so many bytes.
pub(super) fn number(rest: &mut &[u8], bytes: usize) -> Result<u64, Malformed> {
    let (digits, after) = rest.split_at_checked(bytes).ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_measured_right() {
        let whole: [&[u8]; 24] = [
            &[0x7f],
            &[0xe0],
            &[0xc0],
            &[0xc3],
            &[0xcc, 1],
            &[0xcd, 1, 2],
            &[0xce, 1, 2, 3, 4],
            &[0xcf, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xd0, 1],
            &[0xd3, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xca, 1, 2, 3, 4],
            &[0xcb, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xa2, b'o', b'k'],
            &[0xd9, 1, b'x'],
            &[0xda, 0, 1, b'x'],
            &[0xdb, 0, 0, 0, 1, b'x'],
            &[0xc4, 1, 9],
            &[0xd4, 0, 0],
            &[0xd8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            &[0xc7, 2, 5, 1, 2],
            &[0x92, 1, 2],
            &[0xdc, 0, 1, 0x90],
            &[0x81, 0xa1, b'k', 0x80],
            &[0xdf, 0, 0, 0, 1, 1, 2],
        ];
        for bytes in whole {
            assert_eq!(scan(bytes, 8, 99), Ok(()), "{bytes:x?}");
            for end in 0..bytes.len() {
                assert_eq!(scan(&bytes[..end], 8, 99), Err(Malformed::Truncated), "{bytes:x?}");
            }
            let mut rest = bytes;
            skip_value(&mut rest).unwrap();
            assert!(rest.is_empty(), "{bytes:x?}");
            let more = [bytes, &[0]].concat();
            assert_eq!(scan(&more, 8, 99), Err(Malformed::Trailing), "{bytes:x?}");
        }
    }

    #[test]
    fn depth_and_lengths_are_not_believed() {
        assert_eq!(
            scan(&[vec![0x91; 100_000], vec![0]].concat(), 128, 999),
            Err(Malformed::TooDeep)
        );
        assert_eq!(scan(&[vec![0x91; 128], vec![0]].concat(), 128, 999), Ok(()));
        for gigabytes in [0xdb, 0xdd, 0xdf, 0xc6, 0xc9] {
            let bytes = [gigabytes, 0x40, 0, 0, 0, 0, 0];
            assert_eq!(scan(&bytes, 128, 99), Err(Malformed::Truncated));
        }
        let nils = [vec![0xdc, 0, 98], vec![0xc0; 98]].concat();
        assert_eq!(scan(&nils, 128, 99), Ok(()));
        assert_eq!(scan(&nils, 128, 98), Err(Malformed::TooMany));
        assert_eq!(scan(&[0xc1], 128, 99), Err(Malformed::Reserved));
    }
}
