//! An instance's place in the fleet: what it tells and what it has heard, under one lock.
//!
//! Pure but for the lock: it is told the time, given what came and asked what to send. Who sends
//! and receives is the cache's business.

mod inbound;
mod outbound;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::{inbound::Standing, outbound::SendAction};
use super::{
    beacon_schedule::BeaconSchedule,
    causality::{CausalFilter, OutboxProgress},
    dedupe::Dedupe,
    gap_detector::GapDetector,
    outbox::{Change, Outbox},
};

/// What a member is, and its bounds. Times are milliseconds.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    pub(crate) source: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) trust_timeout: u64,
    pub(crate) dedupe_entries: usize,
    pub(crate) dedupe_ttl: u64,
    pub(crate) outbox_entries: usize,
    pub(crate) outbox_bytes: usize,
    /// Whether there is a count to be told of each key. An event has room for one.
    pub(crate) tells_counts: bool,
}

pub(crate) struct BusSession {
    source: Arc<str>,
    namespace: Option<String>,
    /// New with every start, so that numbers may begin at 0.
    incarnation: Arc<str>,
    state: Mutex<State>,
    /// Told when there is something to send.
    pub(crate) work: Notify,
    /// All changes of turns below this are out.
    covered: AtomicU64,
    /// Told when that rises. (Not `watch`, which wakes in random order: so a simulation repeats.)
    rises: Notify,
}

struct State {
    outbox: Outbox,
    gaps: GapDetector,
    pulse: BeaconSchedule,
    dedupe: Dedupe,
    order: CausalFilter,
    /// Until when who sends waits; `None` while it does not, and so looks again before it does.
    rests_until: Option<u64>,
    /// Whether peers are to be asked where they are.
    says_hello: bool,
    /// Counts subscriptions.
    subscriptions: u64,
    /// Whether there is an older part of this subscription to be worked off, until a beacon of its
    /// own comes by.
    catches_up: bool,
}

impl State {
    fn out(&self) -> OutboxProgress {
        OutboxProgress { acked: self.outbox.acked(), next_seq: self.outbox.next_seq() }
    }
}

impl BusSession {
    pub(crate) fn new(manner: SessionConfig) -> Self {
        let random = || format!("{:016x}", fastrand::u64(..));
        let incarnation: Arc<str> = Arc::from(random());
        let outbox = Outbox::new(manner.outbox_entries, manner.outbox_bytes);
        Self {
            source: Arc::from(manner.source.unwrap_or_else(random)),
            namespace: manner.namespace,
            state: Mutex::new(State {
                // mutant counts-alone: if false
                outbox: if manner.tells_counts { outbox.single_key() } else { outbox },
                gaps: GapDetector::new(&incarnation, manner.trust_timeout),
                pulse: BeaconSchedule::new(manner.trust_timeout),
                dedupe: Dedupe::new(manner.dedupe_entries, manner.dedupe_ttl),
                order: CausalFilter::new(&incarnation, CausalFilter::MAX_KEYS),
                rests_until: None,
                says_hello: false,
                subscriptions: 0,
                catches_up: false,
            }),
            incarnation,
            work: Notify::new(),
            covered: AtomicU64::new(0),
            rises: Notify::new(),
        }
    }

    /// A key is about to be deleted or set: to be called before memory is changed. Then, once,
    /// [`tell_own`](Self::tell_own).
    pub(crate) fn deleting(&self, now: u64, key: &str) {
        let State { order, gaps, .. } = &mut *self.state.lock();
        order.begin_invalidation(gaps, now, key);
    }

    /// The same for a pattern.
    pub(crate) fn deleting_many(&self) {
        self.state.lock().order.begin_pattern();
    }

    /// What [`deleting`](Self::deleting) spoke of, for the peers; nothing if it did not happen.
    /// Gives its turn.
    pub(crate) fn tell_own(
        &self,
        now: u64,
        name: &str,
        pattern: bool,
        told: Option<Change>,
    ) -> u64 {
        let State { outbox, order, .. } = &mut *self.state.lock();
        let turn = told.map(|change| outbox.push(now, change));
        if pattern {
            order.on_pattern_committed(turn);
        } else {
            order.on_committed(name, turn);
        }
        turn.unwrap_or(0)
    }

    /// What a value that was loaded has to say for itself. To be called before the right to publish
    /// it is checked. `None` if too little is known: then it is not to be told.
    pub(crate) fn seen(&self, now: u64) -> Option<Arc<[u8]>> {
        let State { order, gaps, outbox, .. } = &*self.state.lock();
        let knows = gaps.is_caught_up(now);
        // mutant order-present: if true
        if knows { order.causal_context(Some(gaps), outbox.next_seq()) } else { None }
    }

    /// The same for a value that is given, which is told in any case.
    pub(crate) fn seen_by_given(&self, now: u64) -> Option<Arc<[u8]>> {
        let State { order, gaps, outbox, .. } = &*self.state.lock();
        let gaps = Some(gaps).filter(|gaps| gaps.is_caught_up(now));
        order.causal_context(gaps, outbox.next_seq())
    }

    /// Takes in a change for the peers.
    pub(crate) fn tell(&self, now: u64, change: Change) {
        self.state.lock().outbox.push(now, change);
    }

    /// Waits until all of a turn is out.
    pub(crate) async fn is_out(&self, turn: u64) {
        loop {
            // Made before the question, it hears of every answer that changes after it.
            let rises = self.rises.notified();
            if self.covered.load(Ordering::SeqCst) > turn {
                return;
            }
            rises.await;
        }
    }

    /// Waits until everything is out.
    pub(crate) async fn all_is_out(&self) {
        loop {
            let rises = self.rises.notified();
            if self.state.lock().outbox.is_empty() {
                return;
            }
            rises.await;
        }
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Changes that are not out yet.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().outbox.len()
    }
}
