//! Numbers as JavaScript has them: one kind, a double.

/// As far as every integer is a double of its own: 2^53.
const EXACT: f64 = 9_007_199_254_740_992.0;
const EXACT_INTEGER: u128 = 1 << 53;

/// The double that says this integer in JavaScript's own encoding, which has no integers beyond
/// 32 bits; `None` within them, and beyond what a double says exactly. (There a reader in
/// JavaScript gets a `BigInt`, which is no number to calculate with but all digits.)
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 it is not used")]
pub(super) fn double(integer: i128) -> Option<f64> {
    let small = (i128::from(i32::MIN)..=i128::from(u32::MAX)).contains(&integer);
    (!small && integer.unsigned_abs() <= EXACT_INTEGER).then_some(integer as f64)
}

/// The integer that a double says, where it says one exactly.
#[expect(clippy::cast_possible_truncation, reason = "it has no fraction, and is within 2^53")]
pub(super) fn whole(double: f64) -> Option<i64> {
    (double.abs() <= EXACT && double.fract() == 0.0).then_some(double as i64)
}

/// Whether an integer of this size is a double in JavaScript's own encoding.
pub(super) fn is_wide(integer: i64) -> bool {
    double(i128::from(integer)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_stand_for_the_integers_they_say_exactly() {
        assert_eq!(double(i128::from(u32::MAX)), None);
        assert_eq!(double(i128::from(u32::MAX) + 1), Some(4_294_967_296.0));
        assert_eq!(double(i128::from(i32::MIN)), None);
        assert_eq!(double(i128::from(i32::MIN) - 1), Some(-2_147_483_649.0));
        assert_eq!(double(1 << 53), Some(EXACT));
        assert_eq!(double((1 << 53) + 1), None);
        assert_eq!(double(-(1 << 53) - 1), None);
        assert_eq!(whole(EXACT), Some(1 << 53));
        assert_eq!(whole(-EXACT), Some(-(1 << 53)));
        for other in [EXACT + 2.0, 0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(whole(other), None, "{other}");
        }
    }
}
