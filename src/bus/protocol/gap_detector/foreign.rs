//! Sequence numbers of messages of other caches on the channel.

use super::GapDetector;
use crate::bus::wire::message::SequenceStamp;

impl GapDetector {
    /// Records a message of another cache. It counts as received, so that it is no hole among the
    /// messages of its publisher: one instance may publish the messages of several caches, and
    /// count them together. If the publisher sends no message of this cache, its silence and its
    /// holes are no gap.
    pub(crate) fn observe_foreign(
        &mut self,
        now: u64,
        stamp: Option<&SequenceStamp<'_>>,
        is_beacon: bool,
    ) {
        self.observe_activity(now);
        let Some(stamp) = stamp else { return };
        let known = self.publishers.get(stamp.incarnation);
        let is_foreign = known.is_none_or(|publisher| publisher.is_foreign);
        // The publishers of this cache take precedence.
        if known.is_none() && self.publishers.len() >= self.max_publishers / 2 {
            return;
        }
        // mutant foreign-number: remove
        self.observe(now, stamp, is_beacon);
        if let Some(publisher) = self.publishers.get_mut(stamp.incarnation).filter(|_| is_foreign) {
            publisher.is_foreign = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::protocol::gap_detector::GapReason;

    const TRUST: u64 = 3_000;

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
                gaps.observe(TRUST, &stamp(seq), false);
            } else {
                gaps.observe_foreign(TRUST, Some(&stamp(seq)), false);
            }
        }
        assert_eq!(poll(&mut gaps, TRUST + 2_000), None);
        gaps.observe(TRUST + 2_000, &stamp(7), false);
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
        assert!(!gaps.is_known("p") && gaps.watermarks().next().is_none());
        assert!(gaps.forgotten_watermarks().next().is_none());
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
