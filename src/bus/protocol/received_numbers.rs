//! The sequence numbers that were received from one publisher, and the holes between them.

/// Maximum number of holes per publisher. More cannot be reordering, and are a gap at once.
const MAX_RANGES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct ReceivedNumbers {
    /// The first number that counts.
    first: u64,
    /// All numbers from `first` up to this one were received.
    next: u64,
    /// The numbers that were received above, in order, with a hole before each range.
    ranges: Vec<Range>,
}

/// The numbers `from..to`. Empty if only a beacon told of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
    /// When the hole before this range was noticed.
    noticed: Noticed,
}

/// When a hole was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noticed {
    /// Milliseconds.
    pub(super) at: u64,
    /// The number of the next [probe](super::probes) at that time: this probe and all later ones
    /// are sent after the missing messages were published.
    pub(super) probe: u64,
}

impl ReceivedNumbers {
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The highest number that the publisher is known to have used, plus one.
    pub(super) fn highest(&self) -> u64 {
        self.ranges.last().map_or(self.next, |last| last.to)
    }

    /// When the oldest hole was noticed.
    pub(super) fn oldest_hole(&self) -> Option<Noticed> {
        self.ranges.first().map(|range| range.noticed)
    }

    pub(super) fn has_too_many_holes(&self) -> bool {
        self.ranges.len() > MAX_RANGES
    }

    /// The first message on a subscription has this number. `follows_one`: the message before
    /// should have been received too.
    pub(super) fn begin_at(&mut self, seq: u64, follows_one: bool) {
        self.first = seq.saturating_sub(u64::from(follows_one));
        self.advance_to(self.first);
    }

    /// A message has arrived after a later one. If it is the first that counts, or the one before
    /// it, numbers count from this message, or from the one before it if that should have been
    /// received too.
    pub(super) fn extend_down(&mut self, seq: u64, follows_one: bool, noticed: Noticed) {
        if seq > self.first || seq.saturating_add(1) < self.first {
            return;
        }
        self.first = seq;
        if follows_one && seq > 0 && self.next >= seq {
            let noticed = self.oldest_hole().unwrap_or(noticed);
            self.ranges.insert(0, Range { from: seq, to: self.next, noticed });
            (self.first, self.next) = (seq - 1, seq - 1);
        }
    }

    /// Takes all numbers that the publisher has used as received.
    pub(super) fn accept_all(&mut self) {
        self.advance_to(self.highest());
        self.first = 0;
    }

    /// Takes all numbers below `next` as received.
    fn advance_to(&mut self, next: u64) {
        self.next = self.next.max(next);
        let reached = self.ranges.iter().take_while(|range| range.from <= self.next).count();
        for range in self.ranges.drain(..reached) {
            self.next = self.next.max(range.to);
        }
    }

    /// Records the received numbers `from..to`. Returns whether they say anything new.
    pub(super) fn observe(&mut self, from: u64, to: u64, noticed: Noticed) -> bool {
        let new = Range { from, to, noticed };
        if new.to <= self.next {
            return false;
        }
        if new.from <= self.next {
            self.advance_to(new.to);
            return true;
        }
        let at = self.ranges.partition_point(|range| range.from <= new.from);
        let is_full = self.ranges.len() > MAX_RANGES;
        let (before, after) = self.ranges.split_at_mut(at);
        let (before, after) = (before.last_mut(), after.first_mut());
        if before.as_ref().is_some_and(|before| new.to <= before.to) {
            return false;
        }
        match (before, after) {
            (Some(before), after) if before.to >= new.from => {
                before.to = new.to;
                if let Some(after) = after
                    && after.from <= new.to
                {
                    before.to = after.to;
                    self.ranges.remove(at);
                }
            }
            (_, Some(after)) if after.from <= new.to => after.from = new.from,
            // There are too many holes already: only the highest number counts now.
            (_, Some(_)) if is_full => {}
            (Some(before), None) if is_full => before.to = new.to,
            // The new range splits the hole before `after`, which was noticed earlier.
            (_, Some(after)) => {
                let noticed = after.noticed;
                self.ranges.insert(at, Range { noticed, ..new });
            }
            (_, None) => self.ranges.push(new),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICED: Noticed = Noticed { at: 0, probe: 1 };

    #[test]
    fn the_first_messages_count_in_any_order_down_to_one_that_follows_none() {
        for lost in [None, Some(4), Some(5), Some(6)] {
            for order in [[4, 5, 6], [4, 6, 5], [5, 4, 6], [6, 5, 4], [5, 6, 4]] {
                let mut numbers = ReceivedNumbers::default();
                let mut arrived = order.into_iter().filter(|seq| Some(*seq) != lost);
                let first = arrived.next().unwrap();
                // The message 4 is the first that was published on the subscription.
                numbers.begin_at(first, first > 4);
                numbers.observe(first, first + 1, NOTICED);
                for seq in arrived {
                    numbers.extend_down(seq, seq > 4, NOTICED);
                    numbers.observe(seq, seq + 1, NOTICED);
                }
                numbers.observe(7, 7, NOTICED);
                assert_eq!(numbers.oldest_hole().is_some(), lost.is_some(), "{order:?} {lost:?}");
            }
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut numbers = ReceivedNumbers::default();
        for seq in (0..100_000).rev().step_by(2) {
            numbers.observe(seq, seq + 1, NOTICED);
            numbers.observe(200_000 - seq, 200_001 - seq, NOTICED);
        }
        assert!(numbers.has_too_many_holes() && numbers.ranges.len() <= MAX_RANGES + 1);
        numbers.accept_all();
        assert_eq!((numbers.next(), numbers.oldest_hole()), (200_000, None));
    }
}
