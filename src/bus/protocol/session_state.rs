//! The connection state of an instance on the bus. Whether L1 may be trusted, and whether peers'
//! values may be accepted, are derived from it.

/// The state of the subscription. `since` is when the subscription began or the last gap was
/// acknowledged, in milliseconds.
///
/// | state | entered | L1 trusted |
/// | --- | --- | --- |
/// | `Disconnected` | when the subscription ends | no |
/// | `Replaying` | by a subscription that resumes the last one; the broker first delivers the messages that it kept | no |
/// | `Resyncing` | by a subscription that does not resume; the sequence numbers of peers are learned | yes |
/// | `CaughtUp` | when the resync window is over, or all kept messages were received | yes |
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionState {
    Disconnected { resync: Option<Resync> },
    Replaying { since: u64, resync: Option<Resync> },
    Resyncing { since: u64, resync: Resync },
    CaughtUp { since: u64 },
}

/// The window in which the first message of a publisher only tells its current sequence number.
/// A subscription that breaks before the end of the window leaves it to the next subscription.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resync {
    until: u64,
    /// Whether a publisher was past the number that was known of it.
    missed: bool,
}

impl SessionState {
    /// Enters `Replaying` if the subscription resumed the last one, else `Resyncing` for `window`
    /// milliseconds.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool, window: u64) {
        let (_, resync) = self.parts();
        *self = if resumed {
            Self::Replaying { since: now, resync }
        } else {
            let missed = resync.is_some_and(|resync| resync.missed);
            let until = now.saturating_add(window);
            Self::Resyncing { since: now, resync: Resync { until, missed } }
        };
    }

    pub(crate) fn on_unsubscribed(&mut self) {
        *self = Self::Disconnected { resync: self.parts().1 };
    }

    /// Ends `Replaying`: a beacon that this instance published on this subscription came back, so
    /// the messages that the broker kept were received before it.
    pub(crate) fn on_replayed(&mut self) {
        if let Self::Replaying { since, resync } = *self {
            *self = Self::CaughtUp { since };
            self.set(Some(since), resync);
        }
    }

    /// Starts anew after a gap: L1 was marked untrusted, which covers everything missed so far.
    pub(crate) fn on_gap_acknowledged(&mut self, now: u64) {
        let (since, resync) = self.parts();
        self.set(since.map(|_| now), resync.map(|resync| Resync { missed: false, ..resync }));
    }

    /// Records that messages were lost before the first message of a publisher.
    pub(crate) fn on_missed(&mut self) {
        let (since, resync) = self.parts();
        self.set(since, resync.map(|resync| Resync { missed: true, ..resync }));
    }

    /// Ends the resync window if it is over. Returns whether messages were lost in it.
    pub(crate) fn end_resync(&mut self, now: u64) -> bool {
        let (since, resync) = self.parts();
        let Some(resync) = resync.filter(|resync| resync.until <= now) else { return false };
        self.set(since, None);
        resync.missed
    }

    /// Whether the first message of a publisher only tells its current sequence number.
    pub(crate) fn is_resyncing(&self, now: u64) -> bool {
        self.parts().1.is_some_and(|resync| now < resync.until)
    }

    /// Returns since when no gap was found. `None`: there is no subscription.
    pub(crate) fn since(&self) -> Option<u64> {
        self.parts().0
    }

    /// Whether received messages extend the trust in L1.
    pub(crate) fn is_trusted(&self) -> bool {
        matches!(self, Self::Resyncing { .. } | Self::CaughtUp { .. })
    }

    fn parts(&self) -> (Option<u64>, Option<Resync>) {
        match *self {
            Self::Disconnected { resync } => (None, resync),
            Self::Replaying { since, resync } => (Some(since), resync),
            Self::Resyncing { since, resync } => (Some(since), Some(resync)),
            Self::CaughtUp { since } => (Some(since), None),
        }
    }

    fn set(&mut self, since: Option<u64>, resync: Option<Resync>) {
        *self = match (since, resync) {
            (None, _) => Self::Disconnected { resync },
            (Some(since), _) if !self.is_trusted() => Self::Replaying { since, resync },
            (Some(since), Some(resync)) => Self::Resyncing { since, resync },
            (Some(since), None) => Self::CaughtUp { since },
        };
    }
}
