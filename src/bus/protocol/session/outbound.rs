//! For who sends: what is next, and what became of it.

use std::{
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{BusSession, State};
use crate::bus::wire::{
    decode_error::DecodeError,
    message::{Message, MessageKind, SequenceStamp},
};

/// What there is to do for who sends.
#[derive(Debug, PartialEq)]
pub(crate) enum SendAction {
    /// The number of an event, and its bytes.
    Event(u64, Vec<u8>),
    Beacon(Vec<u8>),
    /// Nothing, until so late, or until there is [`work`](BusSession::work).
    Wait(Option<u64>),
}

impl BusSession {
    /// What is to be sent now. For who sends, which waits if that is what there is to do.
    ///
    /// `count` says how often a key was deleted, where that is to be told: asked for only now, it
    /// is told once however often that was.
    pub(crate) fn next(&self, now: u64, count: impl Fn(&str) -> Option<u64>) -> SendAction {
        let mut state = self.state.lock();
        let errand = self.errand(&mut state, now, count);
        state.rests_until = match errand {
            SendAction::Wait(until) => Some(until.unwrap_or(u64::MAX)),
            SendAction::Event(..) | SendAction::Beacon(_) => None,
        };
        let covered = state.outbox.acked();
        drop(state);
        // What had become too old for it may have been all that waited.
        self.cover(covered);
        errand
    }

    /// To be called when there may be something to send: who sends is told if it would wait for
    /// longer than it may.
    pub(crate) fn rouse(&self) {
        let state = self.state.lock();
        let has_work = state.rests_until.is_some_and(|until| {
            let is_due = state.pulse.due_at().is_some_and(|due| due < until);
            is_due || state.says_hello || !state.outbox.is_empty()
        });
        drop(state);
        if has_work {
            self.work.notify_one();
        }
    }

    fn errand(
        &self,
        state: &mut State,
        now: u64,
        count: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        // Once more if what was to go out cannot be written: a value, then, which becomes a delete.
        for _ in 0..2 {
            let State { outbox, pulse, .. } = state;
            let Some(out) = outbox.next(now) else { break };
            let stamp = self.stamp(out.seq, pulse.next_within(false));
            let kind = out.kind();
            let generation = match &kind {
                MessageKind::Delete { keys } | MessageKind::Set { keys, prime: false, .. } => {
                    match keys[..] {
                        [key] => count(key),
                        _ => None,
                    }
                }
                _ => None,
            };
            match self.write(&stamp.id(), stamp, generation, kind) {
                Ok(bytes) => return SendAction::Event(out.seq, bytes),
                Err(_) => outbox.on_send_failed(),
            }
        }
        let hello = state.says_hello;
        match state.pulse.due_at() {
            due if !hello && due.is_none_or(|at| at > now) => SendAction::Wait(due),
            _ => {
                let stamp = self.stamp(state.outbox.confirmed_seq(), state.pulse.next_within(true));
                self.beacon(stamp, state.subscriptions, hello)
                    .map_or(SendAction::Wait(None), SendAction::Beacon)
            }
        }
    }

    /// The event that is to be sent now, if none is being sent and no beacon is due first.
    pub(crate) fn next_at_once(
        &self,
        now: u64,
        count: impl Fn(&str) -> Option<u64>,
    ) -> Option<(u64, Vec<u8>)> {
        let mut state = self.state.lock();
        if state.outbox.is_sending() {
            return None;
        }
        let errand = self.errand(&mut state, now, count);
        let covered = state.outbox.acked();
        drop(state);
        self.cover(covered);
        match errand {
            SendAction::Event(seq, bytes) => Some((seq, bytes)),
            SendAction::Beacon(_) | SendAction::Wait(_) => None,
        }
    }

    /// The event of this number is out.
    pub(crate) fn sent_event(&self, now: u64, seq: u64) {
        let mut state = self.state.lock();
        let sent = state.outbox.confirm(seq);
        let out = state.out();
        if let Some(sent) = &sent {
            state.pulse.on_published(now);
            let keys = match sent.kind() {
                MessageKind::Delete { keys } | MessageKind::Set { keys, prime: false, .. } => keys,
                _ => Vec::new(),
            };
            state.order.on_sent(sent.seq, &keys, out);
        }
        drop(state);
        self.cover(out.acked);
    }

    /// What was being sent is not out, or nobody knows.
    pub(crate) fn failed_event(&self) {
        self.state.lock().outbox.on_send_failed();
    }

    /// A beacon was sent, or tried.
    pub(crate) fn tried_beacon(&self, now: u64, sent: bool, random: f64) {
        let state = &mut *self.state.lock();
        state.says_hello &= !sent;
        state.pulse.on_beacon_sent(now, random);
    }

    /// The last word of a member that leaves in order: it promises nothing more. `None` if it has
    /// never said anything, or not all that it had to say.
    pub(crate) fn goodbye(&self) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let seq = state.outbox.confirmed_seq();
        let may_go = seq > 0 && state.outbox.is_empty();
        if may_go { self.beacon(self.stamp(seq, None), state.subscriptions, false) } else { None }
    }

    fn stamp(&self, seq: u64, next_within_ms: Option<u64>) -> SequenceStamp<'_> {
        SequenceStamp { incarnation: &self.incarnation, seq, next_within_ms }
    }

    fn cover(&self, covered: u64) {
        if self.covered.fetch_max(covered, Ordering::SeqCst) < covered {
            self.rises.notify_waiters();
        }
    }

    /// Beacons have no generation of a key to tell, so theirs is the subscription's.
    fn beacon(&self, stamp: SequenceStamp<'_>, subscription: u64, hello: bool) -> Option<Vec<u8>> {
        self.write(&stamp.beacon_id(), stamp, Some(subscription), MessageKind::Beacon { hello })
            .ok()
    }

    fn write(
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
