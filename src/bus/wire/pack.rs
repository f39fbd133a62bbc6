//! MessagePack, as much of it as an event needs: read without recursion and without allocation,
//! and nothing that a length claims is believed.
//!
//! No decoder of a library, because a `set` carries a value that must be handed on as bytes, and
//! because limits are to hold before anything is built.

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// They end before they should.
    Truncated,
    /// There is more after the value.
    Trailing,
    TooDeep,
    /// The one byte that MessagePack never uses.
    Reserved,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "ends too early",
            Self::Trailing => "has bytes after its end",
            Self::TooDeep => "is nested too deeply",
            Self::Reserved => "has a byte 0xc1",
        })
    }
}

/// A value, or the beginning of one that holds others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Head<'a> {
    /// Nil, or what JavaScript writes for `undefined`.
    Nothing,
    Bool(bool),
    Uint(u64),
    Negative,
    Float(f64),
    Text(&'a [u8]),
    /// So many values follow.
    Array(u64),
    /// So many pairs follow.
    Map(u64),
    /// Bytes or an extension: nothing that an event's own fields are made of.
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads a value, or the beginning of one that holds others.
    pub(crate) fn head(&mut self) -> Result<Head<'a>, Malformed> {
        let marker = *self.take(1)?.first().ok_or(Malformed::Truncated)?;
        Ok(match marker {
            0x00..=0x7f => Head::Uint(u64::from(marker)),
            0xe0..=0xff => Head::Negative,
            0x80..=0x8f => Head::Map(u64::from(marker & 0x0f)),
            0x90..=0x9f => Head::Array(u64::from(marker & 0x0f)),
            0xa0..=0xbf => Head::Text(self.take(u64::from(marker & 0x1f))?),
            0xc0 => Head::Nothing,
            0xc1 => return Err(Malformed::Reserved),
            0xc2 | 0xc3 => Head::Bool(marker == 0xc3),
            // bin, and ext with a type before the bytes
            0xc4..=0xc6 => self.sized(1 << (marker - 0xc4), 0)?,
            0xc7..=0xc9 => self.sized(1 << (marker - 0xc7), 1)?,
            0xca => {
                let bits = u32::try_from(self.number(4)?).unwrap_or_default();
                Head::Float(f64::from(f32::from_bits(bits)))
            }
            0xcb => Head::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Head::Uint(self.number(1 << (marker - 0xcc))?),
            0xd0..=0xd3 => {
                let bytes = 1 << (marker - 0xd0);
                let number = self.number(bytes)?;
                if number >> (8 * bytes - 1) == 0 { Head::Uint(number) } else { Head::Negative }
            }
            // fixext of 1, 2, 4, 8, 16 bytes after a type
            0xd4..=0xd8 => match self.take(1 + (1 << (marker - 0xd4)))? {
                [0, 0] => Head::Nothing,
                _ => Head::Other,
            },
            0xd9..=0xdb => {
                let length = self.number(1 << (marker - 0xd9))?;
                Head::Text(self.take(length)?)
            }
            0xdc | 0xdd => Head::Array(self.number(2 << (marker - 0xdc))?),
            0xde | 0xdf => Head::Map(self.number(2 << (marker - 0xde))?),
        })
    }

    /// Reads past one value with all that is in it, and gives its bytes.
    pub(crate) fn value(&mut self, max_depth: usize) -> Result<&'a [u8], Malformed> {
        let all = self.rest;
        // For each open array or map, how many values are still to come in it.
        let mut open = vec![1u64];
        while let Some(to_come) = open.last_mut() {
            if *to_come == 0 {
                open.pop();
                continue;
            }
            *to_come -= 1;
            let values = match self.head()? {
                Head::Array(values) => values,
                Head::Map(pairs) => pairs * 2,
                _ => 0,
            };
            // Each takes a byte at least.
            if values > self.rest.len() as u64 {
                return Err(Malformed::Truncated);
            }
            if values > 0 {
                if open.len() > max_depth {
                    return Err(Malformed::TooDeep);
                }
                open.push(values);
            }
        }
        let length = all.len() - self.rest.len();
        all.get(..length).ok_or(Malformed::Truncated)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    fn sized(&mut self, length_bytes: usize, extra: u64) -> Result<Head<'a>, Malformed> {
        let length = self.number(length_bytes)?;
        self.take(length + extra)?;
        Ok(Head::Other)
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Malformed> {
        let bytes = usize::try_from(bytes).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A big-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let digits = self.take(bytes as u64)?;
        Ok(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
    }
}

/// Appends to a payload. Lengths beyond 32 bits do not come up: what is written has limits.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn map(&mut self, pairs: u8) {
        self.0.extend([0xde, 0, pairs]);
    }

    pub(crate) fn array(&mut self, values: usize) {
        match u8::try_from(values) {
            Ok(few @ 0..=15) => self.0.push(0x90 | few),
            _ => self.long(0xdd, values),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(short @ 0..=31) => self.0.push(0xa0 | short),
            Ok(short) => self.0.extend([0xd9, short]),
            Err(_) => self.long(0xdb, text.len()),
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A number that JavaScript reads as a number: above 32 bits a float, as it would write it
    /// itself, for it may read a long integer as another type.
    pub(crate) fn number(&mut self, number: u64) {
        match u32::try_from(number) {
            Ok(small @ 0..=0x7f) => self.0.extend(small.to_be_bytes().last()),
            Ok(small) => {
                self.0.push(0xce);
                self.0.extend(small.to_be_bytes());
            }
            Err(_) => {
                self.0.push(0xcb);
                self.0.extend((number as f64).to_be_bytes());
            }
        }
    }

    pub(crate) fn yes(&mut self) {
        self.0.push(0xc3);
    }

    /// A value that is MessagePack already.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    fn long(&mut self, marker: u8, length: usize) {
        self.0.push(marker);
        self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], max_depth: usize) -> Result<&[u8], Malformed> {
        let mut reader = Reader::new(bytes);
        let value = reader.value(max_depth)?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn every_kind_of_value_is_measured_right() {
        let kinds: [&[u8]; 26] = [
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
            &[0xc6, 0, 0, 0, 1, 9],
            &[0xd4, 0, 0],
            &[0xd8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            &[0xc7, 2, 5, 1, 2],
            &[0xc9, 0, 0, 0, 1, 5, 1],
            &[0x92, 1, 2],
            &[0xdc, 0, 1, 0x90],
            &[0x81, 0xa1, b'k', 0x80],
            &[0xdf, 0, 0, 0, 1, 1, 2],
        ];
        for bytes in kinds {
            assert_eq!(whole(bytes, 8), Ok(bytes));
            for end in 0..bytes.len() {
                assert_eq!(whole(&bytes[..end], 8), Err(Malformed::Truncated), "{bytes:x?}");
            }
            let more = [bytes, &[0]].concat();
            assert_eq!(whole(&more, 8), Err(Malformed::Trailing), "{bytes:x?}");
        }
    }

    #[test]
    fn depth_and_lengths_are_not_believed() {
        let nested = |deep| [vec![0x91; deep], vec![0]].concat();
        assert_eq!(whole(&nested(100_000), 128), Err(Malformed::TooDeep));
        assert!(whole(&nested(128), 128).is_ok());
        for gigabytes in [0xdb, 0xdd, 0xdf, 0xc6, 0xc9] {
            let bytes = [gigabytes, 0x40, 0, 0, 0, 0, 0];
            assert_eq!(whole(&bytes, 128), Err(Malformed::Truncated));
        }
        assert_eq!(whole(&[0xc1], 128), Err(Malformed::Reserved));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for number in [0, 127, 128, 255, u64::from(u32::MAX)] {
            let mut writer = Writer::default();
            writer.number(number);
            assert_eq!(Reader::new(&writer.0).head(), Ok(Head::Uint(number)));
        }
        let mut writer = Writer::default();
        writer.number(1_800_000_000_123);
        assert_eq!(Reader::new(&writer.0).head(), Ok(Head::Float(1_800_000_000_123.0)));
        for length in [0, 31, 32, 255, 256, 70_000] {
            let text = "x".repeat(length);
            let mut writer = Writer::default();
            writer.text(&text);
            assert_eq!(Reader::new(&writer.0).head(), Ok(Head::Text(text.as_bytes())));
            let mut writer = Writer::default();
            writer.array(length);
            assert_eq!(Reader::new(&writer.0).head(), Ok(Head::Array(length as u64)));
        }
        assert_eq!(Reader::new(&[0xd0, 0xff]).head(), Ok(Head::Negative));
        assert_eq!(Reader::new(&[0xd1, 0x00, 0xff]).head(), Ok(Head::Uint(255)));
        assert_eq!(Reader::new(&[0xd4, 0, 0]).head(), Ok(Head::Nothing));
        assert_eq!(Reader::new(&[0xd4, 1, 0]).head(), Ok(Head::Other));
    }
}
