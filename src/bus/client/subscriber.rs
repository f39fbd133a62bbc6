//! The subscriber: one task, which receives the messages of the peers and applies them, and never
//! gives up.
//!
//! When a subscription begins, these steps follow each other. In any other order a delete could
//! be missed while the entry that it deletes is trusted.
//!
//! | step | effect |
//! | --- | --- |
//! | 1. `Transport::subscribe` returns | every message from now on will be received; loads that run lose the right to fill L1, unless the subscription was resumed |
//! | 2. the first probe is back | all messages that were published before it were applied |
//! | 3. the entries from before step 1 are marked untrusted, unless the subscription was resumed | they may be older than a missed message |
//! | 4. trust is extended, and `ready()` returns | entries that are stored from now on are trusted |
//!
//! Beside it, the prober sends a probe each third of `trust_timeout`. Only a probe that is back
//! extends trust (`protocol/probes.rs`).

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{bus_client::BusClient, sink::Sink};
use crate::{
    bus::{
        protocol::{gap_detector::GapReason, probes::ProbeReturn, session::Disposition},
        transport::{Delivery, MessageStream, Subscribed},
        wire::{
            envelope::{add_prefix, is_packed, unwrap_body},
            limits::MAX_BODY,
            message::{InL2, Message, MessageKind, Received},
        },
    },
    error::{BoxError, HeldError},
    observe::{Counter, Event, log_bus_down, log_bus_gap, log_bus_up},
    resilience::{Backoff, DropGuard, Elapsed, run_alongside, run_until, timeout},
};

const GAP_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a subscription may take to begin: longer than the limits of the transports, whose
/// errors say more than a timeout here.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(20);
/// After this many messages in a row, the subscriber lets other tasks of its thread run.
const YIELD_EVERY: u32 = 64;

/// Why a subscription ended.
enum SubscriptionEnd {
    /// The transport reported it.
    Closed,
    /// No probe came back for long, and the transport reported nothing.
    Dead,
}

impl BusClient {
    pub(super) async fn run_subscriber<S: Sink>(&self, sink: &Arc<S>) {
        let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = new_backoff();
        let mut is_reported = false;
        loop {
            // mutant distrust-first: insert self.invalidate_trust(&**sink, sink.now());
            let subscribe = self.event_bus.transport().subscribe();
            let attempt = timeout(Some(SUBSCRIBE_LIMIT), subscribe).await;
            match attempt
                .unwrap_or_else(|Elapsed| Err("the subscription did not begin in time".into()))
            {
                Ok(subscribed) => {
                    let began = sink.now();
                    let end = self.run_subscription(sink, subscribed, is_reported).await;
                    if let SubscriptionEnd::Dead = end {
                        self.report_subscribe_error(&**sink, &"no probe came back".into());
                    }
                    log_bus_down(sink.observer().cache(), None);
                    is_reported = true;
                    // A subscription that ends as soon as it begins does not reset the backoff.
                    if sink.now().saturating_sub(began) >= 1_000 {
                        backoff = new_backoff();
                    }
                }
                Err(error) => {
                    let error = HeldError::new(error);
                    self.report_subscribe_error(&**sink, &error);
                    if !std::mem::replace(&mut is_reported, true) {
                        log_bus_down(sink.observer().cache(), Some(&error));
                    }
                }
            }
            sleep(backoff.next(fastrand::f64())).await;
        }
    }

    fn report_subscribe_error<S: Sink>(&self, sink: &S, error: &BoxError) {
        sink.observer().count(Counter::BusErrors);
        sink.observer().emit(|| Event::BusSubscribeError { error: &**error });
    }

    /// Runs one subscription, from its confirmation to its end. `was_down`: the log says that there
    /// was none.
    async fn run_subscription<S: Sink>(
        &self,
        sink: &Arc<S>,
        subscribed: Subscribed,
        was_down: bool,
    ) -> SubscriptionEnd {
        let Subscribed { messages, prober, resumed } = subscribed;
        if !resumed {
            // L2 may have answered a load or a `set` before a peer deleted the key, and the
            // answer is on its way.
            // mutant join-loads: remove
            sink.revoke_loads();
        }
        // Entries that those loads stored carry a time of up to now.
        self.session.lock().on_subscribed(sink.now(), resumed);
        self.work.notify_one();
        // Runs also when the task is dropped with its runtime.
        let _on_end = DropGuard::new(|| {
            self.session.lock().gaps.on_unsubscribed();
            self.trust.extend_until(0);
            self.subscribed.send_replace(false);
            sink.observer().emit(|| Event::BusDisconnected);
        });
        let receive = self.receive(sink, messages, resumed, was_down);
        run_alongside(self.run_prober(&**sink, &*prober), receive).await
    }

    async fn receive<S: Sink>(
        &self,
        sink: &Arc<S>,
        mut messages: Box<dyn MessageStream>,
        resumed: bool,
        was_down: bool,
    ) -> SubscriptionEnd {
        let trust_timeout = self.options.event_bus.trust_timeout;
        let mut gap_checks = interval(GAP_CHECK_INTERVAL.min(trust_timeout / 30));
        gap_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut received = 0u32;
        loop {
            let gap_check = async {
                gap_checks.tick().await;
            };
            match run_until(messages.next(), gap_check).await {
                None => {
                    self.check_for_gap(&**sink);
                    if self.session.lock().gaps.is_dead(sink.now()) {
                        return SubscriptionEnd::Dead;
                    }
                }
                Some(Delivery::Message(payload)) => {
                    self.handle_message(sink, &payload).await;
                    received = received.wrapping_add(1);
                    if received.is_multiple_of(YIELD_EVERY) {
                        tokio::task::yield_now().await;
                    }
                }
                Some(Delivery::Probe(number)) => {
                    if self.on_probe(&**sink, number) == ProbeReturn::First {
                        sink.observer().emit(|| Event::BusSubscribed { resumed });
                        // An entry that is stored in the next millisecond was not marked.
                        sleep(Duration::from_millis(1)).await;
                        if was_down {
                            log_bus_up(sink.observer().cache());
                        }
                        self.subscribed.send_replace(true);
                        self.on_bus_answered();
                    }
                }
                Some(Delivery::Gap) => {
                    self.on_gap(&**sink, "the transport lost messages");
                }
                // `Closed`, or a kind of delivery that this version does not know.
                Some(_) => return SubscriptionEnd::Closed,
            }
        }
    }

    fn check_for_gap<S: Sink>(&self, sink: &S) {
        let now = sink.now();
        let gap = self.session.lock().poll_gap(now, fastrand::f64());
        if let Some(reason) = gap {
            self.on_gap(sink, reason.as_str());
        }
        if let Some(until) = self.session.lock().gaps.take_unsure_beginning() {
            self.trust.invalidate_before(until);
        }
        if self.session.lock().gaps.request_probe(now) {
            self.probe_due.notify_one();
        }
        self.extend_trust();
    }

    /// A probe is back, so all messages that were published before it were applied.
    fn on_probe<S: Sink>(&self, sink: &S, number: u64) -> ProbeReturn {
        // After a freeze this may be the first that runs: trust has lapsed, and no probe was lost.
        // mutant unseen-lapse: remove
        self.check_for_gap(sink);
        let now = sink.now();
        let (back, must_mark) = self.session.lock().gaps.on_probe(now, number);
        if back == ProbeReturn::AfterLoss && must_mark {
            self.on_gap(sink, GapReason::ProbesLost.as_str());
        }
        // mutant distrust-first: if false
        if back == ProbeReturn::First && must_mark {
            sink.revoke_loads();
            let now = sink.now();
            let gaps = &mut self.session.lock().gaps;
            self.trust.invalidate_before(gaps.joined_at(now));
            gaps.acknowledge_gap(now);
            gaps.on_current(now);
        }
        self.extend_trust();
        back
    }

    /// Extends trust by the probes that are back, or ends it if L1 became uncertain.
    fn extend_trust(&self) {
        let until = self.session.lock().gaps.trusted_until();
        self.trust.extend_until(until.unwrap_or(0));
    }

    fn on_gap<S: Sink>(&self, sink: &S, reason: &str) {
        sink.observer().count(Counter::BusGaps);
        sink.observer().emit(|| Event::BusGap { reason });
        if self.gap_logged.is_due(sink.now()) {
            log_bus_gap(sink.observer().cache(), reason);
        }
        self.invalidate_trust(sink, sink.now());
        let now = sink.now();
        self.session.lock().gaps.acknowledge_gap(now);
    }

    /// Marks all entries of L1 untrusted, and those that running loads would store: first the
    /// entries, then the loads, so that an entry that a load stores in between is untrusted.
    fn invalidate_trust<S: Sink>(&self, sink: &S, now: u64) {
        // mutant gap-memory: remove
        self.trust.invalidate_before(now);
        // mutant gap-loads: remove
        sink.revoke_loads();
        // Entries that were stored meanwhile carry a time of up to now.
        // mutant gap-memory: remove
        self.trust.invalidate_before(sink.now());
    }

    async fn handle_message<S: Sink>(&self, sink: &Arc<S>, payload: &[u8]) {
        let unpacked = match is_packed(payload) {
            true => sink.unpack(payload.to_vec(), MAX_BODY).await,
            false => None,
        };
        let body = unwrap_body(payload, unpacked);
        let message =
            body.as_ref().map_err(|e| *e).and_then(|body| Message::decode(body, &self.namespace));
        let message = match message {
            Ok(Received::Ours(message)) => message,
            Ok(Received::Foreign { stamp, is_beacon }) => {
                let now = sink.now();
                self.session.lock().gaps.observe_foreign(now, stamp.as_ref(), is_beacon);
                return;
            }
            Err(error) => {
                let now = sink.now();
                self.session.lock().gaps.observe_unreadable(now);
                sink.observer().count(Counter::EventsRefused);
                sink.observer().emit(|| Event::InvalidationRefused { error: &error });
                return;
            }
        };
        // The tickets are issued before the message is classified: a delete of this instance that
        // comes after the classification revokes the tickets.
        let tickets: Vec<S::Ticket> = match &message.kind {
            MessageKind::Set { keys, .. } => keys.iter().map(|key| sink.ticket(key)).collect(),
            _ => Vec::new(),
        };
        let now = sink.now();
        let (classified, as_of) = {
            let mut session = self.session.lock();
            (session.classify(now, &message), session.gaps.current_as_of())
        };
        match classified.disposition {
            Disposition::Apply { value_admissible } => {
                let value_as_of = value_admissible.then_some(as_of);
                self.apply(sink, &message, tickets, value_as_of).await;
            }
            Disposition::Duplicate => {
                sink.observer().count(Counter::EventsDuplicate);
                sink.observer().emit(|| Event::InvalidationDuplicate { source: message.source });
            }
            Disposition::Own => {}
        }
        let (now, random) = (sink.now(), fastrand::f64());
        let is_hello = self.session.lock().on_applied(now, classified, random);
        if is_hello {
            self.work.notify_one();
        }
    }

    async fn apply<S: Sink>(
        &self,
        sink: &Arc<S>,
        message: &Message<'_>,
        tickets: Vec<S::Ticket>,
        value_as_of: Option<u64>,
    ) {
        let source = message.source;
        let pattern = match message.kind {
            MessageKind::Beacon { .. } => return,
            MessageKind::Pattern { pattern } => Some(pattern),
            _ => None,
        };
        let keys = message.kind.deleted_keys();
        let observer = sink.observer();
        observer.count(Counter::EventsReceived);
        if !keys.is_empty() || pattern.is_some() {
            observer.emit(|| Event::InvalidationReceived { source, keys, pattern });
        }
        let generation = message.generation.filter(|_| keys.len() == 1);
        // Before L1 forgets the key: else the next read may find the old value in L2.
        if message.in_l2 == InL2::No {
            // mutant peer-pending: remove
            keys.iter().for_each(|key| sink.record_pending(key, false, generation));
            // mutant peer-pending: remove
            pattern.iter().for_each(|pattern| sink.record_pending(pattern, true, None));
        }
        // Before L1 forgets the key: else the next read may find an old sidecar in L2.
        if message.stamp.is_none() {
            // mutant foreign-sidecar: remove
            keys.iter().for_each(|key| sink.on_foreign_change(key, false));
            pattern.iter().for_each(|pattern| sink.on_foreign_change(pattern, true));
        }
        // Before L1 forgets the key: the next read looks in L2 under the name of this generation.
        if let ([key], Some(generation)) = (keys, generation) {
            // mutant counts: remove
            sink.adopt_generation(key, generation);
        }
        match &message.kind {
            MessageKind::Beacon { .. } => {}
            MessageKind::Delete { keys } => {
                for key in keys {
                    if !self.is_settled(sink, message.in_l2, key, false) {
                        sink.invalidate(key);
                    }
                    sink.on_applied(key);
                }
            }
            MessageKind::Pattern { pattern } => {
                if !self.is_settled(sink, message.in_l2, pattern, true) {
                    sink.invalidate_matching(pattern).await;
                }
            }
            MessageKind::Set { keys, value, ttl_ms, stale_ms, prime, .. } => {
                let payload = value_as_of.and_then(|_| add_prefix(value));
                let value = match payload {
                    Some(payload) => sink.decode(payload).await,
                    None => None,
                };
                for (key, ticket) in keys.iter().zip(tickets) {
                    let kept = value.as_ref().zip(value_as_of).is_some_and(|(value, as_of)| {
                        sink.offer(ticket, value, (*ttl_ms, *stale_ms), as_of, *prime)
                    });
                    if kept {
                        observer.count(Counter::ValuesReceived);
                        observer.emit(|| Event::SetReceived { key, source });
                    } else if !prime {
                        sink.invalidate(key);
                    }
                    if value_as_of.is_none() {
                        observer.emit(|| Event::InvalidationStale { key, source });
                    }
                    sink.on_applied(key);
                }
            }
        }
    }

    /// Whether the message says only that L2 has got an invalidation which this instance received
    /// before: L1 has no value of L2 that is older than it. This instance then need not broadcast
    /// it again.
    fn is_settled<S: Sink>(
        &self,
        sink: &Arc<S>,
        in_l2: InL2,
        name: &str,
        is_pattern: bool,
    ) -> bool {
        if in_l2 != InL2::Retried {
            return false;
        }
        let is_pending = sink.on_peer_retried(name, is_pattern);
        let (now, name) = (sink.now(), (Arc::from(name), is_pattern));
        self.session.lock().rebroadcasts.on_received(now, &name) || is_pending
    }
}
