//! Recognises messages that were received before: durable buses redeliver messages that were not
//! acknowledged, and a publisher repeats a publish whose outcome it does not know.
//!
//! Ids are remembered for a time and up to a number, whichever ends first. A message whose id was
//! forgotten is applied again: a repeated delete costs one load.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, Hash},
};

use foldhash::quality::RandomState;

/// All times are milliseconds.
#[derive(Default)]
pub(crate) struct Dedupe {
    ttl: u64,
    max_entries: usize,
    seeds: (RandomState, RandomState),
    /// The fingerprints of the messages.
    ids: HashSet<u128, foldhash::fast::RandomState>,
    /// The same fingerprints, oldest first, each with the time at which it is forgotten.
    oldest: VecDeque<(u64, u128)>,
}

impl Dedupe {
    /// Zero entries or a `ttl` of zero turn it off: every message is new.
    pub(crate) fn new(max_entries: usize, ttl: u64) -> Self {
        Self { ttl, max_entries: if ttl == 0 { 0 } else { max_entries }, ..Self::default() }
    }

    /// Whether this message was received before.
    pub(crate) fn contains(&mut self, now: u64, source: impl Hash + Copy, id: &str) -> bool {
        self.expire(now);
        self.ids.contains(&self.fingerprint(source, id))
    }

    /// Remembers a message by its id and source, as two publishers may use the same ids. Returns
    /// whether it is new.
    pub(crate) fn insert(&mut self, now: u64, source: impl Hash + Copy, id: &str) -> bool {
        if self.max_entries == 0 {
            return true;
        }
        self.expire(now);
        let fingerprint = self.fingerprint(source, id);
        if self.ids.contains(&fingerprint) {
            return false;
        }
        if self.oldest.len() >= self.max_entries {
            self.forget_oldest();
        }
        self.ids.insert(fingerprint);
        self.oldest.push_back((now.saturating_add(self.ttl), fingerprint));
        true
    }

    /// Hashes the id to 16 bytes, because peers choose the ids, which may be 64 KiB long. Under two
    /// random seeds: to take a message for another one would lose it, and with one hash of 64 bits
    /// that would depend on a single function.
    fn fingerprint(&self, source: impl Hash + Copy, id: &str) -> u128 {
        let high = u128::from(self.seeds.0.hash_one((source, id)));
        high << 64 | u128::from(self.seeds.1.hash_one((source, id)))
    }

    fn expire(&mut self, now: u64) {
        while self.oldest.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, fingerprint)) = self.oldest.pop_front() {
            self.ids.remove(&fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other_and_halves_are_independent() {
        let dedupe = Dedupe::new(1, 1);
        let fingerprint = dedupe.fingerprint("a", "bc");
        assert_eq!(fingerprint, dedupe.fingerprint("a", "bc"));
        assert_ne!(fingerprint, dedupe.fingerprint("ab", "c"));
        assert_ne!((fingerprint >> 64) as u64, fingerprint as u64, "the two seeds differ");
    }

    #[test]
    fn a_message_is_new_once_until_its_ttl_is_over() {
        let mut dedupe = Dedupe::new(10, 300);
        assert!(dedupe.insert(0, "a", "1"));
        assert!(!dedupe.insert(0, "a", "1"));
        assert!(dedupe.contains(299, "a", "1") && !dedupe.contains(299, "a", "2"));
        assert!(dedupe.insert(0, "b", "1"), "another source");
        assert!(!dedupe.insert(299, "a", "1"));
        assert!(dedupe.insert(300, "a", "1"), "receiving it again does not prolong it");
        assert!(!dedupe.insert(599, "a", "1"));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut dedupe = Dedupe::new(3, 300);
        for id in ["1", "2", "3", "4"] {
            assert!(dedupe.insert(0, "a", id));
        }
        assert!(!dedupe.insert(0, "a", "2") && !dedupe.insert(0, "a", "4"));
        assert!(dedupe.insert(0, "a", "1"));
    }

    #[test]
    fn its_size_is_bounded() {
        let mut dedupe = Dedupe::new(100, 50);
        for now in 0..10_000 {
            assert!(dedupe.insert(now, "a", &now.to_string()));
            assert!(dedupe.ids.len() <= 50 && dedupe.oldest.len() == dedupe.ids.len());
        }
        for id in 0..10_000 {
            assert!(dedupe.insert(20_000, "a", &id.to_string()));
            assert!(dedupe.ids.len() <= 100 && dedupe.oldest.len() == dedupe.ids.len());
        }
    }

    #[test]
    fn turned_off_every_message_is_new() {
        for mut dedupe in [Dedupe::new(0, 300), Dedupe::new(10, 0)] {
            assert!(dedupe.insert(0, "a", "1") && dedupe.insert(0, "a", "1"));
            assert!(dedupe.oldest.is_empty());
        }
    }
}
