//! The instances that a cache shares a bus with: what belongs to that, and the two tasks of it.
//! (`listen.rs` hears, `tell.rs` tells.)
//!
//! The tasks begin with the first call that has to leave memory, because a cache is built without
//! a runtime; and begin anew if the runtime that they were on has shut down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, OnceCell, watch},
};

use super::{state::CacheState, trust::Trust};
use crate::resilience::task_tracker::TaskTracker;
use crate::{
    bus::{BusSession, EventBus, SessionConfig},
    codec::Codec,
    error::Error,
    observe::BusHealth,
    options::CacheOptions,
    resilience::{Breaker, Elapsed, has_timer, run_until, timeout},
    time::millis,
};

pub(super) struct BusClient<V> {
    pub(super) event_bus: EventBus,
    pub(super) codec: Arc<dyn Codec<V>>,
    pub(super) member: BusSession,
    pub(super) trust: Trust,
    pub(super) breaker: Breaker,
    /// Raised whenever the bus shows that it is back, so that the breaker lets through at once.
    pub(super) signs_of_life: AtomicU64,
    /// Whether there is a subscription.
    pub(super) subscribed: watch::Sender<bool>,
    /// The two tasks. Ended by `close`, and by the last handle's drop.
    pub(super) tasks: TaskTracker,
    /// Told when the cache is closed.
    pub(super) closed: Notify,
    /// The end of it all, once.
    pub(super) left: OnceCell<()>,
    listens: AtomicBool,
    tells: AtomicBool,
}

impl<V> BusClient<V> {
    pub(super) fn new(
        event_bus: EventBus,
        codec: Arc<dyn Codec<V>>,
        options: &CacheOptions,
        tells_counts: bool,
        tasks: TaskTracker,
    ) -> Self {
        let (events, breaker) = (&options.event_bus, &options.event_bus_circuit_breaker);
        let manner = SessionConfig {
            source: options.source.clone(),
            namespace: events.namespace.clone(),
            trust_timeout: millis(events.trust_timeout),
            dedupe_entries: options.event_dedupe.max_entries,
            dedupe_ttl: millis(options.event_dedupe.ttl),
            outbox_entries: events.outbox_max_entries,
            outbox_bytes: events.outbox_max_bytes,
            tells_counts,
        };
        event_bus.begin_use();
        let trust = options.subscribe_to_events.then(|| millis(events.trust_timeout));
        Self {
            event_bus,
            codec,
            member: BusSession::new(manner),
            trust: Trust::new(trust),
            breaker: Breaker::new(breaker.failure_threshold, millis(breaker.cooldown)),
            signs_of_life: AtomicU64::new(0),
            subscribed: watch::Sender::new(false),
            tasks,
            closed: Notify::new(),
            left: OnceCell::new(),
            listens: AtomicBool::new(false),
            tells: AtomicBool::new(false),
        }
    }

    pub(super) fn is_alive(&self) {
        self.signs_of_life.fetch_add(1, Ordering::Relaxed);
        // Who waits to publish again need not wait for longer.
        self.member.work.notify_one();
    }

    /// The place of who tells, if there is nobody; left when it is dropped.
    pub(super) fn tell_instead(&self) -> Option<Telling<'_>> {
        let is_free = !self.tells.swap(true, Ordering::SeqCst);
        is_free.then_some(Telling(&self.tells))
    }

    pub(super) fn health(&self, now: u64) -> BusHealth {
        BusHealth {
            transport: self.event_bus.transport().name(),
            subscribed: *self.subscribed.borrow(),
            trusted: self.trust.is_valid(now),
            publishing_skipped: self.breaker.is_open(),
            waiting: self.member.waiting(),
        }
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Sees to it that the two tasks run. To be called by whatever leaves memory.
    pub(super) fn ensure_bus_tasks(self: &Arc<Self>) {
        let Some(bus) = &self.bus else { return };
        let is_running = |task: &AtomicBool| task.load(Ordering::Relaxed);
        let listens = !self.options.subscribe_to_events || is_running(&bus.listens);
        if listens && is_running(&bus.tells) || self.check_open().is_err() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !has_timer() {
            return;
        }
        if !listens && !bus.listens.swap(true, Ordering::SeqCst) {
            let ended = Ended(Arc::clone(self), |bus| &bus.listens);
            let token = bus.tasks.token();
            runtime.spawn(token.run(async move { ended.0.listen().await }));
        }
        if !bus.tells.swap(true, Ordering::SeqCst) {
            let ended = Ended(Arc::clone(self), |bus| &bus.tells);
            let token = bus.tasks.token();
            runtime.spawn(token.run(async move { ended.0.tell().await }));
        }
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), Error> {
        self.check_open()?;
        self.ensure_bus_tasks();
        if let Some(bus) = self.bus.as_ref().filter(|_| self.options.subscribe_to_events) {
            let mut subscribed = bus.subscribed.subscribe();
            if !has_timer() {
                return Err(Error::cannot_listen());
            }
            loop {
                // Ended by the close of the cache, which stops the task that would say so.
                let closed = bus.closed.notified();
                self.check_open()?;
                let begun = subscribed.wait_for(|subscribed| *subscribed);
                match timeout(Some(LOOK), run_until(begun, closed)).await {
                    // Whoever listened may have gone with its runtime.
                    Err(Elapsed) => self.ensure_bus_tasks(),
                    Ok(_) => break,
                }
            }
        }
        self.check_open()
    }
}

/// How long to wait for a subscription before it is looked whether anybody sees to it.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct Telling<'a>(&'a AtomicBool);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Lets the next task begin, however this one ended.
struct Ended<V: Send + Sync + 'static>(Arc<CacheState<V>>, fn(&BusClient<V>) -> &AtomicBool);

impl<V: Send + Sync + 'static> Drop for Ended<V> {
    fn drop(&mut self) {
        if let Some(bus) = &self.0.bus {
            (self.1)(bus).store(false, Ordering::SeqCst);
        }
    }
}
