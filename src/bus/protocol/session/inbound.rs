//! Classifies received messages, and decides when messages must be taken to be lost.

use super::{BusSession, State};
use crate::bus::{
    protocol::{causality::ValueClaim, gap_detector::GapReason},
    wire::message::{Message, MessageKind},
};

/// What the subscriber has to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Apply it. `value_admissible`: its value, if it has one, is no older than any delete of its
    /// keys that this instance knows.
    Apply { value_admissible: bool },
    /// Nothing: it was received before.
    Duplicate,
    /// Nothing: this instance published it.
    Own,
}

/// A message that was classified and is not recorded as applied yet. Dropped without
/// [`applied`](Self::applied), it counts as never received.
#[must_use]
pub(crate) struct Classified<'a> {
    session: &'a BusSession,
    message: &'a Message<'a>,
    pub(crate) disposition: Disposition,
}

impl BusSession {
    /// A subscription began. `resumed`: it continues exactly where the last one ended.
    pub(crate) fn on_subscribed(&self, now: u64, resumed: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.gaps.on_subscribed(now, resumed);
        state.beacons.on_received(now, random);
        state.hello_pending = true;
        state.subscriptions += 1;
        self.work.notify_one();
    }

    pub(crate) fn on_unsubscribed(&self) {
        let state = &mut *self.state.lock();
        state.gaps.on_unsubscribed();
        state.beacons.on_unsubscribed();
    }

    /// Returns why messages must be taken to be lost, if they must. The subscriber asks several
    /// times a second; it marks L1 untrusted and then calls
    /// [`acknowledge_gap`](Self::acknowledge_gap).
    pub(crate) fn poll_gap(&self, now: u64) -> Option<GapReason> {
        self.state.lock().gaps.poll_gap(now)
    }

    /// L1 was marked untrusted because messages were lost.
    pub(crate) fn acknowledge_gap(&self, now: u64) {
        self.state.lock().gaps.acknowledge_gap(now);
    }

    /// Returns until when L1 may be trusted, in milliseconds; 0 without a subscription, or while
    /// a resumed one still delivers older messages.
    pub(crate) fn trusted_until(&self) -> u64 {
        self.state.lock().gaps.trusted_until().unwrap_or(0)
    }

    /// Classifies a message before it is applied.
    ///
    /// The subscriber must hold the tickets of the keys already: a delete of this instance that
    /// comes after this call revokes them.
    pub(crate) fn classify<'a>(&'a self, now: u64, message: &'a Message<'a>) -> Classified<'a> {
        Classified { session: self, message, disposition: self.disposition(now, message) }
    }

    fn disposition(&self, now: u64, message: &Message<'_>) -> Disposition {
        let is_own = match &message.stamp {
            Some(stamp) => *stamp.incarnation == *self.incarnation,
            None => *message.source == *self.source,
        };
        if is_own {
            return Disposition::Own;
        }
        let mut state = self.state.lock();
        let progress = state.progress();
        let State { causality, gaps, dedupe, .. } = &mut *state;
        let stamp = message.stamp.as_ref();
        let mut value_admissible = false;
        match &message.kind {
            MessageKind::Beacon { .. } => {}
            _ if dedupe.contains(now, message.source, message.id) => return Disposition::Duplicate,
            MessageKind::Delete { keys } => causality.on_peer_delete(gaps, now, keys, stamp),
            MessageKind::Pattern { .. } => causality.on_peer_pattern(gaps, now, stamp),
            MessageKind::Set { keys, prime, context, .. } => {
                let claim = ValueClaim { keys, stamp, prime: *prime, context: *context };
                value_admissible = causality.admits(gaps, now, progress, claim);
                if !prime {
                    // The message of a `set` also deletes the old value.
                    causality.on_peer_delete(gaps, now, keys, stamp);
                }
            }
        }
        Disposition::Apply { value_admissible }
    }

    /// Records a message that could not be decoded, or that belongs to another namespace
    /// (`is_readable`).
    pub(crate) fn on_undecoded(&self, now: u64, is_readable: bool, random: f64) {
        let State { gaps, beacons, .. } = &mut *self.state.lock();
        if is_readable {
            gaps.observe_activity(now);
        } else {
            gaps.observe_unreadable(now);
        }
        beacons.on_received(now, random);
    }
}

impl Classified<'_> {
    /// Records that the message was applied, or did not need to be. From now on it counts as
    /// applied in every [`causal_context`](BusSession::causal_context).
    pub(crate) fn applied(self, now: u64, random: f64) {
        let Self { session, message, disposition } = self;
        let state = &mut *session.state.lock();
        let (hello, subscription) = match message.kind {
            MessageKind::Beacon { hello, subscription } => (Some(hello), subscription),
            _ => (None, None),
        };
        let State { gaps, beacons, dedupe, .. } = state;
        if disposition == Disposition::Own && subscription == Some(state.subscriptions) {
            gaps.on_replayed();
        }
        if matches!(disposition, Disposition::Apply { .. }) && hello.is_none() {
            dedupe.insert(now, message.source, message.id);
        }
        match &message.stamp {
            Some(stamp) => gaps.observe(now, stamp, hello.is_some()),
            None => gaps.observe_activity(now),
        }
        beacons.on_received(now, random);
        if hello == Some(true) && disposition != Disposition::Own {
            beacons.on_hello(now, random);
            session.work.notify_one();
        }
    }
}
