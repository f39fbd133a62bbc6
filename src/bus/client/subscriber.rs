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

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    bus_session::BusSession,
    receiver::{Receipt, Receiving},
};
use crate::{
    bus::{
        protocol::{gap_detector::GapReason, probes::ProbeReturn},
        transport::{Delivery, MessageStream, Subscribed},
        wire::{
            decode_error::DecodeError,
            envelope::{is_packed, unwrap_body},
            fields::Fields,
            limits::MAX_BODY,
            message::{Message, MessageKind, Received},
            namespace::{CacheId, Namespaces},
        },
    },
    error::{BoxError, HeldError},
    observe::{Counter, Event, log_bus_down, log_bus_gap, log_bus_shared_instance, log_bus_up},
    resilience::{Backoff, DropGuard, Elapsed, run_alongside, run_until, timeout},
    time::MAX_CLOCK_STEP,
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

impl BusSession {
    pub(super) async fn run_subscriber(&self) {
        let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = new_backoff();
        let mut is_reported = false;
        loop {
            // mutant distrust-first: insert self.invalidate_trust(self.now());
            let subscribe = self.event_bus.transport().subscribe();
            let attempt = timeout(Some(SUBSCRIBE_LIMIT), subscribe).await;
            match attempt
                .unwrap_or_else(|Elapsed| Err("the subscription did not begin in time".into()))
            {
                Ok(subscribed) => {
                    let began = self.now();
                    let end = self.run_subscription(subscribed, is_reported).await;
                    if let SubscriptionEnd::Dead = end {
                        self.report_subscribe_error(&"no probe came back".into());
                    }
                    log_bus_down(self.log_name().as_deref(), None);
                    is_reported = true;
                    // A subscription that ends as soon as it begins does not reset the backoff.
                    if self.now().saturating_sub(began) >= 1_000 {
                        backoff = new_backoff();
                    }
                }
                Err(error) => {
                    let error = HeldError::new(error);
                    self.report_subscribe_error(&error);
                    if !std::mem::replace(&mut is_reported, true) {
                        log_bus_down(self.log_name().as_deref(), Some(&error));
                    }
                }
            }
            sleep(backoff.next(fastrand::f64())).await;
        }
    }

    fn report_subscribe_error(&self, error: &BoxError) {
        let event = || Event::BusSubscribeError { error: &**error };
        Self::report_to(&self.receivers(), Some(Counter::BusErrors), event);
    }

    /// Runs one subscription, from its confirmation to its end. `was_down`: the log says that there
    /// was none.
    async fn run_subscription(&self, subscribed: Subscribed, was_down: bool) -> SubscriptionEnd {
        let Subscribed { messages, prober, resumed } = subscribed;
        if !resumed {
            // L2 may have answered a load or a `set` before a peer deleted the key, and the
            // answer is on its way.
            // mutant join-loads: remove
            self.revoke_loads();
        }
        // Entries that those loads stored carry a time of up to now.
        let now = self.now();
        self.protocol.lock().on_subscribed(now, resumed);
        self.work.notify_one();
        // Runs also when the task is dropped with its runtime.
        let _on_end = DropGuard::new(|| {
            self.protocol.lock().gaps.on_unsubscribed();
            self.trust.extend_until(0);
            self.subscribed.send_replace(false);
            Self::report_to(&self.receivers(), None, || Event::BusDisconnected);
        });
        let receive = self.receive(messages, resumed, was_down);
        run_alongside(self.run_prober(&*prober), receive).await
    }

    async fn receive(
        &self,
        mut messages: Box<dyn MessageStream>,
        resumed: bool,
        was_down: bool,
    ) -> SubscriptionEnd {
        let trust_timeout = self.options.trust_timeout;
        let mut gap_checks = interval(GAP_CHECK_INTERVAL.min(trust_timeout / 30));
        gap_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut received = 0u32;
        let mut namespaces = self.protocol.lock().namespaces();
        loop {
            let gap_check = async {
                gap_checks.tick().await;
            };
            match run_until(messages.next(), gap_check).await {
                None => {
                    self.check_for_gap();
                    let now = self.now();
                    if self.protocol.lock().gaps.is_dead(now) {
                        return SubscriptionEnd::Dead;
                    }
                }
                Some(Delivery::Message(payload)) => {
                    self.handle_message(&payload, &mut namespaces).await;
                    received = received.wrapping_add(1);
                    if received.is_multiple_of(YIELD_EVERY) {
                        tokio::task::yield_now().await;
                    }
                }
                Some(Delivery::Probe(number)) => {
                    if self.on_probe(number) == ProbeReturn::First {
                        let event = || Event::BusSubscribed { resumed };
                        Self::report_to(&self.receivers(), None, event);
                        self.pass_step_of_clock().await;
                        if was_down {
                            log_bus_up(self.log_name().as_deref());
                        }
                        self.subscribed.send_replace(true);
                        self.on_bus_answered();
                    }
                }
                Some(Delivery::Gap) => {
                    self.on_gap("the transport lost messages");
                }
                // `Closed`, or a kind of delivery that this version does not know.
                Some(_) => return SubscriptionEnd::Closed,
            }
        }
    }

    /// Waits until an entry that is stored carries a later time than those that were marked. Does
    /// not wait for a clock that stands still.
    async fn pass_step_of_clock(&self) {
        let marked = self.now();
        for _ in 0..MAX_CLOCK_STEP {
            sleep(Duration::from_millis(1)).await;
            // mutant ready-step: if true
            if self.now() > marked {
                return;
            }
        }
    }

    fn check_for_gap(&self) {
        let now = self.now();
        let gap = self.protocol.lock().poll_gap(now, fastrand::f64());
        if let Some(reason) = gap {
            self.on_gap(reason.as_str());
        }
        if let Some(until) = self.protocol.lock().gaps.take_unsure_beginning() {
            self.trust.invalidate_before(until);
        }
        let shared = self.protocol.lock().gaps.take_shared_instance();
        if let Some(instance_id) = shared {
            let event = || Event::BusSharedInstanceId { instance_id: &instance_id };
            Self::report_to(&self.receivers(), Some(Counter::BusSharedInstanceIds), event);
            if self.shared_instance_logged.is_due(now) {
                log_bus_shared_instance(self.log_name().as_deref(), &instance_id);
            }
        }
        if self.protocol.lock().gaps.request_probe(now) {
            self.probe_due.notify_one();
        }
        self.extend_trust();
    }

    /// A probe is back, so all messages that were published before it were applied.
    fn on_probe(&self, number: u64) -> ProbeReturn {
        // After a freeze this may be the first that runs: trust has lapsed, and no probe was lost.
        // mutant unseen-lapse: remove
        self.check_for_gap();
        let now = self.now();
        let (back, must_mark) = self.protocol.lock().gaps.on_probe(now, number);
        if back == ProbeReturn::AfterLoss && must_mark {
            self.on_gap(GapReason::ProbesLost.as_str());
        }
        // mutant distrust-first: if false
        if back == ProbeReturn::First && must_mark {
            self.revoke_loads();
            let now = self.now();
            let gaps = &mut self.protocol.lock().gaps;
            self.trust.invalidate_before(gaps.joined_at(now));
            gaps.acknowledge_gap(now);
            gaps.on_current(now);
        }
        self.extend_trust();
        back
    }

    /// Extends trust by the probes that are back, or ends it if L1 became uncertain.
    fn extend_trust(&self) {
        let until = self.protocol.lock().gaps.trusted_until();
        self.trust.extend_until(until.unwrap_or(0));
    }

    fn on_gap(&self, reason: &str) {
        let event = || Event::BusGap { reason };
        Self::report_to(&self.receivers(), Some(Counter::BusGaps), event);
        if self.gap_logged.is_due(self.now()) {
            log_bus_gap(self.log_name().as_deref(), reason);
        }
        self.invalidate_trust(self.now());
        let now = self.now();
        self.protocol.lock().gaps.acknowledge_gap(now);
    }

    /// Marks all entries of L1 untrusted, and those that running loads would store: first the
    /// entries, then the loads, so that an entry that a load stores in between is untrusted.
    fn invalidate_trust(&self, now: u64) {
        // mutant gap-memory: remove
        self.trust.invalidate_before(now);
        // mutant gap-loads: remove
        self.revoke_loads();
        // Entries that were stored meanwhile carry a time of up to now.
        // mutant gap-memory: remove
        self.trust.invalidate_before(self.now());
    }

    /// Revokes the tickets of the running loads of all caches.
    fn revoke_loads(&self) {
        self.receivers().iter().for_each(|member| member.revoke_loads());
    }

    /// `namespaces`: those of the message before.
    async fn handle_message(&self, payload: &[u8], namespaces: &mut Arc<Namespaces>) {
        let unpacked = match is_packed(payload) {
            true => self.unpack(payload).await,
            false => None,
        };
        let body = unwrap_body(payload, unpacked);
        while !self.handle_body(&body, namespaces).await {
            *namespaces = self.protocol.lock().namespaces();
        }
    }

    /// Returns the MessagePack of a packed message. Which cache it is for is not known before.
    async fn unpack(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut tried = Vec::new();
        for member in self.receivers() {
            let Some(receiver) = member.receiver.upgrade() else { continue };
            let form = receiver.codec_form();
            if form.is_some() && tried.contains(&form) {
                continue;
            }
            tried.push(form);
            let body = receiver.unpack(payload.to_vec(), MAX_BODY).await;
            if body.is_some() {
                return body;
            }
        }
        None
    }

    /// Returns `false` if the message must be decoded again, because a cache was attached or
    /// detached meanwhile.
    async fn handle_body(
        &self,
        body: &Result<Cow<'_, [u8]>, DecodeError>,
        namespaces: &Arc<Namespaces>,
    ) -> bool {
        let message =
            body.as_ref().map_err(|e| *e).and_then(|body| Message::decode(body, namespaces));
        match message {
            Ok(Received::Ours(cache, message)) => {
                let stamp = message.stamp.as_ref();
                let is_own = stamp.is_some_and(|stamp| *stamp.incarnation == *self.incarnation);
                let is_applied = !is_own && !matches!(message.kind, MessageKind::Beacon { .. });
                match if is_applied { self.receiver(cache) } else { None } {
                    Some(receiver) => {
                        let (session, message) = (&self.protocol, &message);
                        let receipt = Receipt { session, cache, message, namespaces };
                        match receiver.receive(receipt) {
                            Receiving::Done(is_received) => is_received,
                            Receiving::Running(receiving) => receiving.await,
                        }
                    }
                    None => self.record(cache, &message, namespaces),
                }
            }
            Ok(Received::Foreign { stamp, is_beacon }) => {
                let now = self.now();
                self.protocol.lock().on_foreign(now, namespaces, stamp.as_ref(), is_beacon)
            }
            Err(error) => {
                let now = self.now();
                self.protocol.lock().gaps.observe_unreadable(now);
                let place = body.as_ref().ok().and_then(|body| Fields::read_place(body));
                let namespace = place.and_then(|place| place.namespace);
                let cache = namespace.and_then(|name| namespaces.find(Some(name)));
                let members = match cache.and_then(|cache| self.member(cache)) {
                    Some(member) => vec![member],
                    None => self.receivers(),
                };
                let event = || Event::InvalidationRefused { error: &error };
                Self::report_to(&members, Some(Counter::EventsRefused), event);
                true
            }
        }
    }

    /// Records a message that no cache has to apply.
    fn record(&self, cache: CacheId, message: &Message<'_>, namespaces: &Arc<Namespaces>) -> bool {
        let (now, random) = (self.now(), fastrand::f64());
        let mut protocol = self.protocol.lock();
        let classified = protocol.classify(now, namespaces, cache, message);
        let is_hello = classified.map(|it| protocol.on_applied(now, it, random));
        drop(protocol);
        if is_hello == Some(true) {
            self.work.notify_one();
        }
        is_hello.is_some()
    }
}
