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
        let missed_in_resync = self.missed_in_resync;
        // mutant foreign-number: remove
        self.observe(now, stamp, is_beacon);
        if let Some(publisher) = self.publishers.get_mut(stamp.incarnation).filter(|_| is_foreign) {
            (publisher.is_foreign, publisher.overdue) = (true, None);
            self.missed_in_resync = missed_in_resync;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: u64 = 3_000;

    fn stamp(seq: u64) -> SequenceStamp<'static> {
        SequenceStamp { incarnation: "p", seq, next_within_ms: Some(1_000) }
    }

    /// A detector past its resync window.
    fn detector() -> GapDetector {
        let mut gaps = GapDetector::new("own", TRUST);
        gaps.on_subscribed(0, false);
        gaps.observe_activity(TRUST);
        assert_eq!(gaps.poll_gap(TRUST), None);
        gaps
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
        gaps.observe_activity(TRUST + 2_000);
        assert_eq!(gaps.poll_gap(TRUST + 2_000), None);
        gaps.observe(TRUST + 2_000, &stamp(7), false);
        gaps.observe_activity(TRUST + 3_000);
        assert!(gaps.poll_gap(TRUST + 3_000).is_some(), "number 6 is missing");
    }

    #[test]
    fn a_publisher_of_other_caches_alone_is_not_watched() {
        let mut gaps = detector();
        gaps.observe_foreign(TRUST, Some(&stamp(5)), false);
        gaps.observe_foreign(TRUST, Some(&stamp(9)), false);
        for now in (TRUST..TRUST + 20_000).step_by(1_000) {
            gaps.observe_activity(now);
            assert_eq!(gaps.poll_gap(now), None);
        }
        assert!(!gaps.is_known("p") && gaps.watermarks().next().is_none());
        assert!(gaps.forgotten_watermarks().next().is_none());
    }

    #[test]
    fn a_message_of_another_cache_shows_that_the_subscription_works() {
        let mut gaps = detector();
        gaps.observe_foreign(TRUST + 2_000, None, false);
        assert_eq!(gaps.trusted_until(), Some(2 * TRUST + 2_000));
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
        gaps.observe_activity(2 * TRUST);
        assert_eq!(gaps.poll_gap(2 * TRUST), None);
    }
}
