//! Writes MessagePack as JavaScript's encoder does: the shortest format, and doubles for integers
//! beyond 32 bits.

/// The largest integer up to which every integer is a double: 2^53.
pub(crate) const MAX_EXACT: u64 = 1 << 53;

/// The markers of a type whose length is written in the marker itself, or in 8, 16 or 32 bits.
pub(crate) struct Markers {
    pub(crate) short: u8,
    /// Lengths below this one are written in the marker.
    pub(crate) short_lengths: u32,
    pub(crate) bits_8: Option<u8>,
    pub(crate) bits_16: u8,
    pub(crate) bits_32: u8,
}

const TEXT: Markers =
    Markers { short: 0xa0, short_lengths: 32, bits_8: Some(0xd9), bits_16: 0xda, bits_32: 0xdb };
/// Binary data, whose length never fits into the marker.
pub(crate) const BIN: Markers =
    Markers { short: 0, short_lengths: 0, bits_8: Some(0xc4), bits_16: 0xc5, bits_32: 0xc6 };
pub(crate) const ARRAY: Markers =
    Markers { short: 0x90, short_lengths: 16, bits_8: None, bits_16: 0xdc, bits_32: 0xdd };

/// Appends MessagePack to its bytes.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// Writes the header of a value of this length.
    pub(crate) fn header(&mut self, markers: &Markers, length: u32) {
        let [a, b, c, d] = length.to_be_bytes();
        match (length, markers.bits_8) {
            _ if length < markers.short_lengths => self.0.push(markers.short | d),
            (0..=0xff, Some(marker)) => self.0.extend([marker, d]),
            (0..=0xffff, _) => self.0.extend([markers.bits_16, c, d]),
            _ => self.0.extend([markers.bits_32, a, b, c, d]),
        }
    }

    /// Writes a text of at most `u32::MAX` bytes; the caller refuses longer ones.
    pub(crate) fn text(&mut self, text: &str) {
        self.header(&TEXT, u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.raw(text.as_bytes());
    }

    /// Writes at most `u32::MAX` bytes; the caller refuses longer ones.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.header(&BIN, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.raw(bytes);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.0.push(if value { 0xc3 } else { 0xc2 });
    }

    pub(crate) fn double(&mut self, value: f64) {
        self.0.push(0xcb);
        self.0.extend(value.to_be_bytes());
    }

    /// Writes a number that JavaScript reads as a number: 2^53 where it is greater than that.
    pub(crate) fn number(&mut self, number: u64) {
        let number = number.min(MAX_EXACT);
        match as_js_double(i128::from(number)) {
            Some(double) => self.double(double),
            None => self.unsigned(number),
        }
    }

    /// Writes an integer, whatever its width.
    pub(crate) fn unsigned(&mut self, integer: u64) {
        let [.., a, b, c, d] = integer.to_be_bytes();
        match integer {
            0..=0x7f => self.0.push(d),
            0x80..=0xff => self.0.extend([0xcc, d]),
            0x100..=0xffff => self.0.extend([0xcd, c, d]),
            0x1_0000..=0xffff_ffff => self.0.extend([0xce, a, b, c, d]),
            _ => {
                self.0.push(0xcf);
                self.0.extend(integer.to_be_bytes());
            }
        }
    }

    /// Writes the header of an array of at most `u32::MAX` values.
    pub(crate) fn array(&mut self, values: usize) {
        self.header(&ARRAY, u32::try_from(values).unwrap_or(u32::MAX));
    }

    /// Appends a value that is MessagePack already.
    pub(crate) fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
}

/// Returns the double that JavaScript's own encoder writes for this integer; `None` within 32
/// bits, and beyond 2^53, where a double is not exact (there JavaScript reads a `BigInt`).
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 the double is not used")]
pub(crate) fn as_js_double(integer: i128) -> Option<f64> {
    let is_small = (i128::from(i32::MIN)..=i128::from(u32::MAX)).contains(&integer);
    let is_exact = integer.unsigned_abs() <= u128::from(MAX_EXACT);
    (!is_small && is_exact).then_some(integer as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::msgpack::reader::{Reader, Token};

    #[test]
    fn a_double_is_written_between_32_bits_and_2_53() {
        assert_eq!(as_js_double(i128::from(u32::MAX)), None);
        assert_eq!(as_js_double(i128::from(u32::MAX) + 1), Some(4_294_967_296.0));
        assert_eq!(as_js_double(i128::from(i32::MIN)), None);
        assert_eq!(as_js_double(i128::from(i32::MIN) - 1), Some(-2_147_483_649.0));
        assert_eq!(as_js_double(1 << 53), Some(MAX_EXACT as f64));
        assert_eq!(as_js_double((1 << 53) + 1), None);
        assert_eq!(as_js_double(-(1 << 53) - 1), None);
    }

    #[test]
    fn written_values_are_read_again() {
        let write = |write: &dyn Fn(&mut Writer)| {
            let mut writer = Writer::default();
            write(&mut writer);
            writer.0
        };
        for number in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), u64::MAX] {
            let bytes = write(&|out| out.unsigned(number));
            assert_eq!(Reader::new(&bytes).token(), Ok(Token::Unsigned(number)));
        }
        for number in [4_294_967_296, 1_800_000_000_123, MAX_EXACT] {
            let bytes = write(&|out| out.number(number));
            assert_eq!(Reader::new(&bytes).token(), Ok(Token::Float(number as f64)));
        }
        for length in [0, 15, 16, 31, 32, 255, 256, 70_000] {
            let text = "x".repeat(length);
            let bytes = write(&|out| out.text(&text));
            assert_eq!(Reader::new(&bytes).token(), Ok(Token::Text(text.as_bytes())));
            let bytes = write(&|out| out.array(length));
            assert_eq!(Reader::new(&bytes).token(), Ok(Token::Array(length as u32)));
        }
    }
}
