//! Redis servers without room, with each policy of eviction: whatever Redis evicts or refuses, no
//! value comes back that a call has removed or replaced, and no call fails.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::future::join_all;
use lazy_layers_cache::{
    DistributedLock, ErrorKind, Event, FailSafe, HandlerGuard, L2Effect, L2Health, L2Options,
    L2Timeouts, LazyLayersCache, LocalTransport, NegativeCache, RedisOptions, RedisStore,
    WireCodec, WriteReport,
};
use redis::Connection;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::support::{
    ms,
    redis::{RedisServer, field},
};

const KEYS: usize = 300;
/// The tasks that change keys, each its own, and as many that only read.
const TASKS: usize = 12;
/// What each task does, in as much time as there is.
const STEPS: usize = 150;
const SPAN: Duration = ms(3_000);
/// How much the server may store beyond what it needs when it is empty.
const ROOM: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Value {
    version: u32,
    padding: String,
}

type Cache = LazyLayersCache<String, Value>;

/// What the loaders read: the version of each key.
#[derive(Default)]
struct Origin {
    current: AtomicU32,
    /// The version whose delete or set has returned last: no read that begins now may return the
    /// value of an earlier one.
    returned: AtomicU32,
}

/// At each fourth version the key does not exist.
fn exists_at(version: u32) -> bool {
    version % 4 != 3
}

/// Two instances over one prefix.
struct Pair {
    name: &'static str,
    instances: [Cache; 2],
    origins: Vec<Origin>,
    padding: String,
    /// How often each effect of a change, and each kind of answer, was seen.
    seen: Mutex<BTreeMap<&'static str, u32>>,
    /// The errors of L2, but for those of a server that is full.
    errors: Arc<Mutex<Vec<String>>>,
    _handlers: [HandlerGuard; 2],
}

impl Pair {
    fn new(server: &RedisServer, name: &'static str) -> Arc<Self> {
        let is_versioned = name == "versioned";
        let transport = LocalTransport::new();
        let instances = [(); 2].map(|()| {
            // No limit of time ends a call on a busy machine.
            let options = RedisOptions::default().check_interval(PATIENCE).use_index(!is_versioned);
            let store = RedisStore::at(server.url()).options(options).build().unwrap();
            let mut builder = Cache::builder()
                .name(name)
                .ttl(ms(60_000))
                .without_l1()
                .fail_safe(FailSafe::enabled().throttle(ms(5)))
                .negative_cache(NegativeCache::enabled().ttl(ms(500)))
                .l2_timeouts(L2Timeouts::default().read(PATIENCE).write(PATIENCE));
            if is_versioned {
                let bus = transport.clone();
                builder = builder.event_bus(bus, WireCodec::new());
                builder = builder.l2_options(L2Options::default().versioning(true));
            } else {
                builder = builder.distributed_lock(DistributedLock::enabled().poll(ms(5)));
            }
            builder.l2(store, WireCodec::new()).build().unwrap()
        });
        let errors = Arc::new(Mutex::new(Vec::new()));
        let handlers = instances.each_ref().map(|cache| {
            let errors = Arc::clone(&errors);
            cache.on(move |event| {
                if let Event::L2Error { key, error, .. } = event
                    && !error.to_string().contains("OOM")
                {
                    errors.lock().unwrap().push(format!("{key}: {error}"));
                }
            })
        });
        let origins = (0..KEYS).map(|_| Origin::default()).collect();
        Arc::new(Self {
            name,
            instances,
            origins,
            padding: "x".repeat(2_000),
            seen: Mutex::default(),
            errors,
            _handlers: handlers,
        })
    }

    fn any(&self, random: &mut Rng) -> &Cache {
        random.choice(&self.instances).unwrap()
    }

    fn value(&self, version: u32) -> Value {
        Value { version, padding: self.padding.clone() }
    }

    fn count(&self, what: &'static str) {
        *self.seen.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Commits a new version, then deletes or sets the key.
    async fn change(&self, number: usize, random: &mut Rng) {
        let origin = &self.origins[number];
        let version = origin.current.fetch_add(1, Ordering::SeqCst) + 1;
        let (cache, key) = (self.any(random), key(number));
        let report = if exists_at(version) && random.bool() {
            let set = cache.set(&key, self.value(version)).ttl(some_ttl(random));
            let report = in_time("set", async { set.await.unwrap() }).await;
            self.count(match &report.l2 {
                L2Effect::Done => "set",
                L2Effect::NotStored(_) => "set, no room",
                _ => "set, pending",
            });
            report
        } else {
            let report = in_time("delete", async { cache.delete(&key).await.unwrap() }).await;
            let errors = self.errors.lock().unwrap();
            assert_eq!(report.l2, L2Effect::Done, "a full Redis deletes: {errors:?}");
            drop(errors);
            report
        };
        is_done(report).await;
        origin.returned.store(version, Ordering::SeqCst);
    }

    /// Reads a key, with a loader that works, with one that fails, or without.
    async fn read(self: &Arc<Self>, number: usize, random: &mut Rng) {
        let from = self.origins[number].returned.load(Ordering::SeqCst);
        let (cache, key) = (self.any(random), key(number));
        let pair = Arc::clone(self);
        let pause = ms(random.u64(0..4));
        let (found, is_stale) = match random.u8(0..4) {
            0 => (in_time("get", cache.get(&key)).await, false),
            1 => {
                let broken = || async { Err::<Option<Value>, _>(io::Error::other("broken")) };
                let request = cache.get_or_set(&key, broken).outcome();
                match in_time("read of a broken origin", request).await {
                    Ok(outcome) => (outcome.value, outcome.stale.is_some()),
                    Err(_) => return,
                }
            }
            _ => {
                let load = move || async move {
                    let version = pair.origins[number].current.load(Ordering::SeqCst);
                    sleep(pause).await;
                    Ok::<_, io::Error>(exists_at(version).then(|| pair.value(version)))
                };
                let request = cache.get_or_set(&key, load).ttl(some_ttl(random)).outcome();
                let outcome = match in_time("load", request).await {
                    Ok(outcome) => outcome,
                    // It joined a load of a broken origin.
                    Err(error) => return assert_eq!(error.kind(), ErrorKind::Loader, "{error}"),
                };
                if outcome.value.is_none() {
                    self.count("none");
                    let to = self.origins[number].current.load(Ordering::SeqCst);
                    let is_right = (from..=to).any(|version| !exists_at(version));
                    assert!(is_right, "{key}: none, though versions {from} to {to} exist");
                }
                (outcome.value, outcome.stale.is_some())
            }
        };
        let Some(found) = found else { return };
        self.count(if is_stale { "stale" } else { "fresh" });
        let to = self.origins[number].current.load(Ordering::SeqCst);
        let is_right = (from..=to).contains(&found.version) && exists_at(found.version);
        let name = self.name;
        assert!(
            is_right && found.padding == self.padding,
            "{name} {key}: version {}, stale {is_stale}, but {from} to {to} are right",
            found.version
        );
    }

    /// One after the other: copies of values that expired are used, and those of values that
    /// another program removed before their time are not.
    async fn check_copies(&self, mut redis: Connection, until: Instant) {
        let [one, other] = &self.instances;
        let mut version = 0;
        while Instant::now() < until {
            version += 1;
            let expires = version % 2 == 0;
            let ttl = if expires { ms(20) } else { ms(60_000) };
            is_done(one.set("copied", self.value(version)).ttl(ttl).await.unwrap()).await;
            if expires {
                sleep(ms(25)).await;
            } else {
                let mut delete = redis::cmd("DEL");
                delete.arg(format!("{}:cache:copied", self.name)).exec(&mut redis).unwrap();
                assert_eq!(other.get("copied").await, None);
            }
            let broken = || async { Err::<Value, _>(io::Error::other("broken")) };
            let found = in_time("a read of a copy", other.get_or_set("copied", broken)).await;
            if let Ok(found) = found {
                assert!(expires && found.version == version, "{found:?} at {version}");
                self.count("copy");
            }
        }
    }

    /// The names of values that Redis holds, and those of leases, negative entries and copies.
    fn names(&self, redis: &mut Connection, start: &str) -> [Vec<String>; 2] {
        let prefix = format!("{}:cache:", self.name);
        let all: Vec<String> = redis::cmd("KEYS").arg(prefix.clone() + "*").query(redis).unwrap();
        let (sidecars, values): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|name| name.starts_with(&format!("{prefix}__")));
        let is_sidecar = |name: &String| ["__copy:", "__lease:"].iter().any(|it| name.contains(it));
        let is_of = |name: &String| name.contains(&format!("{prefix}{start}"));
        [values.into_iter().filter(is_of).collect(), {
            sidecars.into_iter().filter(|name| is_sidecar(name) && is_of(name)).collect()
        }]
    }

    /// Nothing else runs: sizes, patterns and clears are exact.
    async fn check_whole(&self, redis: &mut Connection) {
        let [one, other] = &self.instances;
        let begun = Instant::now();
        loop {
            let (before, size) = (self.names(redis, ""), in_time("size", one.size()).await);
            if before == self.names(redis, "") && size == before[0].len() as u64 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{size}, not {}", before[0].len());
        }
        is_done(in_time("a pattern", one.delete_by_pattern("even:*")).await.unwrap()).await;
        assert_eq!(self.names(redis, "even:"), [const { Vec::<String>::new() }; 2]);
        for number in (0..KEYS).step_by(2) {
            let broken = || async { Err::<Value, _>(io::Error::other("broken")) };
            other.get_or_set(&key(number), broken).await.unwrap_err();
        }
        is_done(in_time("a clear", other.clear()).await.unwrap()).await;
        assert_eq!(self.names(redis, ""), [const { Vec::<String>::new() }; 2]);
        assert_eq!(one.size().await, 0);
        assert_eq!(*self.errors.lock().unwrap(), Vec::<String>::new(), "{}", self.name);
        for cache in &self.instances {
            assert_eq!(cache.health().l2, Some(L2Health::Answering), "{}", self.name);
            assert_eq!(cache.stats().l2_skipped, 0, "the circuit never opened");
        }
    }
}

fn key(number: usize) -> String {
    let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
    format!("{parity}:{number}")
}

fn some_ttl(random: &mut Rng) -> Duration {
    random.choice([ms(20), ms(200), ms(60_000)]).unwrap()
}

async fn in_time<T>(what: &str, call: impl IntoFuture<Output = T>) -> T {
    let ended = timeout(4 * PATIENCE, call.into_future()).await;
    ended.unwrap_or_else(|_| panic!("{what} does not return"))
}

/// Waits for a change that Redis has not taken yet.
async fn is_done(report: WriteReport) {
    assert!(report.settled(PATIENCE).await, "{report:?}");
}

async fn holds_under(policy: &str) {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let pairs = ["plain", "versioned"].map(|name| Pair::new(&server, name));
    for pair in &pairs {
        for cache in &pair.instances {
            cache.ready().await.unwrap();
            assert_eq!(cache.get("first").await, None);
        }
    }
    let used: u64 = field(&server.info("memory"), "used_memory").unwrap().parse().unwrap();
    server.config_set("maxmemory-policy", policy);
    server.config_set("maxmemory", &(used + ROOM).to_string());
    for pair in &pairs {
        let loads = (0..KEYS).map(|number| async move {
            let value = pair.value(0);
            let load = || async { Ok::<_, io::Error>(Some(value)) };
            pair.instances[0].get_or_set(&key(number), load).await.unwrap();
        });
        in_time("all loads", join_all(loads)).await;
    }
    let until = Instant::now() + SPAN;
    let mut tasks = Vec::new();
    for pair in &pairs {
        for task in 0..2 * TASKS {
            let pair = Arc::clone(pair);
            tasks.push(tokio::spawn(async move {
                let mut random = Rng::new();
                for _ in (0..STEPS).take_while(|_| Instant::now() < until) {
                    if task < TASKS && random.u8(0..4) == 0 {
                        let number = random.usize(0..KEYS / TASKS) * TASKS + task;
                        pair.change(number, &mut random).await;
                    } else {
                        pair.read(random.usize(0..KEYS), &mut random).await;
                    }
                }
            }));
        }
        let (pair, redis) = (Arc::clone(pair), server.connect());
        if pair.name == "plain" {
            tasks.push(tokio::spawn(async move { pair.check_copies(redis, until).await }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let stats = server.info("stats");
    let evicted: u64 = field(&stats, "evicted_keys").unwrap().parse().unwrap();
    println!("{policy}: {evicted} keys evicted");
    for pair in &pairs {
        println!("  {}: {:?}", pair.name, pair.seen.lock().unwrap());
    }
    assert_eq!(evicted > 100, policy != "noeviction", "{evicted} keys were evicted");
    for pair in &pairs {
        pair.check_whole(&mut redis).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_evicted_nothing_removed_comes_back_and_no_call_fails() {
    for policy in ["noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        holds_under(policy).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_what_expires_is_evicted_nothing_removed_comes_back_either() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        holds_under(policy).await;
    }
}
