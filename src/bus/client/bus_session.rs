//! The bus session of an instance: one subscription, one publisher and one set of sequence numbers
//! for all its caches, and the start and the end of its two tasks.
//!
//! The tasks start with the first call that leaves L1, because a cache can be built outside a
//! runtime; and again when the runtime that they ran on was shut down. They end with the last
//! cache.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use super::{
    log_timer::LogTimer, member::Member, publish_report::RefusalReport, receiver::Receiver,
    session_options::SessionOptions, trust::Trust,
};
use crate::{
    bus::{
        event_bus::{BusUse, EventBus},
        protocol::session::{AttachRefused, Session},
        wire::namespace::CacheId,
    },
    observe::{Counter, Event},
    options::CacheOptions,
    resilience::{
        Breaker, DropGuard, has_timer, run_alongside, run_until, task_tracker::TaskTracker, timeout,
    },
    time::{Clock, SystemClock, millis},
};

pub(crate) struct BusSession {
    pub(super) event_bus: EventBus,
    in_use: Mutex<Option<BusUse>>,
    clock: Option<Arc<dyn Clock>>,
    /// Random, new with every session: the messages of this instance carry it.
    pub(super) incarnation: String,
    pub(super) options: SessionOptions,
    pub(super) protocol: Mutex<Session>,
    members: RwLock<BTreeMap<CacheId, Arc<Member>>>,
    /// Notified when there is something to send; the publisher waits for it.
    pub(super) work: Notify,
    /// Notified when a probe is due earlier; the prober waits for it.
    pub(super) probe_due: Notify,
    pub(super) trust: Arc<Trust>,
    pub(super) breaker: Breaker,
    pub(super) report: RefusalReport,
    /// When a gap was logged.
    pub(super) gap_logged: LogTimer,
    pub(super) shared_instance_logged: LogTimer,
    /// Raised by each sign that the bus answers again, so that the breaker admits a call at once.
    pub(super) generation: AtomicU64,
    pub(super) subscribed: watch::Sender<bool>,
    /// Whether a cache receives messages.
    subscribes: AtomicBool,
    /// The two tasks. Stopped when the last cache leaves.
    tasks: TaskTracker,
    subscriber: TaskFlag,
    publisher: TaskFlag,
    is_over: AtomicBool,
    /// The runtime of the tasks that started last.
    runtime: Mutex<Option<Handle>>,
}

impl BusSession {
    pub(super) fn new(
        event_bus: EventBus,
        options: SessionOptions,
        clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        let random = || format!("{:016x}", fastrand::u64(..));
        let incarnation = random();
        let source = options.instance_id.clone().unwrap_or_else(random);
        let trust_timeout = millis(options.trust_timeout);
        let breaker = &options.circuit_breaker;
        Self {
            in_use: Mutex::new(Some(event_bus.begin_use())),
            event_bus,
            clock,
            protocol: Mutex::new(Session::new(
                &incarnation,
                source,
                trust_timeout,
                &options.event_dedupe,
            )),
            members: RwLock::default(),
            work: Notify::new(),
            probe_due: Notify::new(),
            trust: Arc::new(Trust::new(Some(trust_timeout))),
            breaker: Breaker::new(breaker.failure_threshold, millis(breaker.cooldown)),
            report: RefusalReport::default(),
            gap_logged: LogTimer::default(),
            shared_instance_logged: LogTimer::default(),
            generation: AtomicU64::new(0),
            subscribed: watch::Sender::new(false),
            subscribes: AtomicBool::new(false),
            tasks: TaskTracker::default(),
            subscriber: TaskFlag::default(),
            publisher: TaskFlag::default(),
            is_over: AtomicBool::new(false),
            runtime: Mutex::new(None),
            incarnation,
            options,
        }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        match &self.clock {
            None => SystemClock.now(),
            Some(clock) => clock.now(),
        }
    }

    /// Adds a cache. `None` if the session has ended.
    pub(super) fn attach(
        &self,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> Option<Result<CacheId, AttachRefused>> {
        let (now, mut protocol) = (self.now(), self.protocol.lock());
        if self.is_over() {
            return None;
        }
        let attached = protocol.attach(now, options, sends_generations);
        drop(protocol);
        if attached.is_ok() {
            self.subscribes.fetch_or(options.subscribe_to_events, Ordering::SeqCst);
            // Peers learn of the cache by a beacon.
            self.work.notify_one();
        }
        Some(attached)
    }

    pub(super) fn add_member(&self, member: Arc<Member>) {
        self.members.write().insert(member.id, member);
    }

    /// Removes a cache. Returns the number of invalidations that are lost; `None` if it is the last
    /// cache. Then the session ends: the caller may
    /// [say goodbye](Self::say_goodbye), and removes it by [`detach`](Self::detach).
    pub(super) fn leave(&self, member: &Member) -> Option<usize> {
        let mut protocol = self.protocol.lock();
        // In one step, so that of two caches that leave one is the last.
        if protocol.has_other(member.id) {
            let detached = protocol.detach(member.id);
            drop(protocol);
            return Some(self.on_detached(member, detached));
        }
        self.is_over.store(true, Ordering::SeqCst);
        drop(protocol);
        self.tasks.stop();
        self.runtime.lock().take();
        None
    }

    /// Gives back the place of a cache that was not built.
    pub(super) fn give_back(&self, cache: CacheId) {
        let mut protocol = self.protocol.lock();
        let is_last = !protocol.has_other(cache);
        protocol.detach(cache);
        self.is_over.fetch_or(is_last, Ordering::SeqCst);
        drop(protocol);
        if is_last {
            self.tasks.stop();
            self.runtime.lock().take();
            self.take_use();
        } else {
            // Peers forget the name by a beacon.
            self.work.notify_one();
        }
    }

    pub(super) fn detach(&self, member: &Member) -> usize {
        let detached = self.protocol.lock().detach(member.id);
        self.on_detached(member, detached)
    }

    fn on_detached(&self, member: &Member, detached: Option<(usize, u64)>) -> usize {
        self.members.write().remove(&member.id);
        // Peers find the gap, and forget the name, by a beacon.
        self.work.notify_one();
        let Some((lost, acked)) = detached else { return 0 };
        member.raise_acked(acked);
        lost
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// The tasks, if they were stopped.
    pub(super) fn stopped_tasks(&self) -> Option<TaskTracker> {
        self.is_over().then(|| self.tasks.clone())
    }

    /// The bus loses a user.
    pub(super) fn take_use(&self) -> Option<BusUse> {
        self.in_use.lock().take()
    }

    /// A beacon that promises no further message, then the end of the use of the bus.
    pub(super) async fn say_goodbye(&self) {
        let goodbye = async {
            self.publish_goodbye().await;
            match self.take_use() {
                Some(in_use) => in_use.end().await,
                None => Ok(()),
            }
        };
        // If the beacon is lost, peers notice that this instance fell silent.
        let _ = timeout(Some(self.options.publish_timeout), goodbye).await;
    }

    /// Starts the subscriber and the publisher, unless they run. Does nothing outside a runtime, or
    /// after the last cache has left.
    pub(super) fn ensure_tasks(self: &Arc<Self>) {
        let subscribes = self.subscribes.load(Ordering::Relaxed) && !self.subscriber.is_set();
        if !subscribes && self.publisher.is_set() || self.is_over.load(Ordering::Acquire) {
            return;
        }
        let runtime = Handle::try_current().ok().filter(|_| has_timer());
        let Some(runtime) = runtime else { return };
        *self.runtime.lock() = Some(runtime.clone());
        if subscribes && let Some(claim) = self.subscriber.try_claim() {
            let session = Arc::clone(self);
            runtime.spawn(self.tasks.token().run(async move {
                session.run_subscriber().await;
                drop(claim);
            }));
        }
        if let Some(claim) = self.publisher.try_claim() {
            let session = Arc::clone(self);
            runtime.spawn(self.tasks.token().run(async move {
                session.run_publisher().await;
                drop(claim);
            }));
        }
    }

    /// Waits until `done`. Publishes meanwhile if no task does: if changes were made outside a
    /// runtime, the publisher may never have run.
    pub(super) async fn publish_until(&self, done: impl Future<Output = ()>) {
        let mut done = pin!(done);
        loop {
            // Created before the claim, so that no end of a publisher after it is missed.
            let freed = self.publisher.freed();
            if let Some(_claim) = self.publisher.try_claim() {
                return run_alongside(self.run_publisher(), done).await;
            }
            // Another cache that closes may have published, and be done.
            if run_until(done.as_mut(), freed).await.is_some() {
                return;
            }
        }
    }

    /// The runtime for the last messages of a cache that is dropped: that of the caller, else that
    /// of the tasks. `None` if there is none, or no task has ever started.
    pub(super) fn last_runtime(&self) -> Option<Handle> {
        let runtime = self.runtime.lock().clone()?;
        let current = Handle::try_current().ok().filter(|_| has_timer());
        Some(current.unwrap_or(runtime))
    }

    /// The bus answered: the breaker admits the next call at once.
    pub(super) fn on_bus_answered(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
        // The publisher may wait before its next try.
        self.work.notify_one();
    }

    pub(super) fn member(&self, cache: CacheId) -> Option<Arc<Member>> {
        self.members.read().get(&cache).map(Arc::clone)
    }

    /// `None` if the cache is being built, or was dropped.
    pub(super) fn receiver(&self, cache: CacheId) -> Option<Arc<dyn Receiver>> {
        self.members.read().get(&cache)?.receiver.upgrade()
    }

    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.members.read().values().map(Arc::clone).collect()
    }

    /// The caches that receive messages.
    pub(super) fn receivers(&self) -> Vec<Arc<Member>> {
        let members = self.members.read();
        members.values().filter(|member| member.subscribes).map(Arc::clone).collect()
    }

    /// Reports to each of these caches what concerns the whole session.
    pub(super) fn report_to<'e>(
        members: &[Arc<Member>],
        counter: Option<Counter>,
        event: impl Fn() -> Event<'e>,
    ) {
        for member in members {
            if let Some(counter) = counter {
                member.observer.count(counter);
            }
            member.observer.emit(&event);
        }
    }

    /// The name in log lines that concern the whole session: those of its caches.
    pub(super) fn log_name(&self) -> Option<String> {
        const MOST: usize = 4;
        let members = self.members.read();
        let names = members.values().filter_map(|member| member.observer.cache());
        let mut shown: Vec<&str> = names.clone().take(MOST).collect();
        let others = format!("and {} more", names.clone().count().saturating_sub(MOST));
        shown.extend(Some(&*others).filter(|_| names.count() > MOST));
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

/// Whether a task runs.
#[derive(Default)]
struct TaskFlag(Arc<(AtomicBool, Notify)>);

impl TaskFlag {
    fn is_set(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Waits until a claim is dropped.
    fn freed(&self) -> impl Future<Output = ()> {
        self.0.1.notified()
    }

    /// Sets the flag, unless it is set, until the claim is dropped: so the next task can start,
    /// whether this one returns, panics, or is dropped with its runtime.
    fn try_claim(&self) -> Option<DropGuard<impl FnOnce() + Send + use<>>> {
        let flag = Arc::clone(&self.0);
        let is_free = !flag.0.swap(true, Ordering::SeqCst);
        is_free.then(|| {
            DropGuard::new(move || {
                flag.0.store(false, Ordering::SeqCst);
                flag.1.notify_waiters();
            })
        })
    }
}
