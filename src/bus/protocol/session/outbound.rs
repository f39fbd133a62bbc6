//! Decides which message the publisher sends next, and records whether it was sent.

use super::{Identity, Session};
use crate::bus::wire::message::{Message, MessageKind, SequenceStamp};

/// What the publisher has to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum SendAction {
    /// Publish a message: its sequence number and its bytes.
    Message(u64, Vec<u8>),
    /// Publish a beacon.
    Beacon(Vec<u8>),
    /// Wait until this time in milliseconds, or until there is something to send.
    Wait(Option<u64>),
}

impl Session {
    /// Returns what the publisher has to do now. It must wait if the answer is to wait. `ts` is
    /// the time in milliseconds since 1970, for the messages.
    ///
    /// `generation` returns the generation of a key, if messages carry one. It is asked for when
    /// the message is encoded, not when the change was enqueued: so several deletes of a key need
    /// one message.
    pub(crate) fn next_action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        let action = self.action(now, ts, generation);
        self.idle_until = match action {
            SendAction::Wait(until) => Some(until.unwrap_or(u64::MAX)),
            SendAction::Message(..) | SendAction::Beacon(_) => None,
        };
        action
    }

    /// Whether the publisher waits for longer than it may.
    pub(crate) fn is_publisher_late(&self) -> bool {
        self.idle_until.is_some_and(|until| {
            let is_due = self.beacons.due_at().is_some_and(|due| due < until);
            is_due || self.hello_pending || !self.outbox.is_empty()
        })
    }

    fn action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        let Self { identity, outbox, beacons, .. } = self;
        // A value that cannot be encoded becomes a delete, which the second round sends.
        for _ in 0..2 {
            let Some(out) = outbox.next(now) else { break };
            let stamp = identity.stamp(out.seq, beacons.next_within(false));
            let kind = out.kind();
            let generation = match kind.deleted_keys() {
                [key] => generation(key),
                _ => None,
            };
            match identity.encode(ts, &stamp.id(), stamp, generation, kind) {
                Some(bytes) => return SendAction::Message(out.seq, bytes),
                None => outbox.on_send_failed(),
            }
        }
        let due = beacons.due_at();
        if !self.hello_pending && due.is_none_or(|at| at > now) {
            return SendAction::Wait(due);
        }
        let next_within = beacons.next_within(true);
        self.beacon(ts, next_within, self.hello_pending)
            .map_or(SendAction::Wait(None), SendAction::Beacon)
    }

    /// Returns the message to publish now, if none is being published and no beacon is due first.
    pub(crate) fn try_next_message(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> Option<(u64, Vec<u8>)> {
        if self.outbox.is_sending() {
            return None;
        }
        match self.action(now, ts, generation) {
            SendAction::Message(seq, bytes) => Some((seq, bytes)),
            SendAction::Beacon(_) | SendAction::Wait(_) => None,
        }
    }

    /// The transport accepted the message with this sequence number.
    pub(crate) fn on_sent(&mut self, now: u64, seq: u64) {
        if let Some(sent) = self.outbox.confirm(seq) {
            let progress = self.progress();
            self.beacons.on_published(now);
            self.causality.on_sent(seq, sent.kind().deleted_keys(), progress);
        }
    }

    /// The publisher tried to send a beacon.
    pub(crate) fn on_beacon_tried(&mut self, now: u64, sent: bool, random: f64) {
        self.hello_pending &= !sent;
        self.beacons.on_beacon_sent(now, random);
    }

    /// Returns the last beacon of an instance that shuts down: it promises no further message.
    /// `None` if the instance never published, or its outbox is not empty.
    pub(crate) fn goodbye(&self, ts: u64) -> Option<Vec<u8>> {
        let may_go = self.outbox.confirmed_seq() > 0 && self.outbox.is_empty();
        if may_go { self.beacon(ts, None, false) } else { None }
    }

    fn beacon(&self, ts: u64, next_within_ms: Option<u64>, hello: bool) -> Option<Vec<u8>> {
        let stamp = self.identity.stamp(self.outbox.confirmed_seq(), next_within_ms);
        let kind = MessageKind::Beacon { hello, subscription: Some(self.subscriptions) };
        self.identity.encode(ts, &stamp.beacon_id(), stamp, None, kind)
    }
}

impl Identity {
    fn stamp(&self, seq: u64, next_within_ms: Option<u64>) -> SequenceStamp<'_> {
        SequenceStamp { incarnation: &self.incarnation, seq, next_within_ms }
    }

    /// Encodes a message; `None` if it is larger than subscribers accept.
    fn encode(
        &self,
        ts: u64,
        id: &str,
        stamp: SequenceStamp<'_>,
        generation: Option<u64>,
        kind: MessageKind<'_>,
    ) -> Option<Vec<u8>> {
        let Self { source, namespace, .. } = self;
        let (namespace, stamp) = (namespace.as_deref(), Some(stamp));
        Message { id, source, ts, generation, namespace, stamp, kind }.encode().ok()
    }
}
