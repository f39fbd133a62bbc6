//! An instance in a process of its own: its cache, alone or one of a manager, and callers that use
//! it until the parent stops or kills the process. It runs on one thread, as in the simulation:
//! other tests cover several threads in one process.

use std::{cell::Cell, io::BufRead, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use lazy_layers_cache::{
    CacheManager, CacheOptions, DistributedLock, Event, EventBus, EventBusOptions, HandlerGuard,
    L2Timeouts, RedisStore, Store, WireCodec,
};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Builder,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::{JoinSet, LocalSet},
    time::sleep,
};

use super::{
    keys::{COLD, HOT, names},
    limits::{BOUNDS, CATCH_UP},
    monotonic_env::{MonotonicEnv, Origin, tape},
    servers::broker::{Kind, transport_of},
    siblings,
};
use crate::{
    any_store::AnyStore,
    caller::{Cache, Caller, L2_WRITE, PATTERN, PUBLISH, is_done, ms, on_event},
    environment::TapeEntry,
    plan::{Call, Load, LoadEnd},
    recorder::Recorder,
    recording_store::RecordingStore,
    recording_transport::RecordingTransport,
};

/// The configuration of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InstanceConfig {
    pub(super) by: usize,
    pub(super) slot: usize,
    pub(super) seed: u64,
    /// The start of the history, in nanoseconds of the clock.
    pub(super) start: u64,
    /// The directory of the tapes and the origin.
    pub(super) dir: PathBuf,
    /// The index of the bus in [`KINDS`].
    pub(super) kind: usize,
    pub(super) bus_port: u16,
    pub(super) redis_port: u16,
    /// The name of the cache: no instance receives events of another history.
    pub(super) cache: String,
    pub(super) confirms: bool,
    pub(super) locks: bool,
    pub(super) broadcasts: bool,
    /// The cache is one of those of a manager.
    pub(super) is_managed: bool,
}

pub(super) const KINDS: [Kind; 5] =
    [Kind::Redis, Kind::Nats, Kind::JetStream, Kind::Transient, Kind::Durable];

/// The number of an incarnation's first change and write: each has room for a million.
pub(super) const fn first(by: usize) -> usize {
    by << 20
}

const CALLERS: u64 = 8;
/// The longest pause between two calls, in milliseconds. A broker that writes everything to a disk
/// can keep up with it.
const PAUSE: u64 = 80;
const CLOSE: u64 = 2_000;

/// Runs an instance. Its parent sends orders as lines; the process answers each when it is done.
pub(super) fn run(config: &str) {
    let config: InstanceConfig = serde_json::from_str(config).expect("a configuration");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, Instance::new(config).run(parent_lines()));
}

/// Returns the lines of the parent; the channel ends with the parent.
fn parent_lines() -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    std::thread::spawn(move || {
        let all = std::io::stdin().lock().lines().map_while(Result::ok);
        all.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
    });
    lines
}

struct Instance {
    config: InstanceConfig,
    caller: Rc<Caller>,
    managed: Option<Managed>,
    is_running: Rc<Cell<bool>>,
    tasks: JoinSet<()>,
    _events: HandlerGuard,
}

impl Instance {
    fn new(config: InstanceConfig) -> Self {
        let names = Arc::new(names());
        let origin = Origin::open(&config.dir, names.keys.len());
        let environment =
            MonotonicEnv::new(config.start, origin, Some(&tape(&config.dir, config.by)));
        let recorder = Recorder::new(environment, names, first(config.by));
        recorder.with(|history| history.bounds = BOUNDS);
        let by = config.by;
        let (cache, managed) = build(&config, &recorder);
        let events = {
            let recorder = recorder.clone();
            cache.on(move |event| {
                on_event(&recorder, by, event);
                record_messages(&recorder, event);
            })
        };
        let caller = Rc::new(Caller { by, cache, store: None, recorder });
        let is_running = Rc::new(Cell::new(true));
        Self { config, caller, managed, is_running, tasks: JoinSet::new(), _events: events }
    }

    async fn run(mut self, mut orders: UnboundedReceiver<String>) {
        let listener = self.caller.cache.clone();
        self.tasks.spawn_local(async move { drop(listener.ready().await) });
        for caller in 0..CALLERS {
            let random = fastrand::Rng::with_seed(self.config.seed ^ caller << 32);
            self.tasks.spawn_local(call_at_random(Rc::clone(&self.caller), self.running(), random));
        }
        self.tasks.spawn_local(read_all_of_l1(Rc::clone(&self.caller), self.running()));
        self.tasks.spawn_local(delete_once_keys(Rc::clone(&self.caller), self.running()));
        if let Some(Managed { siblings, .. }) = &self.managed {
            let (caches, caller) = (Rc::clone(siblings), Rc::clone(&self.caller));
            let random = fastrand::Rng::with_seed(!self.config.seed);
            let calls = siblings::call_at_random(caches, caller, self.running(), random);
            self.tasks.spawn_local(calls);
        }
        while let Some(line) = orders.recv().await {
            match &*line {
                "stop" => self.stop().await,
                "catch up" => self.catch_up().await,
                "last" => self.last().await,
                "close" => self.close().await,
                _ => panic!("told to {line}"),
            }
            println!("{line}");
        }
    }

    fn running(&self) -> impl Fn() -> bool + 'static {
        let is_running = Rc::clone(&self.is_running);
        move || is_running.get()
    }

    async fn stop(&mut self) {
        self.is_running.set(false);
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_err() {
                self.caller.recorder.violation("panic", "a call panicked".to_owned());
            }
        }
    }

    /// Waits until a probe is back that was sent now, so that all messages before it are received.
    async fn catch_up(&self) {
        let Caller { by, cache, recorder, .. } = &*self.caller;
        let is_behind = || cache.health().event_bus.is_none_or(|bus| !bus.trusted);
        let begin = recorder.now();
        while is_behind() {
            if recorder.now() > begin + CATCH_UP {
                recorder.violation("R4", format!("instance {by} stays behind"));
                return;
            }
            sleep(ms(50)).await;
        }
    }

    /// After all faults: the instance must be up to date. It does not trust L1 before it has
    /// forgotten the peers that were killed, after a minute.
    async fn last(&self) {
        let Caller { by, cache, recorder, .. } = &*self.caller;
        let health = cache.health();
        if health.event_bus.as_ref().is_none_or(|bus| bus.waiting > 0 || !bus.subscribed) {
            recorder.violation("R4", format!("instance {by} is not well again: {health:?}"));
        }
        for key in 0..recorder.names().keys.len() {
            self.caller.load(key, Load::WELL, true).await;
        }
    }

    async fn close(&self) {
        let Caller { by, cache, recorder, .. } = &*self.caller;
        let begin = recorder.now();
        match &self.managed {
            Some(managed) => managed.manager.close().await,
            None => cache.close().await,
        }
        recorder.check_deadline(*by, "close", begin, CLOSE + 1_000 + CLOSE + PUBLISH);
    }
}

/// The manager of the cache under test, and its other caches.
struct Managed {
    manager: CacheManager,
    siblings: Rc<[Cache]>,
}

fn build(config: &InstanceConfig, recorder: &Recorder) -> (Cache, Option<Managed>) {
    let store = RedisStore::at(format!("redis://127.0.0.1:{}/", config.redis_port));
    let redis = store.build().expect("sound options");
    let store = RecordingStore::new(redis.clone(), config.by, recorder);
    // The same names in every history on a broker, so that durable queues do not accumulate.
    let inner = transport_of(KINDS[config.kind], config.bus_port, &format!("slot-{}", config.slot));
    let bus = RecordingTransport { inner, recorder: recorder.clone(), by: config.by };
    let mut options = CacheOptions::default()
        // Long, so that old values do not expire by themselves.
        .ttl(Duration::from_secs(600))
        .l2_timeouts(L2Timeouts::default().pattern(ms(PATTERN)))
        .event_bus(EventBusOptions::default().confirm_deletes(config.confirms))
        .broadcast_set(config.broadcasts)
        .close_timeout(ms(CLOSE));
    if config.locks {
        options = options.distributed_lock(DistributedLock::enabled());
    }
    if !config.is_managed {
        let cache = Cache::builder()
            .options(options)
            .name(&*config.cache)
            .l2(store, WireCodec::new())
            .event_bus(bus, WireCodec::new());
        return (cache.build().expect("sound options"), None);
    }
    let (tested, store): (_, Arc<dyn Store>) = (config.cache.clone(), Arc::new(store));
    let store_of = move |name: &str| {
        if name == tested {
            return AnyStore(Arc::clone(&store));
        }
        let part = redis.with_prefix(format!("{name}:cache:"));
        AnyStore(Arc::new(part.expect("a sound prefix")))
    };
    let manager =
        CacheManager::builder().options(options).l2(store_of).event_bus(EventBus::new(bus));
    let manager = manager.build().expect("sound options");
    let cache = manager.cache(&config.cache).build().expect("sound options");
    let siblings = siblings::build(&manager, &config.cache).into();
    (cache, Some(Managed { manager, siblings }))
}

/// Records the received messages that `confirmed_deletes` needs.
fn record_messages(recorder: &Recorder, event: &Event<'_>) {
    match event {
        Event::BusSubscribed { .. } => recorder.write(|| TapeEntry::Subscribed(recorder.stamp())),
        Event::InvalidationReceived { pattern: Some("*"), .. } => {
            recorder.write(|| TapeEntry::ClearReceived(recorder.stamp()));
        }
        Event::InvalidationReceived { keys, .. } => {
            for key in keys.iter().filter(|key| key.starts_with(ONCE)) {
                recorder.write(|| TapeEntry::DeleteReceived((*key).to_owned()));
            }
        }
        _ => {}
    }
}

async fn call_at_random(
    caller: Rc<Caller>,
    is_running: impl Fn() -> bool,
    mut random: fastrand::Rng,
) {
    while is_running() {
        caller.make(call(&mut random)).await;
        caller.recorder.call_ended();
        sleep(ms(random.u64(0..PAUSE))).await;
    }
}

/// Reads all keys of L1 again and again, so that no old value stays unseen.
async fn read_all_of_l1(caller: Rc<Caller>, is_running: impl Fn() -> bool) {
    while is_running() {
        for key in 0..caller.recorder.names().keys.len() {
            caller.make(Call::GetL1(key)).await;
        }
        sleep(ms(200)).await;
    }
}

/// The prefix of keys that are deleted once, so that a lost delete cannot be hidden by the next
/// one.
const ONCE: &str = "once:";

async fn delete_once_keys(caller: Rc<Caller>, is_running: impl Fn() -> bool) {
    let Caller { by, cache, recorder, .. } = &*caller;
    let mut number = 0;
    while is_running() {
        let (key, begin) = (format!("{ONCE}{by}:{number}"), recorder.stamp());
        let done = is_done(cache.delete(&*key).await);
        recorder.check_deadline(*by, "delete", begin.at, L2_WRITE + PUBLISH);
        recorder.write(|| TapeEntry::DeletedOnce { key: key.clone(), begin, done });
        recorder.call_ended();
        number += 1;
        sleep(ms(50)).await;
    }
}

fn call(random: &mut fastrand::Rng) -> Call {
    let mut key = |hot: f64| {
        let keys = if random.f64() < hot { HOT } else { COLD };
        random.usize(keys)
    };
    let read = key(0.4);
    // Cold keys change so rarely that a lost event is not hidden by the next one.
    let changed = key(0.85);
    match random.u32(0..1_000) {
        0..=99 => Call::GetL1(read),
        100..=199 => Call::Get(read),
        200..=229 => Call::Has(read),
        230..=899 => Call::Load(read, load(random)),
        900..=969 => Call::Delete { key: changed, exists: random.f64() < 0.95 },
        970..=997 => Call::Set(changed),
        _ => Call::Pattern(*random.choice(&[0, 0, 0, 1, 1, 1, 2, 3]).expect("some")),
    }
}

fn load(random: &mut fastrand::Rng) -> Load {
    let mut takes = || *random.choice(&[0, 0, 0, 1, 5, 20, 100]).expect("some");
    let (before, after) = (takes(), takes());
    let hard = (random.f64() < 0.1).then(|| random.u64(1_000..2_000));
    let refresh = random.f64() < 0.03;
    Load { before, after, end: LoadEnd::Well, soft: None, hard, refresh }
}
