//! Classifies received messages, and records those that were applied.

use super::Session;
use crate::bus::{
    protocol::causality::ValueClaim,
    wire::message::{Message, MessageKind},
};

/// What the subscriber has to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Disposition {
    /// Apply it. `value_admissible`: its value, if it has one, is no older than any delete of its
    /// keys that this instance knows.
    Apply { value_admissible: bool },
    /// Nothing: it was received before.
    Duplicate,
    /// Nothing: this instance published it.
    Own,
}

impl Session {
    /// A subscription began. `resumed`: it continues exactly where the last one ended.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool, random: f64) {
        self.gaps.on_subscribed(now, resumed);
        self.beacons.on_received(now, random);
        self.hello_pending = true;
        self.subscriptions += 1;
    }

    pub(crate) fn on_unsubscribed(&mut self) {
        self.gaps.on_unsubscribed();
        self.beacons.on_unsubscribed();
    }

    /// Classifies a message before it is applied.
    ///
    /// The subscriber must hold the tickets of the keys already: a delete of this instance that
    /// comes after this call revokes them.
    pub(crate) fn classify(&mut self, now: u64, message: &Message<'_>) -> Disposition {
        let is_own = match &message.stamp {
            Some(stamp) => *stamp.incarnation == *self.identity.incarnation,
            None => *message.source == *self.identity.source,
        };
        if is_own {
            return Disposition::Own;
        }
        let progress = self.progress();
        let Self { causality, gaps, dedupe, .. } = self;
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

    /// Records that a message was applied, or did not need to be. From now on it counts as applied
    /// in every [`causal_context`](Session::causal_context). A message for which this is not
    /// called counts as never received.
    ///
    /// Returns whether the message is a hello, which the publisher must answer.
    pub(crate) fn on_applied(
        &mut self,
        now: u64,
        message: &Message<'_>,
        disposition: Disposition,
        random: f64,
    ) -> bool {
        let (hello, subscription) = match message.kind {
            MessageKind::Beacon { hello, subscription } => (Some(hello), subscription),
            _ => (None, None),
        };
        let is_own = disposition == Disposition::Own;
        if is_own && subscription == Some(self.subscriptions) {
            self.gaps.on_replayed();
        }
        if matches!(disposition, Disposition::Apply { .. }) && hello.is_none() {
            self.dedupe.insert(now, message.source, message.id);
        }
        match &message.stamp {
            Some(stamp) => self.gaps.observe(now, stamp, hello.is_some()),
            None => self.gaps.observe_activity(now),
        }
        self.beacons.on_received(now, random);
        let must_answer = hello == Some(true) && !is_own;
        if must_answer {
            self.beacons.on_hello(now, random);
        }
        must_answer
    }

    /// Records a message that could not be decoded, or that belongs to another namespace
    /// (`is_readable`).
    pub(crate) fn on_undecoded(&mut self, now: u64, is_readable: bool, random: f64) {
        if is_readable {
            self.gaps.observe_activity(now);
        } else {
            self.gaps.observe_unreadable(now);
        }
        self.beacons.on_received(now, random);
    }
}
