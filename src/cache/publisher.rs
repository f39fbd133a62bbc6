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

use super::{bus_client::Fleet, state::Shared};
use crate::{
    bus::{self, Change, SendAction},
    codec::contained,
    error::{BoxError, Error},
    observe::{Counter, Event},
    resilience::{Backoff, Elapsed, has_timer, run_alongside, timeout, unless},
};

/// How long it may take to ask whether the bus is back: longer than transports' own limits.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// A change that the others will be told, whatever becomes of the call that makes it: dropped
/// before it is told, it is told as a delete.
#[must_use]
pub(super) struct Announcement<'a, V: Send + Sync + 'static> {
    shared: &'a Arc<Shared<V>>,
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
        let Some(fleet) = &self.shared.fleet else { return Ok(()) };
        self.shared.hurry(fleet);
        let options = &self.shared.options.event_bus;
        let is_skipped = fleet.breaker.is_open();
        if is_skipped {
            self.shared.observer.emit(|| Event::BusPublishSkipped { key: self.name });
        }
        if !options.confirm_deletes {
            return Ok(());
        }
        let unconfirmed = || Error::unconfirmed(self.name);
        // Where nothing tells the time nobody sends either.
        if is_skipped || !has_timer() {
            return Err(unconfirmed());
        }
        let out = timeout(Some(options.publish_timeout), fleet.member.is_out(self.turn)).await;
        out.map_err(|Elapsed| unconfirmed())
    }

    fn end(&mut self, told: Option<Change>) {
        self.is_over = true;
        if let Some(fleet) = &self.shared.fleet {
            let now = self.shared.now();
            self.turn = fleet.member.tell_own(now, self.name, self.is_pattern, told);
        }
    }
}

impl<V: Send + Sync + 'static> Drop for Announcement<'_, V> {
    fn drop(&mut self) {
        if !self.is_over {
            self.tell(None);
        }
        if let Some(fleet) = &self.shared.fleet {
            self.shared.hurry(fleet);
        }
    }
}

impl<V: Send + Sync + 'static> Shared<V> {
    /// To be called before a key is deleted or set in memory.
    pub(super) fn announce<'a>(self: &'a Arc<Self>, key: &'a str) -> Announcement<'a, V> {
        if let Some(fleet) = &self.fleet {
            fleet.member.deleting(self.now(), key);
        }
        self.announcement(key, false)
    }

    /// The same for a pattern.
    pub(super) fn announce_pattern<'a>(self: &'a Arc<Self>, glob: &'a str) -> Announcement<'a, V> {
        if let Some(fleet) = &self.fleet {
            fleet.member.deleting_many();
        }
        self.announcement(glob, true)
    }

    fn announcement<'a>(
        self: &'a Arc<Self>,
        name: &'a str,
        is_pattern: bool,
    ) -> Announcement<'a, V> {
        self.meet_the_fleet();
        Announcement { shared: self, name, is_pattern, is_over: false, turn: 0 }
    }

    /// What a value that is loaded and about to be published has to say for itself, if it is to be
    /// told.
    pub(super) fn seen(&self) -> Option<Arc<[u8]>> {
        let fleet = self.fleet.as_ref().filter(|_| self.options.broadcast_set)?;
        fleet.member.seen(self.now())
    }

    /// The change that tells a value that was given, if it is to be told.
    pub(super) fn given(&self, key: &Arc<str>, value: &V, ttl: Duration) -> Option<Change> {
        let seen = self.fleet.as_ref()?.member.seen_by_given(self.now());
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
        let fleet = self.fleet.as_ref().filter(|_| self.options.broadcast_set)?;
        let seen = seen?;
        let payload = contained(|| fleet.codec.encode_plain(value)).ok();
        let encoded = payload.as_deref().and_then(bus::value_of_payload);
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
            seen: Some(seen),
        })
    }

    /// Lets the others have a value that was loaded. `seen` is from before it was published here.
    pub(super) fn prime_fleet(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: &V,
        ttl: Duration,
        seen: Option<Arc<[u8]>>,
    ) {
        let Some(fleet) = self.fleet.as_ref().filter(|_| !ttl.is_zero()) else { return };
        if let Some(change) = self.value_change(key, value, ttl, true, seen) {
            self.tell_fleet(fleet, change);
        }
    }

    /// A delete that the shared level has only now.
    pub(super) fn tell_again(self: &Arc<Self>, change: Change) {
        if let Some(fleet) = &self.fleet {
            self.tell_fleet(fleet, change);
        }
    }

    fn tell_fleet(self: &Arc<Self>, fleet: &Fleet<V>, change: Change) {
        self.meet_the_fleet();
        fleet.member.tell(self.now(), change);
        self.hurry(fleet);
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.l2.as_ref()?.count(key)
    }

    /// What was told goes out: here and now where that takes no waiting, which spares a task's
    /// turn, else by the task. The beats that follow are the task's too.
    fn hurry(&self, fleet: &Fleet<V>) {
        let transport = fleet.bus.transport();
        if transport.is_immediate()
            && let Some((seq, bytes)) = fleet.member.next_at_once(self.now(), |key| self.count(key))
        {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(())) = transport.publish(&bytes).as_mut().poll(&mut context) {
                fleet.member.sent_event(self.now(), seq);
            }
        }
        fleet.member.rouse();
    }

    pub(super) async fn tell(&self) {
        let Some(fleet) = &self.fleet else { return };
        let pauses = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut pause = pauses();
        loop {
            let work = fleet.member.work.notified();
            let sent = match fleet.member.next(self.now(), |key| self.count(key)) {
                SendAction::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
                    match wait {
                        Some(wait) => drop(unless(sleep(wait), work).await),
                        None => work.await,
                    }
                    continue;
                }
                SendAction::Event(seq, bytes) => {
                    let sent = self.send(fleet, &bytes).await;
                    match sent {
                        true => fleet.member.sent_event(self.now(), seq),
                        false => fleet.member.failed_event(),
                    }
                    sent
                }
                SendAction::Beacon(bytes) => {
                    let sent = self.send(fleet, &bytes).await;
                    fleet.member.tried_beacon(self.now(), sent, fastrand::f64());
                    sent
                }
            };
            if sent {
                pause = pauses();
                continue;
            }
            self.wait_for_the_bus(fleet, pause.next(fastrand::f64())).await;
        }
    }

    /// Publishes, within its time and behind the breaker.
    async fn send(&self, fleet: &Fleet<V>, bytes: &[u8]) -> bool {
        let connection = fleet.signs_of_life.load(Ordering::Relaxed);
        let Some(permit) = fleet.breaker.permit(self.now(), connection) else { return false };
        let limit = self.options.event_bus.publish_timeout;
        let sent = timeout(Some(limit), fleet.bus.transport().publish(bytes)).await;
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
    async fn wait_for_the_bus(&self, fleet: &Fleet<V>, pause: Duration) {
        let before = fleet.signs_of_life.load(Ordering::Relaxed);
        let is_back = || async {
            let mut work = pin!(fleet.member.work.notified());
            loop {
                work.as_mut().await;
                if fleet.signs_of_life.load(Ordering::Relaxed) != before {
                    return;
                }
                work.set(fleet.member.work.notified());
            }
        };
        if unless(sleep(pause), is_back()).await.is_none() && fleet.breaker.is_open() {
            // Within the transport's own limits: to connect may take longer than to publish.
            let check = timeout(Some(CHECK_LIMIT), fleet.bus.transport().check());
            if let Some(Ok(Ok(()))) = unless(is_back(), check).await {
                fleet.is_alive();
            }
        }
    }

    /// The end, as far as others are concerned: what waits is told, within what is left of the
    /// time; then goodbye.
    pub(super) async fn leave_the_fleet(&self, limit: Duration) {
        let Some(fleet) = &self.fleet else { return };
        let leave = || async {
            let told = async {
                // Nobody may have told it so far: it was changed where there was no runtime.
                match fleet.tell_instead() {
                    Some(_turn) => run_alongside(self.tell(), fleet.member.all_is_out()).await,
                    None => fleet.member.all_is_out().await,
                }
            };
            let _ = timeout(Some(limit), told).await;
            fleet.tasks.stop();
            let goodbye = async {
                if let Some(bytes) = fleet.member.goodbye() {
                    let _ = fleet.bus.transport().publish(&bytes).await;
                }
                fleet.bus.end_use().await
            };
            // What does not get through is noticed by the others as silence.
            let _ = timeout(Some(self.options.event_bus.publish_timeout), goodbye).await;
        };
        fleet.left.get_or_init(leave).await;
    }
}
