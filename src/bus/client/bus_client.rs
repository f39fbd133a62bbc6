//! The bus client: what it consists of, and the start and the end of its two tasks.
//!
//! The tasks start with the first call that leaves L1, because a cache can be built outside a
//! runtime; and again when the runtime that they ran on was shut down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, OnceCell, watch},
};

use super::{log_timer::LogTimer, publish_report::PublishReport, sink::Sink, trust::Trust};
use crate::{
    bus::{
        event_bus::{BusUse, EventBus},
        protocol::session::Session,
        wire::namespace::Namespace,
    },
    error::{Cause, Error},
    observe::BusHealth,
    options::CacheOptions,
    resilience::{
        Breaker, DropGuard, Elapsed, has_timer, run_alongside, run_until,
        task_tracker::TaskTracker, timeout,
    },
    time::millis,
};

/// After this time without a subscription, [`BusClient::ready`] checks that the subscriber runs.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct BusClient {
    pub(super) event_bus: EventBus,
    in_use: Mutex<Option<BusUse>>,
    pub(super) session: Mutex<Session>,
    /// Notified when there is something to send; the publisher waits for it.
    pub(super) work: Notify,
    /// Notified when a probe is due earlier; the prober waits for it.
    pub(super) probe_due: Notify,
    /// The outbox position below which every message was published.
    pub(super) acked: AtomicU64,
    /// Notified when `acked` rises.
    ///
    /// Alternatives considered: `tokio::sync::watch`, which wakes its waiters in random order, so
    /// that a simulation could not be repeated.
    pub(super) acked_changed: Notify,
    pub(crate) trust: Trust,
    pub(super) breaker: Breaker,
    pub(super) report: PublishReport,
    /// When a gap was logged.
    pub(super) gap_logged: LogTimer,
    /// Raised by each sign that the bus answers again, so that the breaker admits a call at once.
    pub(super) generation: AtomicU64,
    pub(super) subscribed: watch::Sender<bool>,
    pub(super) options: CacheOptions,
    pub(super) namespace: Namespace,
    /// The two tasks. Stopped by [`shutdown`](Self::shutdown), and when the last handle of the
    /// cache is dropped.
    pub(crate) tasks: TaskTracker,
    subscriber: TaskFlag,
    publisher: TaskFlag,
    closed: AtomicBool,
    /// Notified by [`close`](Self::close); callers of [`ready`](Self::ready) wait for it.
    closing: Notify,
    shutdown_once: OnceCell<()>,
    /// The runtime of the tasks that started last.
    runtime: Mutex<Option<Handle>>,
}

impl BusClient {
    pub(crate) fn new(
        event_bus: EventBus,
        options: &CacheOptions,
        sends_generations: bool,
        tasks: TaskTracker,
    ) -> Self {
        let breaker = &options.event_bus_circuit_breaker;
        let random = || format!("{:016x}", fastrand::u64(..));
        let incarnation = random();
        let source = options.instance_id.clone().unwrap_or_else(random);
        let trust_timeout = millis(options.event_bus.trust_timeout);
        Self {
            in_use: Mutex::new(Some(event_bus.begin_use(options.name.as_deref()))),
            event_bus,
            session: Mutex::new(Session::new(&incarnation, source, options, sends_generations)),
            work: Notify::new(),
            probe_due: Notify::new(),
            acked: AtomicU64::new(0),
            acked_changed: Notify::new(),
            trust: Trust::new(options.subscribe_to_events.then_some(trust_timeout)),
            breaker: Breaker::new(breaker.failure_threshold, millis(breaker.cooldown)),
            report: PublishReport::default(),
            gap_logged: LogTimer::default(),
            generation: AtomicU64::new(0),
            subscribed: watch::Sender::new(false),
            options: options.clone(),
            namespace: Namespace::new(options.name.as_deref(), options.event_bus.accept_unnamed),
            tasks,
            subscriber: TaskFlag::default(),
            publisher: TaskFlag::default(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            shutdown_once: OnceCell::new(),
            runtime: Mutex::new(None),
        }
    }

    pub(crate) fn health(&self, now: u64) -> BusHealth {
        let session = self.session.lock();
        let (waiting, publishing_refused) = (session.outbox.len(), session.outbox.is_stuck());
        drop(session);
        BusHealth {
            transport: self.event_bus.transport().name(),
            subscribed: *self.subscribed.borrow(),
            trusted: self.trust.is_valid(now),
            publishing_skipped: self.breaker.is_open(),
            publishing_refused,
            waiting,
        }
    }

    /// The number of invalidations that were not published.
    pub(crate) fn unpublished(&self) -> usize {
        self.session.lock().outbox.unpublished()
    }

    /// Starts the subscriber and the publisher, unless they run. To be called by each call of the
    /// cache that leaves L1. Does nothing outside a runtime, or after [`close`](Self::close).
    pub(crate) fn ensure_tasks<S: Sink>(self: &Arc<Self>, sink: &Arc<S>) {
        let subscribes = self.options.subscribe_to_events && !self.subscriber.is_set();
        if !subscribes && self.publisher.is_set() || self.closed.load(Ordering::Acquire) {
            return;
        }
        let runtime = Handle::try_current().ok().filter(|_| has_timer());
        let Some(runtime) = runtime else { return };
        *self.runtime.lock() = Some(runtime.clone());
        if subscribes && let Some(claim) = self.subscriber.try_claim() {
            let (client, sink) = (Arc::clone(self), Arc::clone(sink));
            runtime.spawn(self.tasks.token().run(async move {
                client.run_subscriber(&sink).await;
                drop(claim);
            }));
        }
        if let Some(claim) = self.publisher.try_claim() {
            let (client, sink) = (Arc::clone(self), Arc::clone(sink));
            runtime.spawn(self.tasks.token().run(async move {
                client.run_publisher(&*sink).await;
                drop(claim);
            }));
        }
    }

    /// Waits until the first probe of a subscription is back; returns at once if the cache does not
    /// subscribe, or was closed.
    ///
    /// # Errors
    ///
    /// There is no runtime with a timer, so that the client cannot subscribe.
    pub(crate) async fn ready<S: Sink>(self: &Arc<Self>, sink: &Arc<S>) -> Result<(), Error> {
        self.ensure_tasks(sink);
        if !self.options.subscribe_to_events {
            return Ok(());
        }
        let mut subscribed = self.subscribed.subscribe();
        if !has_timer() {
            return Err(Error::without_key(Cause::NoRuntime));
        }
        loop {
            // Created before the check, so that no close after the check is missed.
            let closing = self.closing.notified();
            if self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            let begun = subscribed.wait_for(|subscribed| *subscribed);
            match timeout(Some(READY_CHECK_INTERVAL), run_until(begun, closing)).await {
                // The runtime of the subscriber may have been shut down.
                Err(Elapsed) => self.ensure_tasks(sink),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Starts no more tasks, and wakes the callers of [`ready`](Self::ready).
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    /// Publishes the outbox and the rebroadcasts within `limit`, then a beacon that promises no
    /// further message, and stops the tasks. A second call waits for the same end.
    pub(crate) async fn shutdown<S: Sink>(&self, sink: &S, limit: Duration) {
        let shutdown = || async {
            let now = sink.now();
            self.session.lock().push_rebroadcasts(now, u64::MAX);
            self.work.notify_one();
            let drain = async {
                let is_drained = self.wait_published(|session| session.outbox.is_empty());
                // If changes were made outside a runtime, the publisher may never have run.
                match self.publisher.try_claim() {
                    Some(_claim) => run_alongside(self.run_publisher(sink), is_drained).await,
                    None => is_drained.await,
                }
            };
            let _ = timeout(Some(limit), drain).await;
            self.tasks.stop();
            let goodbye = async {
                self.publish_goodbye(sink).await;
                let in_use = self.in_use.lock().take();
                match in_use {
                    Some(in_use) => in_use.end().await,
                    None => Ok(()),
                }
            };
            // If the beacon is lost, peers notice that this instance fell silent.
            let _ = timeout(Some(self.options.event_bus.publish_timeout), goodbye).await;
        };
        self.shutdown_once.get_or_init(shutdown).await;
    }

    /// The bus loses a user, without a runtime in which its connections could be closed.
    pub(crate) fn end_use(&self) {
        self.in_use.lock().take();
    }

    /// The runtime for the last messages of a cache that is dropped: that of the caller, else that
    /// of the tasks. `None` if there is none, no task has ever started, or the bus was shut down.
    pub(crate) fn last_runtime(&self) -> Option<Handle> {
        let runtime = self.runtime.lock().take().filter(|_| !self.shutdown_once.initialized())?;
        let current = Handle::try_current().ok().filter(|_| has_timer());
        Some(current.unwrap_or(runtime))
    }

    /// Whether the silence of an idle peer is noticed.
    pub(crate) fn notices_silent_peers(&self) -> bool {
        self.session.lock().notices_silent_peers()
    }

    /// The bus answered: the breaker admits the next call at once.
    pub(super) fn on_bus_answered(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        // The publisher may wait before its next try.
        self.work.notify_one();
    }
}

/// Whether a task runs.
#[derive(Default)]
struct TaskFlag(Arc<AtomicBool>);

impl TaskFlag {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the flag, unless it is set, until the claim is dropped: so the next task can start,
    /// whether this one returns, panics, or is dropped with its runtime.
    fn try_claim(&self) -> Option<DropGuard<impl FnOnce() + Send + use<>>> {
        let flag = Arc::clone(&self.0);
        let is_free = !flag.swap(true, Ordering::SeqCst);
        is_free.then(|| DropGuard::new(move || flag.store(false, Ordering::SeqCst)))
    }
}
