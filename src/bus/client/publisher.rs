//! The publisher: one task, which sends the outbox and the beacons, and never gives up.

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use super::{
    bus_client::BusClient, bus_session::BusSession, member::Member, publish_report::is_refusal,
};
use crate::{
    bus::{
        protocol::{
            outbox::AfterRefusal,
            session::{SendAction, Session},
        },
        transport::{Transport, TransportFuture},
        wire::namespace::CacheId,
    },
    error::{BoxError, HeldError},
    observe::{Counter, Event, RequestSpan, Timed, log_bus_publishing_down, log_bus_publishing_up},
    resilience::{Backoff, Elapsed, run_until, timeout},
    time::millis,
};

/// How long a check whether the bus answers may take: longer than the limits of the transports,
/// whose errors say more than a timeout here.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Returns the generation of a key of a cache.
type Generation<'a> = dyn FnMut(CacheId, &str) -> Option<u64> + 'a;

/// Why a publish did not succeed.
enum Failure {
    /// It may succeed the next time; also if the circuit is open.
    Failed,
    /// The broker would refuse the same message again.
    Refused(HeldError),
}

impl BusSession {
    pub(super) async fn run_publisher(&self) {
        let new_backoff = || Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = new_backoff();
        loop {
            // Created before the question, so that no notification after the answer is missed.
            let work = self.work.notified();
            let has_progressed = match self
                .next_action(|it, now, ts, of| it.next_action(now, ts, of))
            {
                SendAction::Wait(until) => {
                    let wait = until.map(|at| Duration::from_millis(at.saturating_sub(self.now())));
                    match wait {
                        Some(wait) => drop(run_until(work, sleep(wait)).await),
                        None => work.await,
                    }
                    continue;
                }
                SendAction::Message(cache, seq, bytes) => {
                    // `None`: the cache has left, and its message must be published all the same.
                    let member = self.member(cache);
                    let members = member.as_slice();
                    let message = self.transport().publish(&bytes);
                    let sent = self.publish(members, Some(Timed::Publication), message).await;
                    let now = self.now();
                    match sent {
                        Ok(()) => {
                            members.iter().for_each(|it| self.report.accepted(&it.observer));
                            self.update(|session| session.on_sent(now, seq));
                            true
                        }
                        Err(Failure::Failed) => {
                            self.update(Session::on_send_failed);
                            false
                        }
                        Err(Failure::Refused(error)) => {
                            let after = self.update(Session::on_refused);
                            for member in members {
                                self.report.refused(&member.observer, now, &error, after);
                            }
                            after == AfterRefusal::Replaced
                        }
                    }
                }
                SendAction::Beacon(bytes) => {
                    let members = self.members();
                    let beacon = self.transport().announce(&bytes);
                    let sent = self.publish(&members, None, beacon).await.is_ok();
                    let now = self.now();
                    self.protocol.lock().on_beacon_tried(now, sent, fastrand::f64());
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

    /// Asks the protocol what to send.
    fn next_action<T>(
        &self,
        ask: impl FnOnce(&mut Session, u64, u64, &mut Generation<'_>) -> T,
    ) -> T {
        let (now, ts) = (self.now(), unix_millis());
        // Dropped after the lock: the last owner of a cache drops the values of its user.
        let mut held = Vec::new();
        let mut generation = |cache: CacheId, key: &str| {
            let member = self.member(cache).filter(|member| member.sends_generations)?;
            let receiver = member.receiver.upgrade()?;
            let generation = receiver.generation(key);
            held.push(receiver);
            generation
        };
        self.update(|session| ask(session, now, ts, &mut generation))
    }

    /// Publishes within the time limit, unless the circuit is open. A failure is reported to these
    /// caches. `timed`: the first of them records the duration as this.
    async fn publish(
        &self,
        members: &[Arc<Member>],
        timed: Option<Timed>,
        publish: TransportFuture<'_, ()>,
    ) -> Result<(), Failure> {
        let generation = self.generation.load(Ordering::Relaxed);
        let permit = self.breaker.permit(self.now(), generation).ok_or(Failure::Failed)?;
        let limit = self.options.publish_timeout;
        let timed = timed.zip(members.first());
        let span = timed.map(|(_, member)| RequestSpan::of_publication(member.observer.cache()));
        let timer = timed.map(|(timed, member)| (timed, member, member.observer.start_timer()));
        let publish = timeout(Some(limit), publish);
        let published = match span {
            Some(span) => span.run(publish).await,
            None => publish.await,
        };
        if let Some((timed, member, timer)) = timer {
            member.observer.record(timed, timer);
        }
        let late = |Elapsed| Err(BoxError::from(format!("no confirmation within {limit:?}")));
        let Err(error) = published.unwrap_or_else(late) else {
            if permit.succeeded() {
                log_bus_publishing_up(self.log_name().as_deref());
            }
            return Ok(());
        };
        let error = HeldError::new(error);
        if is_refusal(&error) {
            // Whether the bus works is not known: a transport may refuse by itself.
            drop(permit);
            return Err(Failure::Refused(error));
        }
        let event = || Event::BusPublishError { error: &**error };
        Self::report_to(members, Some(Counter::BusErrors), event);
        if permit.failed(self.now()) {
            log_bus_publishing_down(self.log_name().as_deref(), &error);
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

    /// Sends the next message in the caller's thread if the transport never waits, else by waking
    /// the publisher. Returns whether messages wait because the circuit is open, or because the
    /// broker refuses all of them.
    ///
    /// Alternatives considered: always waking the publisher. Within one process, the switch to its
    /// task takes longer than the message.
    fn flush(&self) -> bool {
        let transport = self.transport();
        let state = |session: &Session| (session.is_publisher_late(), session.is_stuck());
        let mut after = None;
        if transport.is_immediate() {
            let next = self.next_action(|it, now, ts, of| it.try_next_action(now, ts, of));
            if let Some(SendAction::Message(cache, seq, bytes)) = next {
                let mut context = Context::from_waker(Waker::noop());
                let member = self.member(cache);
                let cache = member.as_ref().and_then(|member| member.observer.cache());
                let span = RequestSpan::of_publication(cache);
                let timer = member.as_ref().map(|member| (member.observer.start_timer(), member));
                let published =
                    span.in_scope(|| transport.publish(&bytes).as_mut().poll(&mut context));
                if let Poll::Ready(Ok(())) = published {
                    if let Some((timer, member)) = timer {
                        member.observer.record(Timed::Publication, timer);
                    }
                    let now = self.now();
                    after = Some(self.update(|session| {
                        session.on_sent(now, seq);
                        state(session)
                    }));
                }
            }
        }
        let (is_late, is_stuck) = after.unwrap_or_else(|| self.update(|session| state(session)));
        if is_late {
            self.work.notify_one();
        }
        is_stuck || self.breaker.is_open()
    }

    /// Sends a beacon that promises no further message.
    pub(super) async fn publish_goodbye(&self) {
        let now = self.now();
        let goodbye = self.protocol.lock().goodbye(now, unix_millis());
        if let Some(bytes) = goodbye {
            let _ = self.transport().announce(&bytes).await;
        }
    }

    fn transport(&self) -> &dyn Transport {
        self.event_bus.transport()
    }

    /// Changes the protocol's state, and reports what the outboxes have reduced. If messages are
    /// published now, notifies the callers that wait for it.
    fn update<T>(&self, change: impl FnOnce(&mut Session) -> T) -> T {
        let mut session = self.protocol.lock();
        let result = change(&mut session);
        let reports = session.take_reports();
        drop(session);
        for report in reports {
            if let Some(member) = self.member(report.cache) {
                member.on_report(self.now(), &report);
            }
        }
        result
    }
}

impl BusClient {
    /// Has the next message sent. `name` is the key or pattern of the last message. Returns whether
    /// messages wait because the circuit is open, or because the broker refuses all of them.
    pub(super) fn flush(&self, name: &str) -> bool {
        let is_skipped = self.session.flush();
        if is_skipped {
            self.member.observer.count(Counter::BusSkipped);
            self.member.observer.emit(|| Event::BusPublishSkipped { key: name });
        }
        is_skipped
    }
}

/// Milliseconds since 1970.
fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
