//! What this instance tells the others: taken in by whoever changes something, sent by one loop,
//! which never gives up.
//!
//! Nobody waits for it, unless they want to ([`confirm_deletes`]): a read never does.
//!
//! [`confirm_deletes`]: crate::EventBusOptions::confirm_deletes

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{fleet::Fleet, shared::Shared};
use crate::{
    bus::{self, Change, Errand},
    codec::contained,
    error::{BoxError, Error},
    observe::{Counter, Event},
    resilience::{Backoff, Late, unless, within},
};

/// How long it may take to ask whether the bus is back: longer than transports' own limits.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// A change that the others will be told, whatever becomes of the call that makes it: dropped
/// before it is [`told`](Self::told), it is told as a delete.
#[must_use]
pub(super) struct Announcement<'a, V: Send + Sync + 'static> {
    shared: &'a Arc<Shared<V>>,
    name: &'a str,
    is_pattern: bool,
    is_told: bool,
}

impl<V: Send + Sync + 'static> Announcement<'_, V> {
    /// Nothing has changed.
    pub(super) fn withdrawn(mut self) {
        self.is_told = true;
    }

    /// Tells it, and if that is wanted waits until it is confirmed.
    ///
    /// # Errors
    ///
    /// That it was not confirmed in time.
    pub(super) async fn told(mut self, change: Option<Change>) -> Result<(), Error> {
        let Some(fleet) = &self.shared.fleet else { return Ok(()) };
        self.is_told = true;
        let turn = self.shared.tell_fleet(fleet, change.unwrap_or_else(|| self.delete()));
        let options = &self.shared.options.event_bus;
        if !options.confirm_deletes {
            return Ok(());
        }
        let unconfirmed = || Error::unconfirmed(self.name);
        if fleet.breaker.is_open() {
            return Err(unconfirmed());
        }
        let out = within(Some(options.publish_timeout), fleet.member.is_out(turn)).await;
        out.map_err(|Late| unconfirmed())
    }

    fn delete(&self) -> Change {
        let name = Arc::from(self.name);
        if self.is_pattern { Change::Pattern(name) } else { Change::Delete(name) }
    }
}

impl<V: Send + Sync + 'static> Drop for Announcement<'_, V> {
    fn drop(&mut self) {
        if let Some(fleet) = self.shared.fleet.as_ref().filter(|_| !self.is_told) {
            self.shared.tell_fleet(fleet, self.delete());
        }
    }
}

impl<V: Send + Sync + 'static> Shared<V> {
    /// To be called before a key is deleted or set in memory.
    pub(super) fn announce<'a>(self: &'a Arc<Self>, key: &'a str) -> Announcement<'a, V> {
        if let Some(fleet) = &self.fleet {
            fleet.member.deleting(self.now(), key);
        }
        Announcement { shared: self, name: key, is_pattern: false, is_told: false }
    }

    /// The same for a pattern.
    pub(super) fn announce_pattern<'a>(self: &'a Arc<Self>, glob: &'a str) -> Announcement<'a, V> {
        if let Some(fleet) = &self.fleet {
            fleet.member.deleting_many();
        }
        Announcement { shared: self, name: glob, is_pattern: true, is_told: false }
    }

    /// What a value that is about to be published has to say for itself, if it is to be told.
    pub(super) fn seen(&self) -> Option<Arc<[u8]>> {
        let fleet = self.fleet.as_ref().filter(|_| self.options.broadcast_set)?;
        fleet.member.seen()
    }

    /// The change that tells a value, if it can be told.
    pub(super) fn value_change(
        &self,
        key: &Arc<str>,
        value: &V,
        ttl: Duration,
        prime: bool,
        seen: Option<Arc<[u8]>>,
    ) -> Option<Change> {
        let fleet = self.fleet.as_ref().filter(|_| self.options.broadcast_set)?;
        let payload = contained(|| fleet.codec.encode_plain(value)).ok();
        let encoded = payload.as_deref().and_then(bus::value_of_payload);
        let most = self.options.broadcast_set_max_bytes.unwrap_or(usize::MAX);
        let Some(bytes) = encoded.filter(|bytes| bytes.len() <= most && seen.is_some()) else {
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
            seen,
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

    fn tell_fleet(self: &Arc<Self>, fleet: &Fleet<V>, change: Change) -> u64 {
        self.meet_the_fleet();
        if fleet.breaker.is_open() {
            let (Change::Delete(key) | Change::Pattern(key) | Change::Value { key, .. }) = &change;
            self.observer.emit(|| Event::BusPublishSkipped { key });
        }
        fleet.member.tell(self.now(), change)
    }

    pub(super) async fn tell(&self) {
        let Some(fleet) = &self.fleet else { return };
        let pauses = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut pause = pauses();
        loop {
            let work = fleet.member.work.notified();
            let sent = match fleet.member.next(self.now()) {
                Errand::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
                    match wait {
                        Some(wait) => drop(unless(sleep(wait), work).await),
                        None => work.await,
                    }
                    continue;
                }
                Errand::Event(bytes) => {
                    let sent = self.send(fleet, &bytes).await;
                    match sent {
                        true => fleet.member.sent_event(self.now()),
                        false => fleet.member.failed_event(),
                    }
                    sent
                }
                Errand::Beacon(bytes) => {
                    let sent = self.send(fleet, &bytes).await;
                    fleet.member.sent_beacon(self.now(), fastrand::f64());
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
        let sent = within(Some(limit), fleet.bus.transport().publish(bytes)).await;
        let late = |Late| Err(BoxError::from(format!("no confirmation within {limit:?}")));
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
            let check = within(Some(CHECK_LIMIT), fleet.bus.transport().check());
            if let Some(Ok(Ok(()))) = unless(is_back(), check).await {
                fleet.is_alive();
            }
        }
    }

    /// The end: what waits is told, within what is left of the time; then goodbye.
    pub(super) async fn leave_the_fleet(&self, limit: Duration) {
        let Some(fleet) = &self.fleet else { return };
        let leave = || async {
            let _ = within(Some(limit), fleet.member.all_is_out()).await;
            fleet.tasks.stop();
            let transport = fleet.bus.transport();
            let goodbye = async {
                if let Some(bytes) = fleet.member.goodbye()
                    && fleet.member.waiting() == 0
                {
                    transport.publish(&bytes).await?;
                }
                transport.disconnect().await
            };
            // What does not get through is noticed by the others as silence.
            let _ = within(Some(self.options.event_bus.publish_timeout), goodbye).await;
        };
        fleet.left.get_or_init(leave).await;
    }
}
