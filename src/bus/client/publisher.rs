//! The publisher: one task, which sends the outbox and the beacons, and never gives up.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::{bus_client::BusClient, sink::Sink};
use crate::{
    bus::protocol::session::{SendAction, Session},
    error::BoxError,
    observe::{Counter, Event},
    resilience::{Backoff, Elapsed, run_until, timeout},
    time::millis,
};

/// How long a check whether the bus answers may take: longer than the limits of the transports,
/// whose errors say more than a timeout here.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

impl BusClient {
    pub(super) async fn run_publisher<S: Sink>(&self, sink: &S) {
        let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = new_backoff();
        loop {
            // Created before the question, so that no notification after the answer is missed.
            let work = self.work.notified();
            let (now, ts) = (sink.now(), unix_millis());
            let generation = |key: &str| sink.generation(key);
            let action = self.update(|session| session.next_action(now, ts, generation));
            let sent = match action {
                SendAction::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(sink.now())));
                    match wait {
                        Some(wait) => drop(run_until(work, sleep(wait)).await),
                        None => work.await,
                    }
                    continue;
                }
                SendAction::Message(seq, bytes) => {
                    let sent = self.publish(sink, &bytes).await;
                    let now = sink.now();
                    match sent {
                        true => self.update(|session| session.on_sent(now, seq)),
                        false => self.session.lock().outbox.on_send_failed(),
                    }
                    sent
                }
                SendAction::Beacon(bytes) => {
                    let sent = self.publish(sink, &bytes).await;
                    let now = sink.now();
                    self.session.lock().on_beacon_tried(now, sent, fastrand::f64());
                    sent
                }
            };
            if sent {
                backoff = new_backoff();
            } else {
                self.backoff_until_bus_up(backoff.next(fastrand::f64())).await;
            }
        }
    }

    /// Publishes bytes within the time limit, unless the circuit is open. Returns whether the
    /// transport accepted them.
    async fn publish<S: Sink>(&self, sink: &S, bytes: &[u8]) -> bool {
        let generation = self.generation.load(Ordering::Relaxed);
        let Some(permit) = self.breaker.permit(sink.now(), generation) else { return false };
        let limit = self.options.event_bus.publish_timeout;
        let published = timeout(Some(limit), self.event_bus.transport().publish(bytes)).await;
        let late = |Elapsed| Err(BoxError::from(format!("no confirmation within {limit:?}")));
        let Err(error) = published.unwrap_or_else(late) else {
            permit.succeeded();
            return true;
        };
        permit.failed(sink.now());
        sink.observer().count(Counter::BusErrors);
        sink.observer().emit(|| Event::BusPublishError { error: &*error });
        false
    }

    /// Waits after a failure, and while the circuit is open then checks whether the bus answers, so
    /// that messages do not wait for the rest of the cooldown. A subscription that begins ends
    /// the wait too.
    async fn backoff_until_bus_up(&self, pause: Duration) {
        let before = self.generation.load(Ordering::Relaxed);
        let is_up = || async {
            while self.generation.load(Ordering::Relaxed) == before {
                self.work.notified().await;
            }
        };
        if run_until(is_up(), sleep(pause)).await.is_none() && self.breaker.is_open() {
            let check = timeout(Some(CHECK_LIMIT), self.event_bus.transport().ping());
            if let Some(Ok(Ok(()))) = run_until(check, is_up()).await {
                self.on_bus_answered();
            }
        }
    }

    /// Sends the next message of the outbox: in the caller's thread if the transport never waits,
    /// else by waking the publisher.
    ///
    /// Alternatives considered: always waking the publisher. Within one process, the switch to its
    /// task takes longer than the message.
    pub(super) fn flush<S: Sink>(&self, sink: &S) {
        let transport = self.event_bus.transport();
        if transport.is_immediate() {
            let (now, ts) = (sink.now(), unix_millis());
            let generation = |key: &str| sink.generation(key);
            let next = self.update(|session| session.try_next_action(now, ts, generation));
            if let Some(SendAction::Message(seq, bytes)) = next {
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(Ok(())) = transport.publish(&bytes).as_mut().poll(&mut context) {
                    let now = sink.now();
                    self.update(|session| session.on_sent(now, seq));
                }
            }
        }
        if self.session.lock().is_publisher_late() {
            self.work.notify_one();
        }
    }

    /// Publishes a beacon that promises no further message.
    pub(super) async fn publish_goodbye(&self) {
        let goodbye = self.session.lock().goodbye(unix_millis());
        if let Some(bytes) = goodbye {
            let _ = self.event_bus.transport().publish(&bytes).await;
        }
    }

    /// Changes the session. If messages are published now, notifies the callers that wait for it.
    fn update<T>(&self, change: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.lock();
        let result = change(&mut session);
        let acked = session.outbox.acked();
        drop(session);
        if self.acked.fetch_max(acked, Ordering::SeqCst) < acked {
            self.acked_changed.notify_waiters();
        }
        result
    }

    /// Waits until enough of the outbox was published.
    pub(super) async fn wait_published(&self, is_enough: impl Fn(&Session) -> bool) {
        loop {
            // Created before the check, so that no notification after the check is missed.
            let changed = self.acked_changed.notified();
            if is_enough(&self.session.lock()) {
                return;
            }
            changed.await;
        }
    }
}

/// Milliseconds since 1970.
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
