//! The protocol state of one instance: which messages it still has to publish, and how far it has
//! received the messages of its peers. The bus client holds it under a lock. Order of the calls:
//!
//! | caller | calls |
//! | --- | --- |
//! | caller of a delete or `set` | `begin_invalidation`, then change L1 and L2, then `commit_invalidation` once |
//! | loader | `causal_context` before it checks its right to write, then `outbox.push` |
//! | retry task | `outbox.push`, or `rebroadcast_later` for an invalidation of a peer |
//! | subscriber | `on_subscribed`; per message take a ticket, `classify`, apply (`rebroadcasts.on_received`), `on_applied`; `gaps.on_probe` or `poll_gap`, mark L1 untrusted, `gaps.acknowledge_gap`; `gaps.on_unsubscribed` |
//! | prober | `gaps.probes.take_due`, send the probe |
//! | publisher | `next_action`, publish, then `on_sent`, `outbox.on_send_failed`, `outbox.on_refused` or `on_beacon_tried` |

use std::sync::Arc;

use super::{
    beacon_schedule::BeaconSchedule,
    causality::{CausalContext, CausalFilter, OutboxProgress, ValueClaim},
    dedupe::Dedupe,
    gap_detector::{GapDetector, GapReason},
    identity::{Identity, Place},
    outbox::{Change, Outbox},
    rebroadcasts::{Name, Rebroadcasts},
};
use crate::{
    bus::wire::{
        message::{InL2, Message, MessageKind},
        namespace::Namespace,
    },
    options::CacheOptions,
    time::millis,
};

pub(crate) struct Session {
    pub(crate) outbox: Outbox,
    pub(crate) gaps: GapDetector,
    identity: Identity,
    beacons: BeaconSchedule,
    dedupe: Dedupe,
    causality: CausalFilter,
    pub(crate) rebroadcasts: Rebroadcasts,
    /// Until when the publisher waits; `None` while it does not wait, because then it asks for
    /// its next action before it does.
    idle_until: Option<u64>,
    /// Whether the next beacon asks the peers for their sequence numbers.
    hello_pending: bool,
    /// When the bus confirmed the last message.
    last_confirmed: Option<u64>,
}

/// A message that was classified. The subscriber carries out its disposition and then hands it to
/// [`Session::on_applied`]; if the subscriber is dropped before, the message counts as not
/// received.
#[must_use]
pub(crate) struct Classified<'a> {
    message: &'a Message<'a>,
    pub(crate) disposition: Disposition,
}

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

/// What the publisher has to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum SendAction {
    /// Publish a message: its sequence number and its bytes.
    Message(u64, Vec<u8>),
    Beacon(Vec<u8>),
    /// Wait until this time in milliseconds, or until there is something to send.
    Wait(Option<u64>),
}

impl Session {
    /// `incarnation` is random, new with every start, so that sequence numbers may begin at 0.
    /// `sends_generations`: each message carries the generation of its key, so that it has room
    /// for one key.
    pub(crate) fn new(
        incarnation: &str,
        source: String,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> Self {
        let bus = &options.event_bus;
        let trust_timeout = millis(bus.trust_timeout);
        let incarnation: Arc<str> = Arc::from(incarnation);
        let namespace = Namespace::new(options.name.as_deref(), bus.accept_unnamed);
        let outbox = Outbox::new(bus.outbox_max_entries, bus.outbox_max_bytes);
        Self {
            // mutant counts-alone: if false
            outbox: if sends_generations { outbox.single_key() } else { outbox },
            gaps: GapDetector::new(&incarnation, trust_timeout),
            beacons: BeaconSchedule::new(trust_timeout),
            dedupe: Dedupe::new(options.event_dedupe.max_entries, millis(options.event_dedupe.ttl)),
            causality: CausalFilter::new(&incarnation, CausalFilter::MAX_KEYS),
            rebroadcasts: Rebroadcasts::default(),
            identity: Identity { source, namespace, incarnation },
            idle_until: None,
            hello_pending: false,
            last_confirmed: None,
        }
    }

    /// Refuses peers' values of a key that this instance is about to delete or set, or, if it is
    /// about to delete by a pattern, of all keys, until
    /// [`commit_invalidation`](Self::commit_invalidation).
    pub(crate) fn begin_invalidation(&mut self, now: u64, name: &str, is_pattern: bool) {
        if is_pattern {
            self.causality.begin_pattern();
        } else {
            self.causality.begin_invalidation(&mut self.gaps, now, name);
        }
    }

    /// Ends an invalidation that was begun: queues its message, or none if nothing was changed.
    /// Returns the outbox position of the message.
    pub(crate) fn commit_invalidation(
        &mut self,
        now: u64,
        name: &str,
        is_pattern: bool,
        change: Option<(Change, InL2)>,
    ) -> u64 {
        let position = change.map(|(change, in_l2)| self.outbox.push(now, change, in_l2));
        if is_pattern {
            self.causality.on_pattern_committed(position);
        } else {
            self.causality.on_committed(name, position);
        }
        position.unwrap_or(0)
    }

    /// A retry of this instance has brought an invalidation of a peer to L2: it is broadcast again
    /// after a random time, unless a peer does so first. `random` is from 0 to 1.
    pub(crate) fn rebroadcast_later(&mut self, now: u64, name: Name, random: f64) {
        if !self.rebroadcasts.schedule(now, &name, random) {
            self.push_retried(now, name);
        }
    }

    /// Queues the rebroadcasts that are due until this time.
    pub(crate) fn push_rebroadcasts(&mut self, now: u64, due_until: u64) {
        while let Some(name) = self.rebroadcasts.take_due(due_until) {
            self.push_retried(now, name);
        }
    }

    fn push_retried(&mut self, now: u64, (name, is_pattern): Name) {
        self.outbox.push(now, Change::invalidation(name, is_pattern), InL2::Retried);
    }

    /// Returns the version vector that a value carries when it is broadcast: per publisher, the
    /// sequence number up to which this instance had applied everything. Call it before the right
    /// to write the value is checked.
    ///
    /// An error says why peers could not judge the value, so that it is not broadcast: a loaded one
    /// (`prime`) for a while after a subscription began, and any if there are too many publishers.
    pub(crate) fn causal_context(&self, now: u64, prime: bool) -> CausalContext {
        let gaps = Some(&self.gaps).filter(|gaps| gaps.is_caught_up(now));
        // mutant order-present: if false
        if prime && gaps.is_none() {
            return Err("a subscription has just begun, or messages were lost");
        }
        self.causality.causal_context(gaps, self.outbox.next_seq())
    }

    /// A subscription began. `resumed`: it continues exactly where the last one ended.
    pub(crate) fn on_subscribed(&mut self, now: u64, resumed: bool) {
        self.gaps.on_subscribed(now, resumed);
        self.hello_pending = true;
    }

    /// Returns why messages must be taken to be lost, if so: see
    /// [`GapDetector::poll_gap`]. Adapts the beacons to the number of instances.
    pub(crate) fn poll_gap(&mut self, now: u64, random: f64) -> Option<GapReason> {
        let gap = self.gaps.poll_gap(now);
        self.beacons.on_known(now, self.gaps.known_publishers(), random);
        gap
    }

    /// Whether every instance sends beacons all the time, because few are known.
    pub(crate) fn notices_silent_peers(&self) -> bool {
        self.beacons.is_full()
    }

    /// Classifies a message before it is applied.
    ///
    /// The subscriber must hold the tickets of the keys already: a delete of this instance that
    /// comes after this call revokes them.
    pub(crate) fn classify<'a>(&mut self, now: u64, message: &'a Message<'a>) -> Classified<'a> {
        Classified { message, disposition: self.disposition(now, message) }
    }

    fn disposition(&mut self, now: u64, message: &Message<'_>) -> Disposition {
        let is_own = match &message.stamp {
            Some(stamp) => *stamp.incarnation == *self.identity.incarnation,
            None => *message.source == *self.identity.source,
        };
        if is_own {
            return Disposition::Own;
        }
        let progress = self.progress();
        let Self { causality, gaps, dedupe, .. } = self;
        let (stamp, mut value_admissible) = (message.stamp.as_ref(), false);
        match &message.kind {
            MessageKind::Beacon { .. } => {}
            _ if dedupe.contains(now, message.source, message.id) => return Disposition::Duplicate,
            MessageKind::Delete { keys } => causality.on_peer_delete(gaps, now, keys, stamp),
            MessageKind::Pattern { pattern } => {
                causality.on_peer_pattern(gaps, now, pattern, stamp);
            }
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
    #[expect(clippy::needless_pass_by_value, reason = "a message is recorded once")]
    pub(crate) fn on_applied(&mut self, now: u64, classified: Classified<'_>, random: f64) -> bool {
        let Classified { message, disposition } = classified;
        let hello = match message.kind {
            MessageKind::Beacon { hello } => Some(hello),
            _ => None,
        };
        let is_own = disposition == Disposition::Own;
        if matches!(disposition, Disposition::Apply { .. }) && hello.is_none() {
            self.dedupe.insert(now, message.source, message.id);
        }
        match &message.stamp {
            Some(stamp) => self.gaps.observe(now, stamp, hello.is_some()),
            None => self.gaps.observe_activity(now),
        }
        let must_answer = hello == Some(true) && !is_own;
        if must_answer {
            self.beacons.on_hello(now, random);
        }
        must_answer
    }

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
            self.next_due() < until || self.hello_pending || !self.outbox.is_empty()
        })
    }

    fn action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> SendAction {
        self.push_rebroadcasts(now, now);
        let Self { identity, outbox, beacons, last_confirmed, .. } = self;
        // A value that cannot be encoded becomes a delete, which the second round sends.
        for _ in 0..2 {
            let Some(out) = outbox.next(now) else { break };
            let kind = out.batch.kind();
            let generation = match kind.deleted_keys() {
                [key] => generation(key),
                _ => None,
            };
            let place = Place {
                seq: out.seq,
                next_within_ms: Some(beacons.next_within(false)),
                idle_ms: idle_ms(*last_confirmed, now),
            };
            match identity.encode(ts, &place, generation, out.batch.in_l2, kind) {
                Some(bytes) => return SendAction::Message(out.seq, bytes),
                None => outbox.on_send_failed(),
            }
        }
        if !self.hello_pending && beacons.due_at() > now {
            return SendAction::Wait(Some(self.next_due()));
        }
        let next_within = beacons.next_within(true);
        self.beacon(now, ts, Some(next_within), self.hello_pending)
            .map_or(SendAction::Wait(None), SendAction::Beacon)
    }

    /// As [`next_action`](Self::next_action), for callers beside the publisher. `None`: a message
    /// is being published.
    pub(crate) fn try_next_action(
        &mut self,
        now: u64,
        ts: u64,
        generation: impl Fn(&str) -> Option<u64>,
    ) -> Option<SendAction> {
        if self.outbox.is_sending() { None } else { Some(self.action(now, ts, generation)) }
    }

    /// The transport accepted the message with this sequence number.
    pub(crate) fn on_sent(&mut self, now: u64, seq: u64) {
        if let Some(sent) = self.outbox.confirm(seq) {
            let progress = self.progress();
            self.beacons.on_published(now);
            self.last_confirmed = Some(now);
            self.causality.on_sent(seq, sent.kind().deleted_keys(), progress);
        }
    }

    pub(crate) fn on_beacon_tried(&mut self, now: u64, sent: bool, random: f64) {
        self.hello_pending &= !sent;
        self.beacons.on_beacon_sent(now, random);
    }

    /// Returns the last beacon of an instance that shuts down: it promises no further message.
    /// `None` if its outbox is not empty.
    pub(crate) fn goodbye(&self, now: u64, ts: u64) -> Option<Vec<u8>> {
        self.beacon(now, ts, None, false)
    }

    /// Encodes a beacon. `None` while the outbox holds anything: the beacon would say that all
    /// messages of this instance were published, and peers are to notice its silence.
    fn beacon(
        &self,
        now: u64,
        ts: u64,
        next_within_ms: Option<u64>,
        hello: bool,
    ) -> Option<Vec<u8>> {
        // mutant beacon-outbox: if false
        if !self.outbox.is_empty() {
            return None;
        }
        let (seq, idle_ms) = (self.outbox.confirmed_seq(), idle_ms(self.last_confirmed, now));
        let place = Place { seq, next_within_ms, idle_ms };
        self.identity.encode(ts, &place, None, InL2::Yes, MessageKind::Beacon { hello })
    }

    /// When the publisher has something to send, if nothing is queued.
    fn next_due(&self) -> u64 {
        let rebroadcast = self.rebroadcasts.next_due().unwrap_or(u64::MAX);
        rebroadcast.min(self.beacons.due_at())
    }

    fn progress(&self) -> OutboxProgress {
        OutboxProgress { acked: self.outbox.acked(), next_seq: self.outbox.next_seq() }
    }
}

/// The time since the last message, or `None` if there is none.
fn idle_ms(last_confirmed: Option<u64>, now: u64) -> Option<u64> {
    last_confirmed.map(|at| now.saturating_sub(at))
}

#[cfg(test)]
mod tests;
