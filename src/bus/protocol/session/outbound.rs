//! Decides which message the publisher sends next, and records whether it was sent.

use std::{
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{BusSession, State};
use crate::bus::wire::{
    decode_error::DecodeError,
    message::{Message, MessageKind, SequenceStamp},
};

/// What the publisher has to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum SendAction {
    /// Publish a message: its sequence number and its bytes.
    Message(u64, Vec<u8>),
    /// Publish a beacon.
    Beacon(Vec<u8>),
    /// Wait until this time in milliseconds, or until [`work`](BusSession::work) is notified.
    Wait(Option<u64>),
}

impl BusSession {
    /// Returns what the publisher has to do now. It must wait if the answer is to wait.
    ///
    /// `generation` returns the generation of a key, if messages carry one. It is asked for when
    /// the message is encoded, not when the change was enqueued: so several deletes of a key need
    /// one message.
    pub(crate) fn next_action(
        &self,
        now: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        let mut state = self.state.lock();
        let action = self.action(&mut state, now, generation);
        state.idle_until = match action {
            SendAction::Wait(until) => Some(until.unwrap_or(u64::MAX)),
            SendAction::Message(..) | SendAction::Beacon(_) => None,
        };
        let acked = state.outbox.acked();
        drop(state);
        // The outbox drops values that waited for too long, and may be empty now.
        self.raise_acked(acked);
        action
    }

    /// Notifies the publisher if it waits for longer than it may. To be called when there may be
    /// something to send.
    pub(crate) fn wake_publisher(&self) {
        let state = self.state.lock();
        let has_work = state.idle_until.is_some_and(|until| {
            let is_due = state.beacons.due_at().is_some_and(|due| due < until);
            is_due || state.hello_pending || !state.outbox.is_empty()
        });
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    fn action(
        &self,
        state: &mut State,
        now: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        // A value that cannot be encoded becomes a delete, which the second round sends.
        for _ in 0..2 {
            let State { outbox, beacons, .. } = state;
            let Some(out) = outbox.next(now) else { break };
            let stamp = self.stamp(out.seq, beacons.next_within(false));
            let kind = out.kind();
            let generation = match &kind {
                MessageKind::Delete { keys } | MessageKind::Set { keys, prime: false, .. } => {
                    match keys[..] {
                        [key] => generation(key),
                        _ => None,
                    }
                }
                _ => None,
            };
            match self.encode(&stamp.id(), stamp, generation, kind) {
                Ok(bytes) => return SendAction::Message(out.seq, bytes),
                Err(_) => outbox.on_send_failed(),
            }
        }
        let hello = state.hello_pending;
        match state.beacons.due_at() {
            due if !hello && due.is_none_or(|at| at > now) => SendAction::Wait(due),
            _ => {
                let stamp =
                    self.stamp(state.outbox.confirmed_seq(), state.beacons.next_within(true));
                self.beacon(stamp, state.subscriptions, hello)
                    .map_or(SendAction::Wait(None), SendAction::Beacon)
            }
        }
    }

    /// Returns the message to publish now, if none is being published and no beacon is due first.
    pub(crate) fn try_next_message(
        &self,
        now: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> Option<(u64, Vec<u8>)> {
        let mut state = self.state.lock();
        if state.outbox.is_sending() {
            return None;
        }
        let action = self.action(&mut state, now, generation);
        let acked = state.outbox.acked();
        drop(state);
        self.raise_acked(acked);
        match action {
            SendAction::Message(seq, bytes) => Some((seq, bytes)),
            SendAction::Beacon(_) | SendAction::Wait(_) => None,
        }
    }

    /// The transport accepted the message with this sequence number.
    pub(crate) fn on_sent(&self, now: u64, seq: u64) {
        let mut state = self.state.lock();
        let sent = state.outbox.confirm(seq);
        let progress = state.progress();
        if let Some(sent) = &sent {
            state.beacons.on_published(now);
            let keys = match sent.kind() {
                MessageKind::Delete { keys } | MessageKind::Set { keys, prime: false, .. } => keys,
                _ => Vec::new(),
            };
            state.causality.on_sent(sent.seq, &keys, progress);
        }
        drop(state);
        self.raise_acked(progress.acked);
    }

    /// The message was not sent, or its outcome is unknown.
    pub(crate) fn on_send_failed(&self) {
        self.state.lock().outbox.on_send_failed();
    }

    /// The publisher tried to send a beacon.
    pub(crate) fn on_beacon_tried(&self, now: u64, sent: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.hello_pending &= !sent;
        state.beacons.on_beacon_sent(now, random);
    }

    /// Returns the last beacon of an instance that shuts down: it promises no further message.
    /// `None` if the instance never published, or its outbox is not empty.
    pub(crate) fn goodbye(&self) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let seq = state.outbox.confirmed_seq();
        let may_go = seq > 0 && state.outbox.is_empty();
        if may_go { self.beacon(self.stamp(seq, None), state.subscriptions, false) } else { None }
    }

    fn stamp(&self, seq: u64, next_within_ms: Option<u64>) -> SequenceStamp<'_> {
        SequenceStamp { incarnation: &self.incarnation, seq, next_within_ms }
    }

    fn raise_acked(&self, acked: u64) {
        if self.acked.fetch_max(acked, Ordering::SeqCst) < acked {
            self.acked_changed.notify_waiters();
        }
    }

    fn beacon(&self, stamp: SequenceStamp<'_>, subscription: u64, hello: bool) -> Option<Vec<u8>> {
        let kind = MessageKind::Beacon { hello, subscription: Some(subscription) };
        self.encode(&stamp.beacon_id(), stamp, None, kind).ok()
    }

    fn encode(
        &self,
        id: &str,
        stamp: SequenceStamp<'_>,
        generation: Option<u64>,
        kind: MessageKind<'_>,
    ) -> Result<Vec<u8>, DecodeError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let message = Message {
            id,
            source: &self.source,
            ts: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            generation,
            namespace: self.namespace(),
            stamp: Some(stamp),
            kind,
        };
        message.encode()
    }
}
