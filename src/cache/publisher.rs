//! What this instance tells the others: taken in by whoever changes something, sent by one loop,
//! which never gives up.
//!
//! Nobody waits for it, unless they want to ([`confirm_deletes`]): a read never does.
//!
//! [`confirm_deletes`]: crate::EventBusOptions::confirm_deletes

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::sleep;

use super::{bus_client::BusClient, state::CacheState};
use crate::{
    bus::{self, Change, SendAction},
    codec::contained,
    error::{BoxError, Error},
    observe::{Counter, Event},
    resilience::{Backoff, Elapsed, has_timer, run_alongside, run_until, timeout},
};

/// How long it may take to ask whether the bus is back: longer than transports' own limits.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// A change that the others will be told, whatever becomes of the call that makes it: dropped
/// before it is told, it is told as a delete.
#[must_use]
pub(super) struct Announcement<'a, V: Send + Sync + 'static> {
    state: &'a Arc<CacheState<V>>,
    name: &'a str,
    is_pattern: bool,
    /// Whether it was told, or is not to be.
    is_over: bool,
    turn: u64,
}

impl<V: Send + Sync + 'static> Announcement<'_, V> {
    /// Nothing has changed.
    pub(super) fn withdraw(mut self) {
        self.end(None);
    }

    /// Tells it: this, or that it was deleted. A value is told in the step that puts it into
    /// memory, so that no later change is told before it: this takes no time and calls no user.
    pub(super) fn tell(&mut self, change: Option<Change>) {
        let name = || Arc::from(self.name);
        let delete =
            || if self.is_pattern { Change::Pattern(name()) } else { Change::Delete(name()) };
        let change = change.unwrap_or_else(delete);
        self.end(Some(change));
    }

    /// If that is wanted, waits until what was told is confirmed.
    ///
    /// # Errors
    ///
    /// That it was not confirmed in time.
    pub(super) async fn confirmed(self) -> Result<(), Error> {
        let Some(bus) = &self.state.bus else { return Ok(()) };
        self.state.hurry(bus);
        let options = &self.state.options.event_bus;
        let is_skipped = bus.breaker.is_open();
        if is_skipped {
            self.state.observer.emit(|| Event::BusPublishSkipped { key: self.name });
        }
        if !options.confirm_deletes {
            return Ok(());
        }
        let unconfirmed = || Error::unconfirmed(self.name);
        // Where nothing tells the time nobody sends either.
        if is_skipped || !has_timer() {
            return Err(unconfirmed());
        }
        let out = timeout(Some(options.publish_timeout), bus.member.is_out(self.turn)).await;
        out.map_err(|Elapsed| unconfirmed())
    }

    fn end(&mut self, told: Option<Change>) {
        self.is_over = true;
        if let Some(bus) = &self.state.bus {
            let now = self.state.now();
            self.turn = bus.member.tell_own(now, self.name, self.is_pattern, told);
        }
    }
}

impl<V: Send + Sync + 'static> Drop for Announcement<'_, V> {
    fn drop(&mut self) {
        // mutant dropped-broadcast: remove
        if !self.is_over {
            self.tell(None);
        }
        if let Some(bus) = &self.state.bus {
            self.state.hurry(bus);
        }
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// To be called before a key is deleted or set in memory.
    pub(super) fn announce<'a>(self: &'a Arc<Self>, key: &'a str) -> Announcement<'a, V> {
        if let Some(bus) = &self.bus {
            // mutant order-own: remove
            bus.member.deleting(self.now(), key);
        }
        self.announcement(key, false)
    }

    /// The same for a pattern.
    pub(super) fn announce_pattern<'a>(self: &'a Arc<Self>, glob: &'a str) -> Announcement<'a, V> {
        if let Some(bus) = &self.bus {
            // mutant order-own: remove
            bus.member.deleting_many();
        }
        self.announcement(glob, true)
    }

    fn announcement<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        is_pattern: bool,
    ) -> Announcement<'a, V> {
        self.ensure_bus_tasks();
        Announcement { state: self, name, is_pattern, is_over: false, turn: 0 }
    }

    /// What a value that is loaded and about to be published has to say for itself, if it is to be
    /// told.
    pub(super) fn causal_context(&self) -> Option<Arc<[u8]>> {
        let bus = self.bus.as_ref().filter(|_| self.options.broadcast_set)?;
        bus.member.seen(self.now())
    }

    /// The change that tells a value that was given, if it is to be told.
    pub(super) fn given(&self, key: &Arc<str>, value: &V, ttl: Duration) -> Option<Change> {
        let seen = self.bus.as_ref()?.member.seen_by_given(self.now());
        if ttl.is_zero() { None } else { self.value_change(key, value, ttl, false, seen) }
    }

    /// The change that tells a value, if it can be told.
    fn value_change(
        &self,
        key: &Arc<str>,
        value: &V,
        ttl: Duration,
        prime: bool,
        seen: Option<Arc<[u8]>>,
    ) -> Option<Change> {
        let bus = self.bus.as_ref().filter(|_| self.options.broadcast_set)?;
        let seen = seen?;
        let payload = contained(|| bus.codec.encode_plain(value)).ok();
        let encoded = payload.as_deref().and_then(bus::strip_prefix);
        let most = self.options.broadcast_set_max_bytes.unwrap_or(usize::MAX);
        let Some(bytes) = encoded.filter(|bytes| bytes.len() <= most) else {
            self.observer.emit(|| Event::SetBroadcastSkipped { key });
            return None;
        };
        self.observer.count(Counter::ValuesSent);
        self.observer.emit(|| Event::SetBroadcast { key, bytes: bytes.len() });
        Some(Change::Value {
            key: Arc::clone(key),
            value: Arc::from(bytes),
            ttl_ms: Some(crate::time::millis(ttl)),
            prime,
            context: Some(seen),
        })
    }

    /// Lets the others have a value that was loaded. `seen` is from before it was published here.
    pub(super) fn broadcast_value(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: &V,
        ttl: Duration,
        seen: Option<Arc<[u8]>>,
    ) {
        let Some(bus) = self.bus.as_ref().filter(|_| !ttl.is_zero()) else { return };
        if let Some(change) = self.value_change(key, value, ttl, true, seen) {
            self.tell_fleet(bus, change);
        }
    }

    /// A delete that the shared level has only now.
    pub(super) fn enqueue(self: &Arc<Self>, change: Change) {
        if let Some(bus) = &self.bus {
            self.tell_fleet(bus, change);
        }
    }

    fn tell_fleet(self: &Arc<Self>, bus: &BusClient<V>, change: Change) {
        self.ensure_bus_tasks();
        bus.member.tell(self.now(), change);
        self.hurry(bus);
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.l2.as_ref()?.version_of(key)
    }

    /// What was told goes out: here and now where that takes no waiting, which spares a task's
    /// turn, else by the task. The beats that follow are the task's too.
    fn hurry(&self, bus: &BusClient<V>) {
        let transport = bus.event_bus.transport();
        if transport.is_immediate()
            && let Some((seq, bytes)) = bus.member.next_at_once(self.now(), |key| self.count(key))
        {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(())) = transport.publish(&bytes).as_mut().poll(&mut context) {
                bus.member.sent_event(self.now(), seq);
            }
        }
        bus.member.rouse();
    }

    pub(super) async fn tell(&self) {
        let Some(bus) = &self.bus else { return };
        let pauses = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut pause = pauses();
        loop {
            let work = bus.member.work.notified();
            let sent = match bus.member.next(self.now(), |key| self.count(key)) {
                SendAction::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
                    match wait {
                        Some(wait) => drop(run_until(work, sleep(wait)).await),
                        None => work.await,
                    }
                    continue;
                }
                SendAction::Event(seq, bytes) => {
                    let sent = self.send(bus, &bytes).await;
                    match sent {
                        true => bus.member.sent_event(self.now(), seq),
                        false => bus.member.failed_event(),
                    }
                    sent
                }
                SendAction::Beacon(bytes) => {
                    let sent = self.send(bus, &bytes).await;
                    bus.member.tried_beacon(self.now(), sent, fastrand::f64());
                    sent
                }
            };
            if sent {
                pause = pauses();
                continue;
            }
            self.wait_for_the_bus(bus, pause.next(fastrand::f64())).await;
        }
    }

    /// Publishes, within its time and behind the breaker.
    async fn send(&self, bus: &BusClient<V>, bytes: &[u8]) -> bool {
        let connection = bus.signs_of_life.load(Ordering::Relaxed);
        let Some(permit) = bus.breaker.permit(self.now(), connection) else { return false };
        let limit = self.options.event_bus.publish_timeout;
        let sent = timeout(Some(limit), bus.event_bus.transport().publish(bytes)).await;
        let late = |Elapsed| Err(BoxError::from(format!("no confirmation within {limit:?}")));
        match sent.unwrap_or_else(late) {
            Ok(()) => {
                permit.succeeded();
                true
            }
            Err(error) => {
                permit.failed(self.now());
                self.observer.count(Counter::BusErrors);
                self.observer.emit(|| Event::BusPublishError { error: &*error });
                false
            }
        }
    }

    /// After a failure: a pause, and while the breaker is open the question whether the bus is
    /// back, so that nothing waits for the rest of the cooldown. A subscription that has begun is
    /// an answer too.
    async fn wait_for_the_bus(&self, bus: &BusClient<V>, pause: Duration) {
        let before = bus.signs_of_life.load(Ordering::Relaxed);
        let is_back = || async {
            let mut work = pin!(bus.member.work.notified());
            loop {
                work.as_mut().await;
                if bus.signs_of_life.load(Ordering::Relaxed) != before {
                    return;
                }
                work.set(bus.member.work.notified());
            }
        };
        if run_until(is_back(), sleep(pause)).await.is_none() && bus.breaker.is_open() {
            // Within the transport's own limits: to connect may take longer than to publish.
            let check = timeout(Some(CHECK_LIMIT), bus.event_bus.transport().ping());
            if let Some(Ok(Ok(()))) = run_until(check, is_back()).await {
                bus.is_alive();
            }
        }
    }

    /// The end, as far as others are concerned: what waits is told, within what is left of the
    /// time; then goodbye.
    pub(super) async fn shutdown_bus(&self, limit: Duration) {
        let Some(bus) = &self.bus else { return };
        let leave = || async {
            let told = async {
                // Nobody may have told it so far: it was changed where there was no runtime.
                match bus.tell_instead() {
                    Some(_turn) => run_alongside(self.tell(), bus.member.all_is_out()).await,
                    None => bus.member.all_is_out().await,
                }
            };
            let _ = timeout(Some(limit), told).await;
            bus.tasks.stop();
            let goodbye = async {
                if let Some(bytes) = bus.member.goodbye() {
                    let _ = bus.event_bus.transport().publish(&bytes).await;
                }
                bus.event_bus.end_use().await
            };
            // What does not get through is noticed by the others as silence.
            let _ = timeout(Some(self.options.event_bus.publish_timeout), goodbye).await;
        };
        bus.left.get_or_init(leave).await;
    }
}
