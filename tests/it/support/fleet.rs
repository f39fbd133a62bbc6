//! Three instances on one broker, which read and delete all the time while the broker fails. The
//! test checks that no read is older than promised, that each call keeps to its time limit, and
//! that each instance notices the fault.
//!
//! The third instance connects through a proxy, so that it can be cut off alone.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{Event, EventBusOptions, HandlerGuard, WireCodec};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    Broken, Cache,
    broker::{Broker, BrokerTransport},
    ms,
    proxy::Proxy,
    version_oracle::VersionOracle,
};

pub(crate) const ALL: &[usize] = &[0, 1, 2];
/// The instance behind the proxy.
pub(crate) const FAR: &[usize] = &[2];
/// The default `trust_timeout`.
const TRUST: Duration = ms(3_000);
const PUBLISH: Duration = ms(1_000);
/// Added to each limit, for machines with few cores and other work.
const SLACK: Duration = ms(1_000);
/// Within this time after a fault every instance is up to date.
const RECOVERY: Duration = ms(5_000);
const KEYS: usize = 100;

pub(crate) struct Fleet {
    name: String,
    pub(crate) caches: Vec<Cache>,
    pub(crate) proxy: Proxy,
    truth: Arc<VersionOracle>,
    losses: Vec<LossLog>,
    wrong: Arc<Mutex<Vec<String>>>,
    writes: Arc<AtomicBool>,
    runs: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    /// The latest time at which the fault can have begun.
    fault_began: Mutex<Instant>,
}

/// The times at which an instance noticed that messages may be lost.
struct LossLog(Arc<Mutex<Vec<Instant>>>, #[expect(dead_code, reason = "held")] HandlerGuard);

impl Fleet {
    pub(crate) async fn on(broker: &Broker) -> Self {
        let proxy = Proxy::to(broker.port());
        let transports = [
            broker.transport("fleet-0"),
            broker.transport("fleet-1"),
            broker.transport_by(proxy.port(), "fleet-2"),
        ];
        let caches: Vec<Cache> = transports.into_iter().map(cache).collect();
        let losses = caches.iter().map(LossLog::of).collect();
        for cache in &caches {
            cache.ready().await.unwrap();
        }
        let mut fleet = Self {
            name: format!("{:?}", broker.kind),
            caches,
            proxy,
            truth: Arc::new(VersionOracle::new(KEYS)),
            losses,
            wrong: Arc::default(),
            writes: Arc::default(),
            runs: Arc::new(AtomicBool::new(true)),
            tasks: Vec::new(),
            fault_began: Mutex::new(Instant::now()),
        };
        for instance in 0..fleet.caches.len() {
            fleet.tasks.push(tokio::spawn(fleet.worker(instance).read()));
            fleet.tasks.push(tokio::spawn(fleet.worker(instance).write()));
        }
        fleet
    }

    /// Runs a fault while every instance reads and deletes, then checks the promises.
    /// The fault cuts the instances in `struck` off from the bus.
    pub(crate) async fn survives(&self, what: &str, struck: &[usize], fault: impl Future) {
        self.wait_all_healthy(what).await;
        if struck.len() < self.caches.len() {
            self.truth.cut(struck);
        }
        self.writes.store(true, Ordering::SeqCst);
        sleep(ms(200)).await;
        let begun = Instant::now();
        *self.fault_began.lock().unwrap() = begun;
        fault.await;
        let struck_at = *self.fault_began.lock().unwrap();
        let ended = Instant::now();
        self.writes.store(false, Ordering::SeqCst);
        self.until(what, "is up to date", ended + RECOVERY + SLACK, || self.behind()).await;
        let recovered = ended.elapsed();
        self.wait_all_healthy(what).await;
        let well = ended.elapsed();
        self.truth.cut(&[]);
        self.each_delete_reaches_each_peer(what).await;
        assert_eq!(self.behind(), None, "{}, {what}: old values came back", self.name);
        let mut noticed = Vec::new();
        for instance in struck {
            let losses = self.losses[*instance].0.lock().unwrap();
            let first = losses.iter().find(|at| **at >= begun);
            let first = first.unwrap_or_else(|| {
                panic!("{}, {what}: instance {instance} noticed nothing", self.name)
            });
            noticed.push(first.saturating_duration_since(struck_at));
        }
        let latest = noticed.iter().max().unwrap();
        println!(
            "{}, {what}: lasted {:.1?}, noticed after {latest:.2?}, current {recovered:.2?} and \
             well {well:.2?} after it",
            self.name,
            ended - begun,
        );
        assert!(*latest <= TRUST + SLACK, "{}, {what}: noticed after {latest:?}", self.name);
        self.nothing_was_wrong(what);
    }

    /// Called by a fault that begins later than its future.
    pub(crate) fn was_struck(&self) {
        *self.fault_began.lock().unwrap() = Instant::now();
    }

    fn nothing_was_wrong(&self, what: &str) {
        let wrong = self.wrong.lock().unwrap();
        let first: Vec<_> = wrong.iter().take(5).collect();
        assert!(wrong.is_empty(), "{}, {what}: {} times, as {first:#?}", self.name, wrong.len());
    }

    /// Waits until every instance is subscribed, trusts L1, and has an empty outbox.
    async fn wait_all_healthy(&self, what: &str) {
        let deadline = Instant::now() + RECOVERY * 2;
        let unhealthy = || {
            self.caches.iter().map(|it| it.health().event_bus.unwrap()).find(|health| {
                let is_up = health.subscribed && health.trusted && !health.publishing_skipped;
                !is_up || health.waiting > 0
            })
        };
        self.until(what, "is healthy", deadline, || unhealthy().map(|it| format!("{it:?}"))).await;
    }

    /// Checks that a delete of each instance reaches all others as a message, not as a gap.
    async fn each_delete_reaches_each_peer(&self, what: &str) {
        for (writer, cache) in self.caches.iter().enumerate() {
            let others = || self.caches.iter().enumerate().filter(|(it, _)| *it != writer);
            let before: Vec<u64> = others().map(|(_, it)| it.stats().events_received).collect();
            let key = writer % KEYS;
            let version = self.truth.write(key);
            let report = cache.delete(&name(key)).await.unwrap();
            assert!(report.is_complete(), "{}, {what}: {writer}: {report:?}", self.name);
            self.truth.deleted(key, version, writer);
            let missing = || {
                let mut all = others().zip(&before);
                let (deaf, _) =
                    all.find(|((_, it), before)| it.stats().events_received == **before)?;
                Some(format!("{} receives nothing of {writer}", deaf.0))
            };
            self.until(what, "receives", Instant::now() + RECOVERY, missing).await;
        }
        self.until(what, "is up to date", Instant::now() + RECOVERY, || self.behind()).await;
    }

    /// Returns an instance that has an old value in L1.
    fn behind(&self) -> Option<String> {
        let all = self.caches.iter().enumerate();
        all.flat_map(|(instance, cache)| (0..KEYS).map(move |key| (instance, cache, key))).find_map(
            |(instance, cache, key)| {
                let held = cache.get_l1(&name(key))?;
                let now = self.truth.version(key);
                (*held != now).then(|| format!("{instance} has {held} of {key}, which is {now}"))
            },
        )
    }

    async fn until(
        &self,
        what: &str,
        wanted: &str,
        deadline: Instant,
        missing: impl Fn() -> Option<String>,
    ) {
        while let Some(missing) = missing() {
            if Instant::now() > deadline {
                panic!("{}, {what}: not every instance {wanted} in time: {missing}", self.name);
            }
            sleep(ms(5)).await;
        }
    }

    fn worker(&self, instance: usize) -> Worker {
        Worker {
            instance,
            cache: self.caches[instance].clone(),
            truth: Arc::clone(&self.truth),
            wrong: Arc::clone(&self.wrong),
            writes: Arc::clone(&self.writes),
            runs: Arc::clone(&self.runs),
        }
    }

    pub(crate) async fn close(self) {
        self.runs.store(false, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        for cache in &self.caches {
            cache.close().await;
        }
    }
}

fn cache(way: BrokerTransport) -> Cache {
    let options = EventBusOptions::default().confirm_deletes(true).publish_timeout(PUBLISH);
    assert_eq!(options.trust_timeout, TRUST);
    Cache::builder()
        .ttl(ms(600_000))
        .name("fleet")
        .event_bus(way, WireCodec::new())
        .event_bus_options(options)
        .build()
        .unwrap()
}

fn name(key: usize) -> String {
    format!("fleet:{key}")
}

impl LossLog {
    fn of(cache: &Cache) -> Self {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let log = Arc::clone(&times);
        let guard = cache.on(move |event| {
            if let Event::BusGap { .. } | Event::BusDisconnected = event {
                log.lock().unwrap().push(Instant::now());
            }
        });
        Self(times, guard)
    }
}

/// Reads and deletes random keys on one instance.
struct Worker {
    instance: usize,
    cache: Cache,
    truth: Arc<VersionOracle>,
    wrong: Arc<Mutex<Vec<String>>>,
    writes: Arc<AtomicBool>,
    runs: Arc<AtomicBool>,
}

impl Worker {
    async fn read(self) {
        while self.runs.load(Ordering::SeqCst) {
            let key = fastrand::usize(..self.truth.keys());
            let truth = Arc::clone(&self.truth);
            let load = move || async move { Ok::<_, Broken>(truth.version(key)) };
            let asked = Instant::now();
            let read = *self.cache.get_or_set(&name(key), load).await.unwrap();
            self.took("a read", asked, SLACK);
            let behind = self.truth.behind(key, read, self.instance, asked);
            if behind > TRUST + SLACK {
                self.complain(&format!(
                    "read {read} of {key}, which was deleted {behind:?} before"
                ));
            }
            sleep(ms(1)).await;
        }
    }

    async fn write(self) {
        while self.runs.load(Ordering::SeqCst) {
            if self.writes.load(Ordering::SeqCst) {
                let key = fastrand::usize(..self.truth.keys());
                let version = self.truth.write(key);
                let asked = Instant::now();
                // During the fault, deletes are not confirmed.
                let _ = self.cache.delete(&name(key)).await;
                self.took("a delete", asked, PUBLISH + SLACK);
                self.truth.deleted(key, version, self.instance);
            }
            sleep(ms(4)).await;
        }
    }

    fn took(&self, what: &str, since: Instant, limit: Duration) {
        let took = since.elapsed();
        if took > limit {
            self.complain(&format!("{what} took {took:?}"));
        }
    }

    fn complain(&self, what: &str) {
        self.wrong.lock().unwrap().push(format!("instance {}: {what}", self.instance));
    }
}
