//! For who receives: what to think of an event, and of there being none.

use super::{BusSession, State};
use crate::bus::{
    protocol::{causality::ValueClaim, gap_detector::GapReason},
    wire::message::{Message, MessageKind},
};

/// What an event is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Whether its value, if it has one, can be no older than any delete that was heard of.
    New { is_good: bool },
    /// Was here before.
    Known,
    /// Comes of ourselves.
    Own,
}

impl BusSession {
    /// A subscription began.
    pub(crate) fn subscribed(&self, now: u64, resumed: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.gaps.on_subscribed(now, resumed);
        state.pulse.on_received(now, random);
        state.says_hello = true;
        state.subscriptions += 1;
        state.catches_up = resumed;
        self.work.notify_one();
    }

    pub(crate) fn unsubscribed(&self) {
        let state = &mut *self.state.lock();
        state.gaps.on_unsubscribed();
        state.pulse.on_unsubscribed();
    }

    /// Whether events must be taken to be lost. To be asked a few times a second. If so, memory is
    /// to be distrusted, and then [`gave_up_on_events`](Self::gave_up_on_events).
    pub(crate) fn lost_any(&self, now: u64) -> Option<GapReason> {
        self.state.lock().gaps.poll_gap(now)
    }

    /// Memory has been distrusted, because events were lost.
    pub(crate) fn gave_up_on_events(&self, now: u64) {
        self.state.lock().gaps.acknowledge_gap(now);
    }

    /// Until when memory may be trusted; 0 where there is no subscription, or what was kept for it
    /// is still to be heard.
    pub(crate) fn trusted_until(&self) -> u64 {
        let state = self.state.lock();
        let until = state.gaps.trusted_until().filter(|_| !state.catches_up);
        until.unwrap_or(0)
    }

    /// What to think of an event, before it is applied. Once it is, [`heard`](Self::heard): not
    /// before, for what was heard of counts as applied in what is [`seen`](Self::seen).
    ///
    /// To be asked when the right to write its value is held already: what is deleted here from
    /// then on takes that right.
    pub(crate) fn standing(&self, now: u64, message: &Message<'_>) -> Standing {
        let is_own = match &message.stamp {
            Some(stamp) => *stamp.incarnation == *self.incarnation,
            None => *message.source == *self.source,
        };
        if is_own {
            return Standing::Own;
        }
        let mut state = self.state.lock();
        let out = state.out();
        let State { order, gaps, dedupe, .. } = &mut *state;
        let stamp = message.stamp.as_ref();
        let mut is_good = false;
        match &message.kind {
            MessageKind::Beacon { .. } => {}
            _ if dedupe.contains(now, message.source, message.id) => return Standing::Known,
            MessageKind::Delete { keys } => order.on_peer_delete(gaps, now, keys, stamp),
            MessageKind::Pattern { .. } => order.on_peer_pattern(gaps, now, stamp),
            MessageKind::Set { keys, prime, context, .. } => {
                let claim = ValueClaim { keys, stamp, prime: *prime, context: *context };
                is_good = order.admits(gaps, now, out, claim);
                if !prime {
                    // It stands for a delete of what there was.
                    order.on_peer_delete(gaps, now, keys, stamp);
                }
            }
        }
        Standing::New { is_good }
    }

    /// An event was applied, or needs not to be.
    pub(crate) fn heard(&self, now: u64, message: &Message<'_>, standing: Standing, random: f64) {
        let state = &mut *self.state.lock();
        let is_own_of_now = standing == Standing::Own
            && message.generation == Some(state.subscriptions)
            && matches!(message.kind, MessageKind::Beacon { .. });
        state.catches_up &= !is_own_of_now;
        let State { gaps, pulse, dedupe, .. } = state;
        let beacon = match message.kind {
            MessageKind::Beacon { hello } => Some(hello),
            _ => None,
        };
        if matches!(standing, Standing::New { .. }) && beacon.is_none() {
            dedupe.insert(now, message.source, message.id);
        }
        match &message.stamp {
            Some(stamp) => drop(gaps.observe(now, message.source, stamp, beacon.is_some())),
            None => gaps.observe_activity(now),
        }
        pulse.on_received(now, random);
        if beacon == Some(true) && standing != Standing::Own {
            pulse.on_hello(now, random);
            self.work.notify_one();
        }
    }

    /// Something came that is not for us; or that cannot be read, so that what it says is lost.
    pub(crate) fn heard_something(&self, now: u64, is_readable: bool, random: f64) {
        let State { gaps, pulse, .. } = &mut *self.state.lock();
        if is_readable {
            gaps.observe_activity(now);
        } else {
            gaps.observe_unreadable(now);
        }
        pulse.on_received(now, random);
    }
}
