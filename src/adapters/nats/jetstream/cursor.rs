//! How far an instance has come in the stream, across its subscriptions.

use async_nats::{datetime::DateTime, jetstream::stream};

/// What a transport knows about the stream once it has subscribed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor {
    /// A stream that was created anew counts from one again.
    pub(crate) stream: DateTime,
    /// The same of the durable consumer.
    pub(crate) consumer: DateTime,
    /// The last event that was dealt with.
    pub(crate) dealt: u64,
    /// Whether the bus has dealt with all gaps it was told of.
    pub(crate) whole: bool,
}

impl Cursor {
    /// Whether the stream still has all that came after.
    pub(crate) fn goes_on_in(&self, stream: &stream::Info) -> bool {
        self.whole
            && self.stream == stream.created
            && self.dealt <= stream.state.last_sequence
            && self.dealt + 1 >= stream.state.first_sequence
    }
}

/// The sequence numbers of one subscription. They have no holes where nothing was lost: the stream
/// carries nothing else.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The last one that was brought, in order. None while it is not known where it begins.
    last: Option<u64>,
    /// What the stream had, and did not bring, when it was looked at last.
    lag: Option<u64>,
}

impl Seen {
    pub(crate) fn up_to(last: Option<u64>) -> Self {
        Self { last, lag: None }
    }

    /// Whether events are missing before this one. One that comes again is none.
    pub(crate) fn skips_to(&mut self, sequence: u64) -> bool {
        let skips = self.last.is_some_and(|last| sequence > last.saturating_add(1));
        self.last = Some(self.last.map_or(sequence, |last| last.max(sequence)));
        self.lag = None;
        skips
    }

    /// Whether the stream, asked while nothing came, has had an event for two looks in a row that
    /// it does not bring: a hole without an event after it to show it.
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
    use super::Seen;

    #[test]
    fn a_hole_is_told_once_and_a_repetition_is_none() {
        let mut seen = Seen::up_to(Some(4));
        let skips: Vec<bool> = [5, 6, 6, 5, 7, 9, 8, 10].map(|it| seen.skips_to(it)).into();
        assert_eq!(skips, [false, false, false, false, false, true, false, false]);
        assert!(!Seen::up_to(None).skips_to(100), "where it begins is not known");
    }
}
