//! The position of an instance in the stream, from which its next subscription may resume.

use async_nats::{datetime::DateTime, jetstream::stream};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    /// When the stream was created: a new stream of the same name numbers from one again.
    pub(crate) stream: DateTime,
    /// When the consumer was created.
    pub(crate) consumer: DateTime,
    /// The sequence number of the last message that the subscriber has processed.
    pub(crate) acked: u64,
    /// Whether the subscriber has processed every gap that it received.
    pub(crate) gap_free: bool,
}

impl Cursor {
    /// Whether this stream still has every message after the cursor.
    pub(crate) fn can_resume_in(&self, stream: &stream::Info) -> bool {
        self.gap_free
            && self.stream == stream.created
            && self.acked <= stream.state.last_sequence
            && self.acked + 1 >= stream.state.first_sequence
    }
}

/// Finds lost messages by the sequence numbers of one subscription. They are consecutive if nothing
/// was lost, because the stream has no other subjects.
#[derive(Debug)]
pub(crate) struct SequenceCheck {
    /// The highest sequence number received. `None` while the start is not known.
    last: Option<u64>,
    /// The end of the stream at the last call of `lags_behind`, if it was not yet received.
    lag: Option<u64>,
}

impl SequenceCheck {
    pub(crate) fn after(last: Option<u64>) -> Self {
        Self { last, lag: None }
    }

    /// The highest sequence number that was received or reported as missing; zero if none was.
    pub(crate) fn last(&self) -> u64 {
        self.last.unwrap_or_default()
    }

    /// Records a message. Returns whether messages before it are missing.
    pub(crate) fn skips_to(&mut self, sequence: u64) -> bool {
        let skips = self.last.is_some_and(|last| sequence > last.saturating_add(1));
        self.last = Some(self.last.map_or(sequence, |last| last.max(sequence)));
        self.lag = None;
        skips
    }

    /// Call this while no message arrives. Returns true if the stream had, at two calls in a row, a
    /// message that the consumer did not deliver: a loss without a later message to reveal it.
    pub(crate) fn lags_behind(&mut self, stream: &stream::State) -> bool {
        let missing = self.last.is_some_and(|last| last < stream.last_sequence);
        let Some(before) = self.lag.filter(|_| missing) else {
            self.lag = missing.then_some(stream.last_sequence);
            return false;
        };
        self.last = Some(before);
        self.lag = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::SequenceCheck;

    #[test]
    fn a_missing_number_is_reported_once_and_a_repeated_one_is_not() {
        let mut check = SequenceCheck::after(Some(4));
        let skips: Vec<bool> = [5, 6, 6, 5, 7, 9, 8, 10].map(|it| check.skips_to(it)).into();
        assert_eq!(skips, [false, false, false, false, false, true, false, false]);
        assert!(!SequenceCheck::after(None).skips_to(100), "the start is not known");
    }
}
