//! The protocol state of one instance: which messages its caches still have to publish, and how far
//! it has received the messages of its peers. The bus session holds it under a lock. Order of the
//! calls:
//!
//! | caller | calls |
//! | --- | --- |
//! | builder of a cache | `attach`, before the cache exists |
//! | caller of a delete or `set` | `begin_invalidation`, then change L1 and L2, then `commit_invalidation` once |
//! | loader | `causal_context` before it checks its right to write, then `push` |
//! | retry task | `push`, or `rebroadcast_later` for an invalidation of a peer |
//! | subscriber | `on_subscribed`; per message take a ticket, `classify`, apply (`on_rebroadcast`), `on_applied`; or `on_foreign`; `gaps.on_probe` or `poll_gap`, mark L1 untrusted, `gaps.acknowledge_gap`; `gaps.on_unsubscribed` |
//! | prober | `gaps.probes.take_due`, send the probe |
//! | publisher | `next_action`, publish, then `on_sent`, `on_send_failed`, `on_refused` or `on_beacon_tried` |
//! | closer of a cache | `push_rebroadcasts_of`, `detach` |
//!
//! The caches share the subscription, the sequence numbers, the beacons and the knowledge of other
//! publishers. Each has its outbox and its causal filter.

mod cache_state;
mod caches;
mod publishing;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use self::cache_state::CacheState;
pub(crate) use self::{
    caches::{AttachRefused, CacheReport},
    publishing::SendAction,
};
use super::{
    beacon_schedule::BeaconSchedule,
    causality::{CausalContext, ValueClaim},
    dedupe::{Dedupe, Fingerprint},
    gap_detector::{GapDetector, GapReason},
    identity::Identity,
    rebroadcasts::{Name, Rebroadcasts},
};
use crate::{
    bus::wire::{
        message::{Message, MessageKind, SequenceStamp},
        namespace::{CacheId, Namespaces},
    },
    options::EventDedupe,
    time::millis,
};

pub(crate) struct Session {
    pub(crate) gaps: GapDetector,
    identity: Identity,
    beacons: BeaconSchedule,
    dedupe: Dedupe,
    rebroadcasts: Rebroadcasts,
    caches: HashMap<CacheId, CacheState, foldhash::fast::RandomState>,
    /// The caches that receive messages. Shared with the subscriber, which decodes by it.
    namespaces: Arc<Namespaces>,
    next_id: u64,
    /// The caches with queued changes, each once. They publish a message each in turn.
    turns: VecDeque<CacheId>,
    /// The message that is in flight: the cache that has it, and its number.
    in_flight: Option<(CacheId, u64)>,
    /// The number of the next message.
    next_seq: u64,
    /// The caches whose outbox has changed, to be reported by the bus session.
    changed: Vec<CacheId>,
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
    cache: CacheId,
    message: &'a Message<'a>,
    pub(crate) disposition: Disposition,
    /// By which the message is remembered, if it is applied and is no beacon.
    fingerprint: Option<Fingerprint>,
    /// See [`GapDetector::current_as_of`].
    as_of: u64,
}

impl Classified<'_> {
    /// If the value of the message may be taken: a time at which it was current.
    pub(crate) fn value_as_of(&self) -> Option<u64> {
        let is_admissible = self.disposition == Disposition::Apply { value_admissible: true };
        is_admissible.then_some(self.as_of)
    }
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

impl Session {
    /// `incarnation` is random, new with every start, so that sequence numbers may begin at 0.
    pub(crate) fn new(
        incarnation: &str,
        source: String,
        trust_timeout: u64,
        dedupe: &EventDedupe,
    ) -> Self {
        let incarnation: Arc<str> = Arc::from(incarnation);
        Self {
            gaps: GapDetector::new(&incarnation, trust_timeout),
            beacons: BeaconSchedule::new(trust_timeout),
            dedupe: Dedupe::new(dedupe.max_entries, millis(dedupe.ttl)),
            rebroadcasts: Rebroadcasts::default(),
            identity: Identity { source, incarnation },
            caches: HashMap::default(),
            namespaces: Arc::default(),
            next_id: 0,
            turns: VecDeque::new(),
            in_flight: None,
            next_seq: 0,
            changed: Vec::new(),
            idle_until: None,
            hello_pending: false,
            last_confirmed: None,
        }
    }

    /// Returns the version vector that a value of a cache carries when it is broadcast: per
    /// publisher, the sequence number up to which this instance had applied everything. Call it
    /// before the right to write the value is checked.
    ///
    /// An error says why peers could not judge the value, so that it is not broadcast: a loaded one
    /// (`prime`) for a while after a subscription began, and any if there are too many publishers.
    pub(crate) fn causal_context(&self, cache: CacheId, now: u64, prime: bool) -> CausalContext {
        let gaps = Some(&self.gaps).filter(|gaps| gaps.is_caught_up(now));
        // mutant order-present: if false
        if prime && gaps.is_none() {
            return Err("a subscription has just begun, or messages were lost");
        }
        let cache = self.caches.get(&cache).ok_or("the cache was closed")?;
        cache.causality.causal_context(gaps, self.next_seq)
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

    /// Returns the caches that receive messages, by their names.
    pub(crate) fn namespaces(&self) -> Arc<Namespaces> {
        Arc::clone(&self.namespaces)
    }

    /// Records a message that is for none of `namespaces`. Returns `false`, and records nothing, if
    /// a cache was attached or detached since: the message must be decoded again.
    pub(crate) fn on_foreign(
        &mut self,
        now: u64,
        namespaces: &Arc<Namespaces>,
        stamp: Option<&SequenceStamp<'_>>,
        is_beacon: bool,
    ) -> bool {
        // mutant late-cache: => let is_current = true;
        let is_current = Arc::ptr_eq(namespaces, &self.namespaces);
        if is_current {
            self.gaps.observe_foreign(now, stamp, is_beacon);
        }
        is_current
    }

    /// Classifies a message for a cache before it is applied. `None` if a cache was attached or
    /// detached since it was decoded by `namespaces`: it must be decoded again.
    ///
    /// The subscriber must hold the tickets of the keys already: a delete of this instance that
    /// comes after this call revokes them.
    pub(crate) fn classify<'a>(
        &mut self,
        now: u64,
        namespaces: &Arc<Namespaces>,
        cache: CacheId,
        message: &'a Message<'a>,
    ) -> Option<Classified<'a>> {
        if !Arc::ptr_eq(namespaces, &self.namespaces) {
            return None;
        }
        let (disposition, fingerprint) = self.disposition(now, cache, message)?;
        let as_of = self.gaps.current_as_of();
        Some(Classified { cache, message, disposition, fingerprint, as_of })
    }

    fn disposition(
        &mut self,
        now: u64,
        cache: CacheId,
        message: &Message<'_>,
    ) -> Option<(Disposition, Option<Fingerprint>)> {
        let is_own = match &message.stamp {
            Some(stamp) => *stamp.incarnation == *self.identity.incarnation,
            None => *message.source == *self.identity.source,
        };
        if is_own {
            return Some((Disposition::Own, None));
        }
        let Self { caches, gaps, dedupe, .. } = self;
        let CacheState { causality, outbox, .. } = caches.get_mut(&cache)?;
        let progress = outbox.progress(self.next_seq);
        let (stamp, mut value_admissible) = (message.stamp.as_ref(), false);
        let mut fingerprint = None;
        if !matches!(message.kind, MessageKind::Beacon { .. }) {
            fingerprint = dedupe.fingerprint_of_new(now, (cache, message.source), message.id);
            if fingerprint.is_none() {
                return Some((Disposition::Duplicate, None));
            }
        }
        match &message.kind {
            MessageKind::Beacon { .. } => {}
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
        Some((Disposition::Apply { value_admissible }, fingerprint))
    }

    /// Records that a message was applied, or did not need to be. From now on it counts as applied
    /// in every [`causal_context`](Session::causal_context). A message for which this is not
    /// called counts as never received.
    ///
    /// Returns whether the message is a hello, which the publisher must answer.
    #[expect(clippy::needless_pass_by_value, reason = "a message is recorded once")]
    pub(crate) fn on_applied(&mut self, now: u64, classified: Classified<'_>, random: f64) -> bool {
        let Classified { cache, message, disposition, fingerprint, .. } = classified;
        let (hello, named) = match &message.kind {
            MessageKind::Beacon { hello, caches: names } => {
                let named = names.iter().filter_map(|name| self.namespaces.find(Some(name)));
                (Some(*hello), named.collect())
            }
            _ => (None, Vec::new()),
        };
        let is_own = disposition == Disposition::Own;
        if let Some(fingerprint) = fingerprint {
            self.dedupe.insert(now, fingerprint);
        }
        let caches = if named.is_empty() { &[cache][..] } else { &named };
        match &message.stamp {
            Some(stamp) => self.gaps.observe(now, stamp, hello.is_some(), caches),
            None => self.gaps.observe_activity(now),
        }
        if let (Some(_), Some(stamp)) = (hello, &message.stamp)
            && stamp.next_within_ms.is_some()
        {
            // mutant shared-instance: remove
            self.gaps.observe_instance(now, stamp.incarnation, message.source);
        }
        let must_answer = hello == Some(true) && !is_own;
        if must_answer {
            self.beacons.on_hello(now, random);
        }
        must_answer
    }

    /// A peer has broadcast an invalidation again that reached L2 by a retry. Returns whether this
    /// instance was about to, or one of both has just done so.
    pub(crate) fn on_rebroadcast(&mut self, now: u64, name: &Name) -> bool {
        self.rebroadcasts.on_received(now, name)
    }
}

#[cfg(test)]
mod several_tests;
#[cfg(test)]
mod tests;
