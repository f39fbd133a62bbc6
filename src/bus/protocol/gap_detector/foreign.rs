//! Sequence numbers of messages of caches that this instance does not have.

use super::GapDetector;
use crate::bus::wire::{message::SequenceStamp, namespace::CacheId};

impl GapDetector {
    /// Records a message for none of the caches. It counts as received, so that it is no hole among
    /// the messages of its publisher: one instance publishes the messages of several caches, and
    /// counts them together. If the publisher has none of these caches, its silence and its holes
    /// are no gap.
    pub(crate) fn observe_foreign(
        &mut self,
        now: u64,
        stamp: Option<&SequenceStamp<'_>>,
        is_beacon: bool,
    ) {
        self.observe_activity(now);
        let Some(stamp) = stamp else {
            self.last_foreign_unnumbered = Some(now);
            return;
        };
        let is_known = self.publishers.contains_key(stamp.incarnation);
        // The publishers of these caches take precedence.
        if !is_known && self.publishers.len() >= self.max_publishers / 2 {
            return;
        }
        // mutant foreign-number: remove
        self.observe(now, stamp, is_beacon, &[]);
    }

    /// A cache joins the instance. The deletes of its keys in the messages that were received are
    /// not known key by key. Returns when the last message without a number was received that may
    /// have been for it, and when all its publishers have named it: each does within the time that
    /// a subscription has to hear them.
    pub(crate) fn on_cache_joined(&mut self, now: u64) -> (Option<u64>, u64) {
        for publisher in self.publishers.values_mut() {
            // mutant late-cache: remove
            publisher.forget_below(publisher.numbers.highest());
        }
        (self.last_foreign_unnumbered, now.saturating_add(self.trust_timeout))
    }

    pub(crate) fn on_cache_left(&mut self, cache: CacheId) {
        for publisher in self.publishers.values_mut() {
            publisher.caches.remove(&cache);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::protocol::gap_detector::GapReason;

    const TRUST: u64 = 3_000;
    const CACHE: &[CacheId] = &[CacheId(3)];

    fn stamp(seq: u64) -> SequenceStamp<'static> {
        SequenceStamp { incarnation: "p", seq, next_within_ms: Some(1_000), idle_ms: Some(1) }
    }

    /// A detector on a subscription that is current from 0 on.
    fn detector() -> GapDetector {
        let mut gaps = GapDetector::new("own", TRUST);
        gaps.on_subscribed(0, false);
        gaps.probe(0);
        gaps.probe(TRUST);
        gaps
    }

    fn poll(gaps: &mut GapDetector, now: u64) -> Option<GapReason> {
        gaps.request_probe(now);
        gaps.probe(now);
        gaps.poll_gap(now)
    }

    #[test]
    fn numbers_of_other_caches_are_no_holes() {
        let mut gaps = detector();
        for seq in 0..6 {
            if seq % 3 == 1 {
                gaps.observe(TRUST, &stamp(seq), false, CACHE);
            } else {
                gaps.observe_foreign(TRUST, Some(&stamp(seq)), false);
            }
        }
        assert_eq!(poll(&mut gaps, TRUST + 2_000), None);
        gaps.observe(TRUST + 2_000, &stamp(7), false, CACHE);
        assert_eq!(poll(&mut gaps, TRUST + 3_000), Some(GapReason::Hole), "number 6 is missing");
    }

    #[test]
    fn a_publisher_of_other_caches_alone_is_not_watched() {
        let mut gaps = detector();
        gaps.observe_foreign(TRUST, Some(&stamp(5)), false);
        gaps.observe_foreign(TRUST, Some(&stamp(9)), false);
        for now in (TRUST..TRUST + 20_000).step_by(1_000) {
            assert_eq!(poll(&mut gaps, now), None);
            assert!(gaps.trusted_until().is_some());
        }
        let cache = CACHE[0];
        assert!(!gaps.is_known(cache, "p") && gaps.watermarks(cache).next().is_none());
        assert!(gaps.forgotten_watermarks(cache).next().is_none());
    }

    #[test]
    fn publishers_of_other_caches_leave_room() {
        let mut gaps = detector();
        gaps.max_publishers = 4;
        let names = ["a", "b", "c", "d", "e"];
        for incarnation in names {
            let stamp = SequenceStamp { incarnation, ..stamp(0) };
            gaps.observe_foreign(TRUST, Some(&stamp), false);
        }
        assert_eq!(gaps.publishers.len(), 2);
        assert_eq!(poll(&mut gaps, 2 * TRUST), None);
    }
}
