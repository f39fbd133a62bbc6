//! The protocol state of one instance: which messages it still has to publish, and how far it has
//! received the messages of its peers. The bus client holds it under a lock. Order of the calls:
//!
//! | caller | calls |
//! | --- | --- |
//! | caller of a delete or `set` | `begin_invalidation`, then change L1 and L2, then `commit_invalidation` once |
//! | loader | `causal_context` before it checks its right to write, then `outbox.push` |
//! | subscriber | `on_subscribed`; per message take a ticket, `classify`, apply, `on_applied`; `gaps.poll_gap`, mark L1 untrusted, `gaps.acknowledge_gap`; `on_unsubscribed` |
//! | publisher | `next_action`, publish, then `on_sent`, `outbox.on_send_failed` or `on_beacon_tried` |

pub(crate) mod inbound;
pub(crate) mod outbound;

use std::sync::Arc;

use super::{
    beacon_schedule::BeaconSchedule,
    causality::{CausalFilter, OutboxProgress},
    dedupe::Dedupe,
    gap_detector::GapDetector,
    outbox::{Change, Outbox},
};
use crate::{options::CacheOptions, time::millis};

pub(crate) struct Session {
    pub(crate) outbox: Outbox,
    pub(crate) gaps: GapDetector,
    identity: Identity,
    beacons: BeaconSchedule,
    dedupe: Dedupe,
    causality: CausalFilter,
    /// Until when the publisher waits; `None` while it does not wait, because then it asks for
    /// its next action before it does.
    idle_until: Option<u64>,
    /// Whether the next beacon asks the peers for their sequence numbers.
    hello_pending: bool,
    /// Counts subscriptions. Beacons carry it.
    subscriptions: u64,
}

struct Identity {
    source: String,
    namespace: Option<String>,
    incarnation: Arc<str>,
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
        let outbox = Outbox::new(bus.outbox_max_entries, bus.outbox_max_bytes);
        Self {
            // mutant counts-alone: if false
            outbox: if sends_generations { outbox.single_key() } else { outbox },
            gaps: GapDetector::new(&incarnation, trust_timeout),
            beacons: BeaconSchedule::new(trust_timeout),
            dedupe: Dedupe::new(options.event_dedupe.max_entries, millis(options.event_dedupe.ttl)),
            causality: CausalFilter::new(&incarnation, CausalFilter::MAX_KEYS),
            identity: Identity { source, namespace: bus.namespace.clone(), incarnation },
            idle_until: None,
            hello_pending: false,
            subscriptions: 0,
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
        change: Option<Change>,
    ) -> u64 {
        let position = change.map(|change| self.outbox.push(now, change));
        if is_pattern {
            self.causality.on_pattern_committed(position);
        } else {
            self.causality.on_committed(name, position);
        }
        position.unwrap_or(0)
    }

    /// Returns the version vector that a value carries when it is broadcast: per publisher, the
    /// sequence number up to which this instance had applied everything. Call it before the right
    /// to write the value is checked.
    ///
    /// `None`: peers could not judge a loaded value (`prime`), so it is not broadcast. A value
    /// that was `set` is broadcast in any case, because its message also deletes the old value.
    pub(crate) fn causal_context(&self, now: u64, prime: bool) -> Option<Arc<[u8]>> {
        let gaps = Some(&self.gaps).filter(|gaps| gaps.is_caught_up(now));
        // mutant order-present: if false
        if prime && gaps.is_none() {
            None
        } else {
            self.causality.causal_context(gaps, self.outbox.next_seq())
        }
    }

    fn progress(&self) -> OutboxProgress {
        OutboxProgress { acked: self.outbox.acked(), next_seq: self.outbox.next_seq() }
    }
}
