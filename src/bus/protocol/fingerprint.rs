//! A name of two parts in sixteen bytes, so that what is remembered of peers has a size that they
//! do not choose: an id may be 64 KiB long.
//!
//! Two hashes under random seeds of this process. Taking an event for another would lose it, and
//! one hash of 64 bits would leave that to the quality of a single function.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;

#[derive(Default)]
pub(crate) struct Fingerprints(RandomState, RandomState);

impl Fingerprints {
    pub(crate) fn of(&self, name: &str, of: &str) -> u128 {
        let one = u128::from(self.0.hash_one((name, of)));
        one << 64 | u128::from(self.1.hash_one((name, of)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other_and_halves_are_independent() {
        let prints = Fingerprints::default();
        assert_eq!(prints.of("a", "bc"), prints.of("a", "bc"));
        assert_ne!(prints.of("a", "bc"), prints.of("ab", "c"));
        let print = prints.of("a", "bc");
        assert_ne!((print >> 64) as u64, print as u64, "the two seeds differ");
    }
}
