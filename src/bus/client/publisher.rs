//! The publisher: one task, which sends the outbox and the beacons, and never gives up.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::{bus_client::BusClient, publish_report::is_refusal, sink::Sink};
use crate::{
    bus::{
        protocol::{
            outbox::AfterRefusal,
            session::{SendAction, Session},
        },
        transport::{Transport, TransportFuture},
    },
    error::{BoxError, HeldError},
    observe::{Counter, Event, Timed, log_bus_publishing_down, log_bus_publishing_up},
    resilience::{Backoff, Elapsed, run_until, timeout},
    time::millis,
};

/// How long a check whether the bus answers may take: longer than the limits of the transports,
/// whose errors say more than a timeout here.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Why a publish did not succeed.
enum Failure {
    /// It may succeed the next time; also if the circuit is open.
    Failed,
    /// The broker would refuse the same message again.
    Refused(HeldError),
}

impl BusClient {
    pub(super) async fn run_publisher<S: Sink>(&self, sink: &S) {
        let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = new_backoff();
        loop {
            // Created before the question, so that no notification after the answer is missed.
            let work = self.work.notified();
            let (now, ts) = (sink.now(), unix_millis());
            let generation = |key: &str| sink.generation(key);
            let action = self.update(sink, |session| session.next_action(now, ts, generation));
            let has_progressed = match action {
                SendAction::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(sink.now())));
                    match wait {
                        Some(wait) => drop(run_until(work, sleep(wait)).await),
                        None => work.await,
                    }
                    continue;
                }
                SendAction::Message(seq, bytes) => {
                    let message = self.transport().publish(&bytes);
                    let sent = self.publish(sink, Some(Timed::Publication), message).await;
                    let now = sink.now();
                    match sent {
                        Ok(()) => {
                            self.report.accepted(sink);
                            self.update(sink, |session| session.on_sent(now, seq));
                            true
                        }
                        Err(Failure::Failed) => {
                            self.update(sink, |session| session.outbox.on_send_failed());
                            false
                        }
                        Err(Failure::Refused(error)) => {
                            let after = self.update(sink, |session| session.outbox.on_refused());
                            self.report.refused(sink, &error, after);
                            after == AfterRefusal::Replaced
                        }
                    }
                }
                SendAction::Beacon(bytes) => {
                    let beacon = self.transport().announce(&bytes);
                    let sent = self.publish(sink, None, beacon).await.is_ok();
                    let now = sink.now();
                    self.session.lock().on_beacon_tried(now, sent, fastrand::f64());
                    sent
                }
            };
            if has_progressed {
                backoff = new_backoff();
            } else {
                self.backoff_until_bus_up(backoff.next(fastrand::f64())).await;
            }
        }
    }

    /// Publishes within the time limit, unless the circuit is open. `timed`: its duration is
    /// recorded as this.
    async fn publish<S: Sink>(
        &self,
        sink: &S,
        timed: Option<Timed>,
        publish: TransportFuture<'_, ()>,
    ) -> Result<(), Failure> {
        let generation = self.generation.load(Ordering::Relaxed);
        let permit = self.breaker.permit(sink.now(), generation).ok_or(Failure::Failed)?;
        let limit = self.options.event_bus.publish_timeout;
        let timer = timed.map(|timed| (timed, sink.observer().start_timer()));
        let published = timeout(Some(limit), publish).await;
        if let Some((timed, timer)) = timer {
            sink.observer().record(timed, timer);
        }
        let late = |Elapsed| Err(BoxError::from(format!("no confirmation within {limit:?}")));
        let Err(error) = published.unwrap_or_else(late) else {
            if permit.succeeded() {
                log_bus_publishing_up(sink.observer().cache());
            }
            return Ok(());
        };
        let error = HeldError::new(error);
        if is_refusal(&error) {
            // Whether the bus works is not known: a transport may refuse by itself.
            drop(permit);
            return Err(Failure::Refused(error));
        }
        sink.observer().count(Counter::BusErrors);
        sink.observer().emit(|| Event::BusPublishError { error: &**error });
        if permit.failed(sink.now()) {
            log_bus_publishing_down(sink.observer().cache(), &error);
        }
        Err(Failure::Failed)
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
    ///
    /// `name` is the key or pattern of the last message. Returns whether messages wait because the
    /// circuit is open, or because the broker refuses all of them.
    pub(super) fn flush<S: Sink>(&self, sink: &S, name: &str) -> bool {
        let transport = self.event_bus.transport();
        if transport.is_immediate() {
            let (now, ts) = (sink.now(), unix_millis());
            let generation = |key: &str| sink.generation(key);
            let next = self.update(sink, |session| session.try_next_action(now, ts, generation));
            if let Some(SendAction::Message(seq, bytes)) = next {
                let mut context = Context::from_waker(Waker::noop());
                let timer = sink.observer().start_timer();
                if let Poll::Ready(Ok(())) = transport.publish(&bytes).as_mut().poll(&mut context) {
                    sink.observer().record(Timed::Publication, timer);
                    let now = sink.now();
                    self.update(sink, |session| session.on_sent(now, seq));
                }
            }
        }
        let is_late =
            |session: &mut Session| (session.is_publisher_late(), session.outbox.is_stuck());
        let (is_late, is_stuck) = self.update(sink, is_late);
        if is_late {
            self.work.notify_one();
        }
        let is_skipped = is_stuck || self.breaker.is_open();
        if is_skipped {
            sink.observer().count(Counter::BusSkipped);
            sink.observer().emit(|| Event::BusPublishSkipped { key: name });
        }
        is_skipped
    }

    /// Sends a beacon that promises no further message.
    pub(super) async fn publish_goodbye<S: Sink>(&self, sink: &S) {
        let goodbye = self.session.lock().goodbye(sink.now(), unix_millis());
        if let Some(bytes) = goodbye {
            let _ = self.transport().announce(&bytes).await;
        }
    }

    fn transport(&self) -> &dyn Transport {
        self.event_bus.transport()
    }

    /// Changes the session, and reports what the outbox has reduced. If messages are published now,
    /// notifies the callers that wait for it.
    fn update<S: Sink, T>(&self, sink: &S, change: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.session.lock();
        let result = change(&mut session);
        let acked = session.outbox.acked();
        let reductions = session.outbox.take_reductions();
        drop(session);
        self.report.reduced(sink, &reductions);
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
