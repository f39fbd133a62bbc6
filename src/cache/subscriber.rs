//! What other instances tell: heard, judged, applied. One loop, which never gives up.
//!
//! When a subscription has begun, in this order: it is confirmed (`subscribe` returns no sooner);
//! then what memory holds becomes suspect and running loads lose their right to fill it; then what
//! is filled from now on is believed. In any other order there is a moment in which a delete is
//! heard by nobody and yet what it deleted is believed.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    bus_client::BusClient,
    flight_context::{About, Ticket},
    state::CacheState,
};
use crate::{
    bus::{self, Delivery, GapReason, Message, MessageKind, Standing, Subscribed},
    codec::contained,
    entry::Lifetime,
    glob::Pattern,
    observe::{Counter, Event},
    options::CallOptions,
    resilience::{Backoff, Elapsed, timeout},
};

/// How often it is asked whether events were lost.
const CHECKS: Duration = Duration::from_millis(100);
/// How long a subscription may take to begin: longer than transports' own limits, which say more.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(20);
/// Events applied between two chances for other tasks of the thread.
const BATCH: u32 = 64;

/// What made the loop look up.
enum Call {
    Delivery(Delivery),
    Check,
}

/// Says that there is no subscription any more, also where the task is dropped with its runtime.
struct Listening<'a, V: Send + Sync + 'static>(&'a CacheState<V>, &'a BusClient<V>);

impl<V: Send + Sync + 'static> Drop for Listening<'_, V> {
    fn drop(&mut self) {
        let Self(state, bus) = self;
        bus.member.unsubscribed();
        bus.trust.extend_until(0);
        bus.subscribed.send_replace(false);
        state.observer.emit(|| Event::BusDisconnected);
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    pub(super) async fn listen(self: &Arc<Self>) {
        let Some(bus) = &self.bus else { return };
        let pauses = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut pause = pauses();
        let mut is_reported = false;
        loop {
            // mutant distrust-first: insert self.distrust(bus, self.now());
            let subscribe = bus.event_bus.transport().subscribe();
            let attempt = timeout(Some(SUBSCRIBE_LIMIT), subscribe).await;
            match attempt
                .unwrap_or_else(|Elapsed| Err("the subscription did not begin in time".into()))
            {
                Ok(subscribed) => {
                    if std::mem::take(&mut is_reported) {
                        self.observer.bus_recovered();
                    }
                    let began = self.now();
                    self.hear_all(bus, subscribed).await;
                    self.observer.bus_fails(None);
                    is_reported = true;
                    // One that ends as soon as it begins must not be begun without a pause.
                    if self.now().saturating_sub(began) >= 1_000 {
                        pause = pauses();
                    }
                }
                Err(error) => {
                    self.observer.count(Counter::BusErrors);
                    self.observer.emit(|| Event::BusSubscribeError { error: &*error });
                    if !std::mem::replace(&mut is_reported, true) {
                        self.observer.bus_fails(Some(&error));
                    }
                }
            }
            sleep(pause.next(fastrand::f64())).await;
        }
    }

    /// One subscription, from its confirmation to its end.
    async fn hear_all(self: &Arc<Self>, bus: &BusClient<V>, subscribed: Subscribed) {
        let Subscribed { messages: mut events, resumed } = subscribed;
        let now = self.now();
        bus.member.subscribed(now, resumed, fastrand::f64());
        let _listening = Listening(self, bus);
        // mutant distrust-first: remove
        if !resumed {
            self.distrust(bus, now);
        }
        bus.trust.extend_until(bus.member.trusted_until());
        bus.subscribed.send_replace(true);
        bus.is_alive();
        self.observer.emit(|| Event::BusSubscribed { resumed });
        let mut checks = interval(CHECKS);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = 0u32;
        loop {
            let call = {
                let mut next = pin!(events.next());
                poll_fn(|context| {
                    if checks.poll_tick(context).is_ready() {
                        return Poll::Ready(Call::Check);
                    }
                    next.as_mut().poll(context).map(Call::Delivery)
                })
                .await
            };
            match call {
                Call::Check => {
                    if let Some(reason) = bus.member.lost_any(self.now()) {
                        self.lost_events(bus, told(reason));
                    }
                }
                Call::Delivery(Delivery::Message(payload)) => {
                    self.hear(bus, &payload).await;
                    heard = heard.wrapping_add(1);
                    if heard.is_multiple_of(BATCH) {
                        tokio::task::yield_now().await;
                    }
                }
                Call::Delivery(Delivery::Gap) => {
                    self.lost_events(bus, "the transport lost events");
                }
                Call::Delivery(_) => return,
            }
            bus.trust.extend_until(bus.member.trusted_until());
        }
    }

    fn lost_events(&self, bus: &BusClient<V>, reason: &str) {
        self.observer.count(Counter::BusGaps);
        self.observer.emit(|| Event::BusGap { reason });
        self.distrust(bus, self.now());
        bus.member.gave_up_on_events(self.now());
    }

    /// What memory holds is suspect, and what running loads bring too. First the one, then the
    /// other: what a load fills in between is suspect already.
    fn distrust(&self, bus: &BusClient<V>, now: u64) {
        // mutant gap-memory: remove
        bus.trust.invalidate_before(now);
        // mutant gap-loads: remove
        self.flights.invalidate_matching(|_| true);
        // What was filled until that moment bears a time up to it.
        // mutant gap-memory: remove
        bus.trust.invalidate_before(self.now());
    }

    async fn hear(self: &Arc<Self>, bus: &BusClient<V>, payload: &[u8]) {
        let unpack = |payload: &[u8], limit| {
            contained(|| Ok(bus.codec.unpack(payload, limit))).ok().flatten()
        };
        let body = bus::unwrap_body(payload, unpack);
        let message = body
            .as_ref()
            .map_err(|refused| *refused)
            .and_then(|body| Message::decode(body, bus.member.namespace()));
        let message = match message {
            Ok(message) => message,
            Err(refused) => {
                let is_readable = refused == bus::DecodeError::OtherNamespace;
                bus.member.heard_something(self.now(), is_readable, fastrand::f64());
                if !is_readable {
                    self.observer.count(Counter::EventsRefused);
                    self.observer.emit(|| Event::InvalidationRefused { error: &refused });
                }
                return;
            }
        };
        // The right to write is taken first: what is deleted here from now on takes it back.
        let tickets: Vec<Ticket<V>> = match &message.kind {
            MessageKind::Set { keys, .. } => keys.iter().map(|key| self.right_to(key)).collect(),
            _ => Vec::new(),
        };
        let standing = bus.member.standing(self.now(), &message);
        match standing {
            Standing::New { is_good } => self.apply(bus, &message, tickets, is_good).await,
            Standing::Known => {
                self.observer.count(Counter::EventsDuplicate);
                self.observer.emit(|| Event::InvalidationDuplicate { source: message.source });
            }
            Standing::Own => {}
        }
        bus.member.heard(self.now(), &message, standing, fastrand::f64());
    }

    fn right_to(&self, key: &str) -> Ticket<V> {
        self.flights.ticket(&Arc::from(key), About::of_a_write())
    }

    async fn apply(
        self: &Arc<Self>,
        bus: &BusClient<V>,
        message: &Message<'_>,
        tickets: Vec<Ticket<V>>,
        is_good: bool,
    ) {
        let source = message.source;
        let (keys, pattern): (&[&str], _) = match &message.kind {
            MessageKind::Beacon { .. } => return,
            MessageKind::Delete { keys } | MessageKind::Set { keys, prime: false, .. } => {
                (keys, None)
            }
            MessageKind::Pattern { pattern } => (&[], Some(*pattern)),
            MessageKind::Set { prime: true, .. } => (&[], None),
        };
        self.observer.count(Counter::EventsReceived);
        if !keys.is_empty() || pattern.is_some() {
            self.observer.emit(|| Event::InvalidationReceived { source, keys, pattern });
        }
        // Before memory forgets the key: what is looked up from then on is looked up by their count.
        if let ([key], Some(theirs), Some(l2)) = (keys, message.generation, &self.l2) {
            // mutant counts: remove
            l2.observe_remote(key, theirs);
        }
        match &message.kind {
            MessageKind::Beacon { .. } => {}
            MessageKind::Delete { keys } => {
                for key in keys {
                    self.invalidate_l1(key);
                    self.lock_waiters.wake(key);
                }
            }
            MessageKind::Pattern { pattern } => {
                self.invalidate_l1_matching(&Arc::new(Pattern::new(pattern))).await
            }
            MessageKind::Set { keys, value, ttl_ms, prime, .. } => {
                let value = if is_good { decode(bus, value) } else { None };
                for (key, mut ticket) in keys.iter().zip(tickets) {
                    let kept = match &value {
                        Some(value) => self.receive(&mut ticket, value, *ttl_ms, *prime),
                        None => false,
                    };
                    if kept {
                        self.observer.count(Counter::ValuesReceived);
                        self.observer.emit(|| Event::SetReceived { key, source });
                    } else if !prime {
                        self.invalidate_l1(key);
                    }
                    if !is_good {
                        self.observer.emit(|| Event::InvalidationStale { key, source });
                    }
                    self.lock_waiters.wake(key);
                }
            }
        }
    }

    /// Puts a value of another instance into memory. `false` if it is not kept.
    fn receive(
        &self,
        ticket: &mut Ticket<V>,
        value: &Arc<V>,
        ttl_ms: Option<u64>,
        prime: bool,
    ) -> bool {
        let none = CallOptions::default();
        let own = self.options.l1_lifetime(&none, None, fastrand::f64);
        let ttl = ttl_ms.map_or(own.ttl, |ttl| own.ttl.min(Duration::from_millis(ttl)));
        let key = Arc::clone(ticket.key());
        let Some(entry) = self.entry(&key, value, Lifetime { ttl, ..own }) else { return false };
        let write = || self.l1.insert(&key, entry);
        // A loaded value is a hint, over which a load of our own may still publish. A given one is
        // newer than whatever is being loaded.
        let displaced = if prime { ticket.promote(write) } else { ticket.overwrite(write) };
        let kept = displaced.is_some();
        if let Some(displaced) = displaced {
            self.drop_displaced(displaced);
        }
        kept
    }
}

fn decode<V: 'static>(bus: &BusClient<V>, value: &[u8]) -> Option<Arc<V>> {
    let payload = bus::add_prefix(value)?;
    contained(|| bus.codec.decode(&payload)).ok().map(Arc::new)
}

fn told(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Hole => "events are missing",
        GapReason::PublisherSilent => "an instance fell silent",
        GapReason::Silent => "nothing is heard from anyone",
        GapReason::Joined => "what was told while the subscription began is not known",
        GapReason::Unreadable => "an event could not be read",
        GapReason::TooManyPublishers => "there are more instances than are watched",
    }
}
