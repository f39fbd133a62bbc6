//! What a session publishes next: the messages of its caches in turn, each with the next number,
//! and beacons.

use super::{Session, cache_state::CacheState};
use crate::bus::{
    protocol::{identity::Place, outbox::AfterRefusal},
    wire::{
        message::{InL2, MessageKind},
        namespace::CacheId,
    },
};

/// What the publisher has to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum SendAction {
    /// Publish a message of this cache: its sequence number and its bytes.
    Message(CacheId, u64, Vec<u8>),
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
        generation: impl FnMut(CacheId, &str) -> Option<u64>,
    ) -> SendAction {
        let action = self.action(now, ts, generation);
        self.idle_until = match action {
            SendAction::Wait(until) => Some(until.unwrap_or(u64::MAX)),
            SendAction::Message(..) | SendAction::Beacon(_) => None,
        };
        action
    }

    /// As [`next_action`](Self::next_action), for callers beside the publisher. `None`: a message
    /// is being published.
    pub(crate) fn try_next_action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl FnMut(CacheId, &str) -> Option<u64>,
    ) -> Option<SendAction> {
        if self.in_flight.is_some() { None } else { Some(self.action(now, ts, generation)) }
    }

    /// Whether the publisher waits for longer than it may.
    pub(crate) fn is_publisher_late(&self) -> bool {
        self.idle_until
            .is_some_and(|until| self.next_due() < until || self.hello_pending || !self.is_empty())
    }

    fn action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl FnMut(CacheId, &str) -> Option<u64>,
    ) -> SendAction {
        self.push_rebroadcasts(now);
        if let Some(message) = self.next_message(now, ts, generation) {
            return message;
        }
        if !self.hello_pending && self.beacons.due_at() > now {
            return SendAction::Wait(Some(self.next_due()));
        }
        let next_within = self.beacons.next_within(true);
        self.beacon(now, ts, Some(next_within), self.hello_pending)
            .map_or(SendAction::Wait(None), SendAction::Beacon)
    }

    /// Returns the message in flight, else that of the cache whose turn it is.
    fn next_message(
        &mut self,
        now: u64,
        ts: u64,
        mut generation: impl FnMut(CacheId, &str) -> Option<u64>,
    ) -> Option<SendAction> {
        let mut has_failed = false;
        loop {
            let sending = self.in_flight.map(|(id, _)| id);
            let id = sending.or_else(|| self.turns.pop_front())?;
            self.on_changed(id);
            let Some(CacheState { outbox, namespace, has_turn, .. }) = self.caches.get_mut(&id)
            else {
                self.in_flight = None;
                continue;
            };
            *has_turn = false;
            // The queued change may have been a value that is too old to be sent.
            let Some(batch) = outbox.next(now) else { continue };
            let (_, seq) = *self.in_flight.get_or_insert_with(|| {
                self.next_seq += 1;
                (id, self.next_seq - 1)
            });
            let kind = batch.kind();
            let generation = match kind.deleted_keys() {
                [key] => generation(id, key),
                _ => None,
            };
            let place = Place {
                seq,
                next_within_ms: Some(self.beacons.next_within(false)),
                idle_ms: idle_ms(self.last_confirmed, now),
            };
            let namespace = namespace.of_messages();
            match self.identity.encode(namespace, ts, &place, generation, batch.in_l2, kind) {
                Some(bytes) => return Some(SendAction::Message(id, seq, bytes)),
                // A value that cannot be encoded becomes a delete, which the second round sends.
                None if !std::mem::replace(&mut has_failed, true) => outbox.on_send_failed(),
                None => return None,
            }
        }
    }

    /// The transport accepted the message with this sequence number.
    pub(crate) fn on_sent(&mut self, now: u64, seq: u64) {
        let Some((id, _)) = self.in_flight.take_if(|(_, number)| *number == seq) else { return };
        let Some(CacheState { outbox, causality, is_detached, .. }) = self.caches.get_mut(&id)
        else {
            return;
        };
        if let Some(sent) = outbox.confirm() {
            self.beacons.on_published(now);
            self.last_confirmed = Some(now);
            let progress = outbox.progress(self.next_seq);
            causality.on_sent(seq, sent.kind().deleted_keys(), progress);
        }
        // A broker that refused the message leaves parts of it, which are published too.
        // mutant detached-parts: s/ && outbox.is_empty()//
        if *is_detached && outbox.is_empty() {
            self.caches.remove(&id);
        }
        self.give_turn(id);
    }

    /// The publish of the message in flight failed, or its outcome is not known.
    pub(crate) fn on_send_failed(&mut self) {
        if let Some((id, CacheState { outbox, .. })) = self.sending() {
            outbox.on_send_failed();
            self.on_changed(id);
        }
    }

    /// The broker would refuse the message in flight again.
    pub(crate) fn on_refused(&mut self) -> AfterRefusal {
        let Some((id, CacheState { outbox, .. })) = self.sending() else {
            return AfterRefusal::Replaced;
        };
        let after = outbox.on_refused();
        self.on_changed(id);
        after
    }

    /// Whether the broker refuses even the widest invalidation.
    pub(crate) fn is_stuck(&self) -> bool {
        let sending = self.in_flight.and_then(|(id, _)| self.caches.get(&id));
        sending.is_some_and(|cache| cache.outbox.is_stuck())
    }

    fn sending(&mut self) -> Option<(CacheId, &mut CacheState)> {
        let (id, _) = self.in_flight?;
        Some((id, self.caches.get_mut(&id)?))
    }

    pub(crate) fn on_beacon_tried(&mut self, now: u64, sent: bool, random: f64) {
        self.hello_pending &= !sent;
        self.beacons.on_beacon_sent(now, random);
    }

    /// Returns the last beacon of an instance that shuts down: it promises no further message.
    /// `None` if an outbox is not empty.
    pub(crate) fn goodbye(&self, now: u64, ts: u64) -> Option<Vec<u8>> {
        self.beacon(now, ts, None, false)
    }

    /// Encodes a beacon. `None` while an outbox holds anything: the beacon would say that all
    /// messages of this instance were published, and peers are to notice its silence.
    fn beacon(
        &self,
        now: u64,
        ts: u64,
        next_within_ms: Option<u64>,
        hello: bool,
    ) -> Option<Vec<u8>> {
        // mutant beacon-outbox: if false
        if !self.is_empty() {
            return None;
        }
        let (seq, idle_ms) = (self.confirmed_seq(), idle_ms(self.last_confirmed, now));
        let place = Place { seq, next_within_ms, idle_ms };
        let caches = || self.caches.values().filter(|cache| !cache.is_detached);
        let mut names = Vec::new();
        let mut namespace = None;
        if caches().nth(1).is_some() {
            names.extend(caches().filter_map(|cache| cache.namespace.name()));
            names.sort_unstable();
        } else if let Some(cache) = caches().next() {
            namespace = cache.namespace.of_messages();
        }
        let kind = MessageKind::Beacon { hello, caches: names };
        self.identity.encode(namespace, ts, &place, None, InL2::Yes, kind)
    }

    /// Queues the rebroadcasts that are due.
    fn push_rebroadcasts(&mut self, now: u64) {
        while let Some(name) = self.rebroadcasts.take_due(now) {
            self.push_retried(now, name);
        }
    }

    /// The number of the first message that is not confirmed.
    fn confirmed_seq(&self) -> u64 {
        self.in_flight.map_or(self.next_seq, |(_, seq)| seq)
    }

    /// Whether no change of any cache waits to be published.
    fn is_empty(&self) -> bool {
        let has_none =
            |id| self.caches.get(id).is_none_or(|cache: &CacheState| cache.outbox.is_empty());
        self.in_flight.is_none() && self.turns.iter().all(has_none)
    }

    /// When the publisher has something to send, if nothing is queued.
    fn next_due(&self) -> u64 {
        let rebroadcast = self.rebroadcasts.next_due().unwrap_or(u64::MAX);
        rebroadcast.min(self.beacons.due_at())
    }
}

/// The time since the last message, or `None` if there is none.
fn idle_ms(last_confirmed: Option<u64>, now: u64) -> Option<u64> {
    last_confirmed.map(|at| now.saturating_sub(at))
}
