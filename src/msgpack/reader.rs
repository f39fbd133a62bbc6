//! Reads MessagePack token by token, without recursion, and validates its structure.

/// Why bytes are not well-formed MessagePack, or exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The bytes end inside a value, or a length claims more than there is.
    Truncated,
    Trailing,
    TooDeep,
    /// All arrays and maps together hold more values than allowed.
    TooManyValues,
    /// The marker 0xc1, which MessagePack never uses.
    Reserved,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "MessagePack ends too early",
            Self::Trailing => "MessagePack has bytes after its end",
            Self::TooDeep => "MessagePack is nested too deeply",
            Self::TooManyValues => "MessagePack has too many values",
            Self::Reserved => "MessagePack has a byte 0xc1",
        })
    }
}

impl std::error::Error for Malformed {}

/// A scalar value, or the header of an array or a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'a> {
    /// Nil, or JavaScript's `undefined` (extension 0 with one zero byte).
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// An integer in a signed format. Encoders of JavaScript use these for negative numbers only,
    /// other encoders also for positive ones.
    Signed(i64),
    Float(f64),
    /// Text. The reader does not check that it is UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// The type of an extension and its bytes.
    Extension(i8, &'a [u8]),
    /// The number of values that follow.
    Array(u32),
    /// The number of pairs of key and value that follow.
    Map(u32),
}

impl Token<'_> {
    /// Returns how many values follow that belong to this token.
    #[inline]
    pub(crate) fn children(self) -> u64 {
        match self {
            Self::Array(values) => u64::from(values),
            Self::Map(pairs) => u64::from(pairs) * 2,
            _ => 0,
        }
    }
}

/// Checks that the bytes are exactly one value, nested at most `max_depth` deep and made of at
/// most `max_values` values. Allocates for the depth only.
pub(crate) fn validate(bytes: &[u8], max_depth: usize, max_values: usize) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    reader.value(max_depth, max_values)?;
    reader.end()
}

/// A position in MessagePack bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the number of bytes that are not read yet.
    #[inline]
    pub(crate) fn bytes_left(&self) -> usize {
        self.rest.len()
    }

    /// Reads a scalar value, or the header of an array or a map.
    #[inline]
    pub(crate) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let (&marker, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(match marker {
            0x00..=0x7f => Token::Unsigned(u64::from(marker)),
            0x80..=0x8f => Token::Map(u32::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(u32::from(marker & 0x0f)),
            0xa0..=0xbf => Token::Text(self.take(u32::from(marker & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => return Err(Malformed::Reserved),
            0xc2 | 0xc3 => Token::Bool(marker == 0xc3),
            0xc4..=0xc6 => Token::Bytes(self.sized(1 << (marker - 0xc4))?),
            0xc7..=0xc9 => {
                let length = self.length(1 << (marker - 0xc7))?;
                self.extension(length)?
            }
            0xca => Token::Float(f64::from(f32::from_bits(self.length(4)?))),
            0xcb => Token::Float(f64::from_bits(self.integer(8)?)),
            0xcc..=0xcf => Token::Unsigned(self.integer(1 << (marker - 0xcc))?),
            0xd0..=0xd3 => {
                let bytes = 1 << (marker - 0xd0);
                // Shifted to the top and back, so that the sign spreads.
                let unused = 64 - 8 * bytes;
                Token::Signed((self.integer(bytes)? << unused).cast_signed() >> unused)
            }
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => Token::Text(self.sized(1 << (marker - 0xd9))?),
            0xdc | 0xdd => Token::Array(self.length(2 << (marker - 0xdc))?),
            0xde | 0xdf => Token::Map(self.length(2 << (marker - 0xde))?),
            0xe0..=0xff => Token::Signed(i64::from(marker.cast_signed())),
        })
    }

    /// Reads past one whole value and returns its bytes. The value may be nested at most
    /// `max_depth` deep and consist of at most `max_values` values: in memory, each of them may
    /// take many times its one byte.
    pub(crate) fn value(
        &mut self,
        max_depth: usize,
        max_values: usize,
    ) -> Result<&'a [u8], Malformed> {
        let all = self.rest;
        let mut left = max_values;
        // How many values are still to come in the innermost open array or map, and in each one
        // around it. A value without children needs no allocation.
        let (mut to_come, mut around) = (1u64, Vec::new());
        loop {
            while to_come == 0 {
                let Some(outer) = around.pop() else {
                    return all.get(..all.len() - self.rest.len()).ok_or(Malformed::Truncated);
                };
                to_come = outer;
            }
            to_come -= 1;
            left = left.checked_sub(1).ok_or(Malformed::TooManyValues)?;
            let children = self.token()?.children();
            // Each takes at least one byte.
            if children > self.rest.len() as u64 {
                return Err(Malformed::Truncated);
            }
            if children > 0 {
                if around.len() >= max_depth {
                    return Err(Malformed::TooDeep);
                }
                around.push(to_come);
                to_come = children;
            }
        }
    }

    /// Returns an error unless all bytes are read.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.bytes_left() == 0 { Ok(()) } else { Err(Malformed::Trailing) }
    }

    fn extension(&mut self, length: u32) -> Result<Token<'a>, Malformed> {
        let (&kind, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(match (kind.cast_signed(), self.take(length)?) {
            (0, [0]) => Token::Nil,
            (kind, bytes) => Token::Extension(kind, bytes),
        })
    }

    fn sized(&mut self, length_bytes: usize) -> Result<&'a [u8], Malformed> {
        let length = self.length(length_bytes)?;
        self.take(length)
    }

    #[inline]
    fn take(&mut self, bytes: u32) -> Result<&'a [u8], Malformed> {
        let bytes = usize::try_from(bytes).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a big-endian number of at most four bytes.
    fn length(&mut self, bytes: usize) -> Result<u32, Malformed> {
        u32::try_from(self.integer(bytes)?).map_err(|_| Malformed::Truncated)
    }

    /// Reads a big-endian number of at most eight bytes.
    #[inline]
    fn integer(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let (digits, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_measured_right() {
        let formats: [&[u8]; 27] = [
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
            &[0xc5, 0, 1, 9],
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
        for bytes in formats {
            assert_eq!(Reader::new(bytes).value(8, 99), Ok(bytes));
            assert_eq!(validate(bytes, 8, 99), Ok(()), "{bytes:x?}");
            for end in 0..bytes.len() {
                assert_eq!(validate(&bytes[..end], 8, 99), Err(Malformed::Truncated), "{bytes:x?}");
            }
            let more = [bytes, &[0]].concat();
            assert_eq!(validate(&more, 8, 99), Err(Malformed::Trailing), "{bytes:x?}");
        }
    }

    #[test]
    fn depth_lengths_and_numbers_of_values_are_limited() {
        let nested = |deep| [vec![0x91; deep], vec![0]].concat();
        assert_eq!(validate(&nested(100_000), 128, 999), Err(Malformed::TooDeep));
        assert_eq!(validate(&nested(128), 128, 999), Ok(()));
        for gigabytes in [0xdb, 0xdd, 0xdf, 0xc6, 0xc9] {
            let bytes = [gigabytes, 0x40, 0, 0, 0, 0, 0];
            assert_eq!(validate(&bytes, 128, 99), Err(Malformed::Truncated));
        }
        let nils = [vec![0xdc, 0, 98], vec![0xc0; 98]].concat();
        assert_eq!(validate(&nils, 128, 99), Ok(()));
        assert_eq!(validate(&nils, 128, 98), Err(Malformed::TooManyValues));
        assert_eq!(validate(&[0xc1], 128, 99), Err(Malformed::Reserved));
    }

    #[test]
    fn signs_and_extensions_are_read() {
        for (bytes, token) in [
            (&[0xd0, 0xff][..], Token::Signed(-1)),
            (&[0xd1, 0x00, 0xff], Token::Signed(255)),
            (&[0xe0], Token::Signed(-32)),
            (&[0xd4, 0, 0], Token::Nil),
            (&[0xd4, 1, 0], Token::Extension(1, &[0])),
            (&[0xd4, 0xff, 0], Token::Extension(-1, &[0])),
        ] {
            assert_eq!(Reader::new(bytes).token(), Ok(token), "{bytes:x?}");
        }
    }
}
