//! Hashes a name of two parts to 16 bytes. Peers choose the ids of messages, which may be 64 KiB
//! long; of their fingerprints, all have one size.
//!
//! The fingerprint is two hashes under random seeds of this process. To take a message for another
//! one would lose it, and with one hash of 64 bits that would depend on a single function.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

#[derive(Default)]
pub(crate) struct Fingerprints(RandomState, RandomState);

impl Fingerprints {
    pub(crate) fn of(&self, first: &str, second: &str) -> u128 {
        let high = u128::from(self.0.hash_one((first, second)));
        high << 64 | u128::from(self.1.hash_one((first, second)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other_and_halves_are_independent() {
        let fingerprints = Fingerprints::default();
        let fingerprint = fingerprints.of("a", "bc");
        assert_eq!(fingerprint, fingerprints.of("a", "bc"));
        assert_ne!(fingerprint, fingerprints.of("ab", "c"));
        assert_ne!((fingerprint >> 64) as u64, fingerprint as u64, "the two seeds differ");
    }
}
