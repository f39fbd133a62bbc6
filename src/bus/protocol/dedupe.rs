//! Which events were here before: durable buses deliver again what was not confirmed, and a publish
//! whose outcome is not known is made again.
//!
//! Remembered for a while and up to a number, whichever ends first. What is forgotten and comes
//! again is applied again: a delete costs one load more.

use std::collections::{HashSet, VecDeque};

use super::fingerprint::Fingerprints;

pub(crate) struct Dedupe {
    ttl: u64,
    max_entries: usize,
    prints: Fingerprints,
    seen: HashSet<u128, foldhash::fast::RandomState>,
    /// The same, oldest first, with the time at which each is forgotten.
    order: VecDeque<(u64, u128)>,
}

impl Dedupe {
    /// `ttl` is in milliseconds. Zero of either turns it off: every event is new.
    pub(crate) fn new(max_entries: usize, ttl: u64) -> Self {
        Self {
            ttl,
            max_entries,
            prints: Fingerprints::default(),
            seen: HashSet::default(),
            order: VecDeque::new(),
        }
    }

    /// Whether the event was here before.
    pub(crate) fn contains(&mut self, now: u64, source: &str, id: &str) -> bool {
        self.expire(now);
        self.seen.contains(&self.prints.of(source, id))
    }

    /// Whether the event is seen for the first time, and remembers it.
    ///
    /// The id is taken together with its source: two publishers may number alike.
    pub(crate) fn insert(&mut self, now: u64, source: &str, id: &str) -> bool {
        if self.max_entries == 0 || self.ttl == 0 {
            return true;
        }
        self.expire(now);
        let print = self.prints.of(source, id);
        if self.seen.contains(&print) {
            return false;
        }
        if self.order.len() >= self.max_entries
            && let Some((_, oldest)) = self.order.front().copied()
        {
            self.forget(oldest);
        }
        self.seen.insert(print);
        self.order.push_back((now.saturating_add(self.ttl), print));
        true
    }

    fn expire(&mut self, now: u64) {
        while let Some((until, print)) = self.order.front().copied()
            && until <= now
        {
            self.forget(print);
        }
    }

    fn forget(&mut self, oldest: u128) {
        self.seen.remove(&oldest);
        self.order.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_until_its_time_is_over() {
        let mut dedupe = Dedupe::new(10, 300);
        assert!(dedupe.insert(0, "a", "1"));
        assert!(!dedupe.insert(0, "a", "1"));
        assert!(dedupe.contains(299, "a", "1") && !dedupe.contains(299, "a", "2"));
        assert!(dedupe.insert(0, "b", "1"), "of another source");
        assert!(!dedupe.insert(299, "a", "1"));
        assert!(dedupe.insert(300, "a", "1"), "seeing it again does not prolong it");
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
    fn it_stays_within_its_bounds() {
        let mut dedupe = Dedupe::new(100, 50);
        for now in 0..10_000 {
            assert!(dedupe.insert(now, "a", &now.to_string()));
            assert!(dedupe.seen.len() <= 50 && dedupe.order.len() == dedupe.seen.len());
        }
        for id in 0..10_000 {
            assert!(dedupe.insert(20_000, "a", &id.to_string()));
            assert!(dedupe.seen.len() <= 100 && dedupe.order.len() == dedupe.seen.len());
        }
    }

    #[test]
    fn turned_off_it_calls_everything_new() {
        for mut dedupe in [Dedupe::new(0, 300), Dedupe::new(10, 0)] {
            assert!(dedupe.insert(0, "a", "1") && dedupe.insert(0, "a", "1"));
            assert!(dedupe.order.is_empty());
        }
    }
}
