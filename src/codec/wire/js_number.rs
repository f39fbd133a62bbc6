//! Reads numbers as JavaScript means them: it has one kind of number, the double.

use crate::msgpack::writer::MAX_EXACT;

/// Returns the integer that a double stands for: it has no fraction and is within 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the double has no fraction and is within 2^53"
)]
pub(super) fn exact_i64(double: f64) -> Option<i64> {
    (double.abs() <= MAX_EXACT as f64 && double.fract() == 0.0).then_some(double as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_stands_for_the_integer_it_equals_up_to_2_53() {
        assert_eq!(exact_i64(MAX_EXACT as f64), Some(1 << 53));
        assert_eq!(exact_i64(-(MAX_EXACT as f64)), Some(-(1 << 53)));
        let beyond = MAX_EXACT as f64 + 2.0;
        for other in [beyond, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(exact_i64(other), None, "{other}");
        }
    }
}
