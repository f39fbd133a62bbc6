//! The protocol state of one instance on the bus, under one lock: which messages it still has to
//! publish, and how far it has received the messages of its peers.
//!
//! The session does no I/O and reads no clock: its caller, the bus client, passes the time and the
//! received messages, and is told what to publish. Order of the calls:
//!
//! | task | calls |
//! | --- | --- |
//! | caller of a delete or `set` | `begin_invalidation`, then change L1 and L2, then `commit_invalidation` once |
//! | loader | `causal_context` before it checks its right to write, then `enqueue` |
//! | subscriber | `on_subscribed`; per message take a ticket, `classify`, apply, `Classified::applied`; `poll_gap`, mark L1 untrusted, `acknowledge_gap`; `on_unsubscribed` |
//! | publisher | `next_action`, publish, then `on_sent`, `on_send_failed` or `on_beacon_tried` |

pub(crate) mod inbound;
pub(crate) mod outbound;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    beacon_schedule::BeaconSchedule,
    causality::{CausalFilter, OutboxProgress},
    dedupe::Dedupe,
    gap_detector::GapDetector,
    outbox::{Change, Outbox},
};

/// The identity of a session, and its bounds. Times are in milliseconds.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    pub(crate) source: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) trust_timeout: u64,
    pub(crate) dedupe_entries: usize,
    pub(crate) dedupe_ttl: u64,
    pub(crate) outbox_entries: usize,
    pub(crate) outbox_bytes: usize,
    /// Whether each message carries the generation of its key, so that it has room for one key.
    pub(crate) sends_generations: bool,
}

pub(crate) struct BusSession {
    source: Arc<str>,
    namespace: Option<String>,
    /// Random, new with every start, so that sequence numbers may begin at 0.
    incarnation: Arc<str>,
    state: Mutex<State>,
    /// Notified by callers that enqueue a message; the publisher waits for it.
    pub(crate) work: Notify,
    /// The outbox position below which every message was published.
    acked: AtomicU64,
    /// Notified by the publisher when `acked` rises; callers of `wait_acked` and `wait_drained`
    /// wait for it.
    ///
    /// Alternatives considered: `tokio::sync::watch`, which wakes its waiters in random order, so
    /// that a simulation could not be repeated.
    acked_changed: Notify,
}

struct State {
    outbox: Outbox,
    gaps: GapDetector,
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

impl State {
    fn progress(&self) -> OutboxProgress {
        OutboxProgress { acked: self.outbox.acked(), next_seq: self.outbox.next_seq() }
    }
}

impl BusSession {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let random = || format!("{:016x}", fastrand::u64(..));
        let incarnation: Arc<str> = Arc::from(random());
        let outbox = Outbox::new(config.outbox_entries, config.outbox_bytes);
        Self {
            source: Arc::from(config.source.unwrap_or_else(random)),
            namespace: config.namespace,
            state: Mutex::new(State {
                // mutant counts-alone: if false
                outbox: if config.sends_generations { outbox.single_key() } else { outbox },
                gaps: GapDetector::new(&incarnation, config.trust_timeout),
                beacons: BeaconSchedule::new(config.trust_timeout),
                dedupe: Dedupe::new(config.dedupe_entries, config.dedupe_ttl),
                causality: CausalFilter::new(&incarnation, CausalFilter::MAX_KEYS),
                idle_until: None,
                hello_pending: false,
                subscriptions: 0,
            }),
            incarnation,
            work: Notify::new(),
            acked: AtomicU64::new(0),
            acked_changed: Notify::new(),
        }
    }

    /// Refuses peers' values of a key that this instance is about to delete or set, until
    /// [`commit_invalidation`](Self::commit_invalidation).
    pub(crate) fn begin_invalidation(&self, now: u64, key: &str) {
        let State { causality, gaps, .. } = &mut *self.state.lock();
        causality.begin_invalidation(gaps, now, key);
    }

    /// Refuses peers' values of all keys, because this instance is about to delete by a pattern.
    pub(crate) fn begin_pattern(&self) {
        self.state.lock().causality.begin_pattern();
    }

    /// Ends an invalidation that was begun: enqueues its message, or none if nothing was changed.
    /// Returns the outbox position of the message.
    pub(crate) fn commit_invalidation(
        &self,
        now: u64,
        name: &str,
        is_pattern: bool,
        change: Option<Change>,
    ) -> u64 {
        let State { outbox, causality, .. } = &mut *self.state.lock();
        let position = change.map(|change| outbox.push(now, change));
        if is_pattern {
            causality.on_pattern_committed(position);
        } else {
            causality.on_committed(name, position);
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
        let State { causality, gaps, outbox, .. } = &*self.state.lock();
        let gaps = Some(gaps).filter(|gaps| gaps.is_caught_up(now));
        // mutant order-present: if false
        if prime && gaps.is_none() {
            None
        } else {
            causality.causal_context(gaps, outbox.next_seq())
        }
    }

    /// Queues a message for the peers.
    pub(crate) fn enqueue(&self, now: u64, change: Change) {
        self.state.lock().outbox.push(now, change);
    }

    /// Waits until the message at this outbox position, and all before it, were published.
    pub(crate) async fn wait_acked(&self, position: u64) {
        loop {
            // Created before the check, so that no notification after the check is missed.
            let changed = self.acked_changed.notified();
            if self.acked.load(Ordering::SeqCst) > position {
                return;
            }
            changed.await;
        }
    }

    /// Waits until the outbox is empty.
    pub(crate) async fn wait_drained(&self) {
        loop {
            let changed = self.acked_changed.notified();
            if self.state.lock().outbox.is_empty() {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Number of changes in the outbox.
    pub(crate) fn outbox_len(&self) -> usize {
        self.state.lock().outbox.len()
    }
}
