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
    ids: HashSet<Fingerprint, foldhash::fast::RandomState>,
    /// The same fingerprints, oldest first, each with the time at which it is forgotten.
    oldest: VecDeque<(u64, Fingerprint)>,
}

/// A message, by a hash of its id and source, as two publishers may use the same ids.
///
/// It has 16 bytes, because peers choose the ids, which may be 64 KiB long. It is made of two
/// hashes with random seeds: to take a message for another one would lose it, and with one hash of
/// 64 bits that would depend on a single function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(u128);

impl Dedupe {
    /// Zero entries or a `ttl` of zero turn it off: every message is new.
    pub(crate) fn new(max_entries: usize, ttl: u64) -> Self {
        Self { ttl, max_entries: if ttl == 0 { 0 } else { max_entries }, ..Self::default() }
    }

    /// Returns what [`insert`](Self::insert) remembers of a message; `None` if it was received
    /// before.
    pub(crate) fn fingerprint_of_new(
        &mut self,
        now: u64,
        source: impl Hash + Copy,
        id: &str,
    ) -> Option<Fingerprint> {
        self.expire(now);
        let fingerprint = self.fingerprint(source, id);
        (!self.ids.contains(&fingerprint)).then_some(fingerprint)
    }

    /// Remembers a message.
    pub(crate) fn insert(&mut self, now: u64, fingerprint: Fingerprint) {
        if self.max_entries == 0 || !self.ids.insert(fingerprint) {
            return;
        }
        if self.oldest.len() >= self.max_entries {
            self.forget_oldest();
        }
        self.oldest.push_back((now.saturating_add(self.ttl), fingerprint));
    }

    fn fingerprint(&self, source: impl Hash + Copy, id: &str) -> Fingerprint {
        let high = u128::from(self.seeds.0.hash_one((source, id)));
        Fingerprint(high << 64 | u128::from(self.seeds.1.hash_one((source, id))))
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

    /// Receives a message. Returns whether it is new.
    fn receive(dedupe: &mut Dedupe, now: u64, source: &str, id: &str) -> bool {
        let new = dedupe.fingerprint_of_new(now, source, id);
        new.iter().for_each(|fingerprint| dedupe.insert(now, *fingerprint));
        new.is_some()
    }

    #[test]
    fn parts_do_not_run_into_each_other_and_halves_are_independent() {
        let dedupe = Dedupe::new(1, 1);
        let fingerprint = dedupe.fingerprint("a", "bc");
        assert_eq!(fingerprint, dedupe.fingerprint("a", "bc"));
        assert_ne!(fingerprint, dedupe.fingerprint("ab", "c"));
        let Fingerprint(bits) = fingerprint;
        assert_ne!((bits >> 64) as u64, bits as u64, "the two seeds differ");
    }

    #[test]
    fn a_message_is_new_once_until_its_ttl_is_over() {
        let mut dedupe = Dedupe::new(10, 300);
        assert!(receive(&mut dedupe, 0, "a", "1"));
        assert!(!receive(&mut dedupe, 0, "a", "1"));
        assert!(dedupe.fingerprint_of_new(299, "a", "1").is_none());
        assert!(dedupe.fingerprint_of_new(299, "a", "2").is_some());
        assert!(receive(&mut dedupe, 0, "b", "1"), "another source");
        assert!(!receive(&mut dedupe, 299, "a", "1"));
        assert!(receive(&mut dedupe, 300, "a", "1"), "receiving it again does not prolong it");
        assert!(!receive(&mut dedupe, 599, "a", "1"));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut dedupe = Dedupe::new(3, 300);
        for id in ["1", "2", "3", "4"] {
            assert!(receive(&mut dedupe, 0, "a", id));
        }
        assert!(!receive(&mut dedupe, 0, "a", "2") && !receive(&mut dedupe, 0, "a", "4"));
        assert!(receive(&mut dedupe, 0, "a", "1"));
    }

    #[test]
    fn its_size_is_bounded() {
        let mut dedupe = Dedupe::new(100, 50);
        for now in 0..10_000 {
            assert!(receive(&mut dedupe, now, "a", &now.to_string()));
            assert!(dedupe.ids.len() <= 50 && dedupe.oldest.len() == dedupe.ids.len());
        }
        for id in 0..10_000 {
            assert!(receive(&mut dedupe, 20_000, "a", &id.to_string()));
            assert!(dedupe.ids.len() <= 100 && dedupe.oldest.len() == dedupe.ids.len());
        }
    }

    #[test]
    fn turned_off_every_message_is_new() {
        for mut dedupe in [Dedupe::new(0, 300), Dedupe::new(10, 0)] {
            assert!(receive(&mut dedupe, 0, "a", "1") && receive(&mut dedupe, 0, "a", "1"));
            assert!(dedupe.oldest.is_empty());
        }
    }
}
