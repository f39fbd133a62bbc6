//! Random calls with random options and keys: no call panics, every call returns, and no read after
//! a delete returns a value from before the delete. (model.rs checks the exact answers, with few
//! keys and valid options.)

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    BuildError, Coalescing, DistributedLock, ErrorKind, EventBusOptions, EventDedupe, FailSafe,
    L1Options, L2Options, LazyLayersCache, NegativeCache, Timeouts, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::timeout;

use crate::support::{Broken, ms};

type Cache = LazyLayersCache<String, u64>;

const RUNS: u64 = 24;
const CALLS: usize = 100;
/// Longer than any call may take with any options. Time is paused.
const FOREVER: Duration = Duration::from_secs(3_600);

/// Keys with text that has a meaning in globs, in Redis names or in versioned keys.
fn keys() -> Vec<String> {
    let odd = [
        "", "a", "a1", "*", "a*", "?", "[", "[a]", "{a}", "{", "}{", "\\", "a::v0", "a::v1",
        "__index", "__lock:a", "é", "日本", "a\0b", "\u{feff}", " ", "\n", "-1",
    ];
    let huge = [65_535, 65_536, 65_537, 200_000].map(|length| "x".repeat(length));
    odd.into_iter().map(str::to_owned).chain(huge).collect()
}

type Matches = fn(&str) -> bool;

/// Globs, and keys that each matches for certain.
const PATTERNS: [(&str, Matches); 6] = [
    ("*", |_| true),
    ("a*", |key| key.starts_with('a')),
    ("x*", |key| key.starts_with('x')),
    (r"\*", |key| key == "*"),
    ("[a-", |key| key == "a"),
    ("", |key| key.is_empty()),
];

fn span(random: &mut fastrand::Rng) -> Duration {
    let spans = [Duration::ZERO, Duration::from_nanos(1), ms(1), ms(40), ms(2_000), Duration::MAX];
    random.choice(spans).unwrap()
}

fn limits(random: &mut fastrand::Rng) -> Timeouts {
    let mut timeouts = Timeouts::none();
    if random.bool() {
        timeouts = timeouts.soft(span(random));
    }
    if random.bool() {
        timeouts = timeouts.hard(span(random));
    }
    timeouts
}

struct World {
    random: fastrand::Rng,
    bus: SharedBus,
    store: SharedStore,
}

impl World {
    fn build(&mut self) -> Result<Cache, BuildError> {
        let random = &mut self.random;
        let count = |random: &mut fastrand::Rng| random.choice([0, 1, 2, 1_000]).unwrap();
        let mut builder = Cache::builder().clock(TokioClock::new()).close_timeout(ms(500));
        if random.bool() {
            builder = builder.ttl(span(random)).ttl_jitter(random.f64());
        }
        builder = match random.u8(..4) {
            0 => builder.without_l1(),
            1 => builder.l1(L1Options::default().max_entries(count(random)).ttl(span(random))),
            _ => builder,
        };
        if random.bool() {
            let safe = FailSafe::enabled();
            builder = builder.fail_safe(safe.stale_ttl(span(random)).throttle(span(random)));
        }
        if random.bool() {
            let negative = NegativeCache::enabled().ttl(span(random)).max_entries(count(random));
            builder = builder.negative_cache(negative);
        }
        if random.bool() {
            builder = builder.timeouts(limits(random));
        }
        builder = match random.u8(..4) {
            0 => builder.inflight(Coalescing::disabled()),
            1 => {
                let inflight = Coalescing::default().ttl(span(random)).max_entries(count(random));
                builder.inflight(inflight.max_followers(count(random)))
            }
            _ => builder,
        };
        if random.u8(..3) > 0 {
            let l2 = L2Options::default().versioning(random.bool());
            builder = builder.l2(self.store.clone(), WireCodec::new());
            builder = builder.l2_options(match random.bool() {
                true => l2.ttl(span(random)).max_key_bytes(count(random)),
                false => l2,
            });
            if random.u8(..4) == 0 {
                let lock = DistributedLock::enabled().ttl(span(random)).wait_timeout(span(random));
                builder = builder.distributed_lock(lock);
            }
        }
        if random.u8(..3) > 0 {
            let mut events = EventBusOptions::default().confirm_deletes(random.bool());
            if random.bool() {
                events = events.outbox_max_entries(count(random)).outbox_max_bytes(count(random));
                let dedupe = EventDedupe::default().max_entries(count(random)).ttl(span(random));
                builder = builder.event_dedupe(dedupe);
            }
            builder = builder.name("test").event_bus(self.bus.link(), WireCodec::new());
            builder = builder.event_bus_options(events).broadcast_set(random.bool());
        }
        builder.build()
    }
}

struct Run {
    caches: Vec<Cache>,
    world: World,
    /// The next value of a load or a set. Values grow, so an older value is lower.
    next: Arc<AtomicU64>,
    /// For each instance and key, the highest value at the time of its last delete there.
    deleted: HashMap<(usize, String), u64>,
    done: Vec<String>,
}

impl Run {
    fn check_read(&self, at: usize, key: &str, found: Option<u64>) {
        let deleted = self.deleted.get(&(at, key.to_owned())).copied().unwrap_or(0);
        assert!(found.is_none_or(|found| found > deleted), "{found:?} {}", self.done.join("\n"));
    }

    /// Awaits a call, or drops it after a moment.
    async fn call<T>(&mut self, call: impl IntoFuture<Output = T>) -> Option<T> {
        if self.world.random.u8(..8) == 0 {
            let patience = ms(self.world.random.u64(..3));
            return timeout(patience, call).await.ok();
        }
        let made = timeout(FOREVER, call).await;
        assert!(made.is_ok(), "the call does not return: {}", self.done.join("\n"));
        made.ok()
    }

    async fn step(&mut self, keys: &[String]) {
        let at = self.world.random.usize(..self.caches.len());
        let cache = self.caches[at].clone();
        let key = &self.world.random.choice(keys).unwrap().clone();
        let what = self.world.random.u8(..20);
        let name: String = key.chars().take(12).collect();
        self.done.push(format!("{what} of {name:?} at {at}"));
        // Only a delete that succeeds ends the values from before it.
        let before = self.next.load(Ordering::SeqCst);
        match what {
            0..=1 => {
                let found = self.call(cache.get(key)).await.flatten();
                self.check_read(at, key, found.as_deref().copied());
            }
            2..=3 => self.check_read(at, key, cache.get_l1(key).as_deref().copied()),
            4 => drop(self.call(cache.has(key)).await),
            5..=10 => {
                let (next, random) = (Arc::clone(&self.next), &mut self.world.random);
                let takes = random.choice([0, 0, 1, 50]).unwrap();
                let ends = random.u8(..8);
                let loader = move || async move {
                    let value = next.fetch_add(1, Ordering::SeqCst) + 1;
                    if takes > 0 {
                        tokio::time::sleep(ms(takes)).await;
                    }
                    match ends {
                        0 => Err(Broken),
                        1 => Ok(None),
                        _ => Ok(Some(value)),
                    }
                };
                let mut load = cache.get_or_set(key, loader);
                if random.u8(..4) == 0 {
                    load = load.ttl(span(random)).timeouts(limits(random));
                }
                if random.u8(..8) == 0 {
                    load = load.refresh().stale_for(span(random));
                }
                if let Some(Ok(found)) = self.call(load).await {
                    self.check_read(at, key, found.as_deref().copied());
                }
            }
            11..=12 => {
                let value = self.next.fetch_add(1, Ordering::SeqCst) + 1;
                let random = &mut self.world.random;
                let mut set = cache.set(key, value);
                if random.bool() {
                    set = set.ttl(span(random)).stale_for(span(random));
                }
                if let Some(Ok(_)) = self.call(set).await {
                    self.deleted.insert((at, key.clone()), before);
                }
            }
            13..=15 => {
                if let Some(Ok(_)) = self.call(cache.delete(key)).await {
                    self.deleted.insert((at, key.clone()), before);
                }
            }
            16 => {
                let (glob, matches) = self.world.random.choice(PATTERNS).unwrap();
                let made = match glob {
                    "*" => self.call(cache.clear()).await,
                    _ => self.call(cache.delete_by_pattern(glob)).await,
                };
                if let Some(Ok(_)) = made {
                    for key in keys.iter().filter(|key| matches(key)) {
                        self.deleted.insert((at, key.clone()), before);
                    }
                }
            }
            17 => {
                let faults =
                    [StoreFault::None, StoreFault::None, StoreFault::Fails, StoreFault::Hangs];
                let fault = self.world.random.choice(faults).unwrap();
                self.world.store.set_fault(fault);
                tokio::time::sleep(ms(self.world.random.u64(..3_000))).await;
            }
            18 => {
                let _ = (self.call(cache.size()).await, cache.stats());
                let _ = (cache.health(), cache.guarantees());
            }
            _ => tokio::time::sleep(ms(self.world.random.u64(..200))).await,
        }
    }
}

async fn live(seed: u64, keys: &[String]) -> usize {
    let random = fastrand::Rng::with_seed(seed);
    let mut world =
        World { random, bus: SharedBus::new(seed), store: SharedStore::new(TokioClock::new()) };
    let caches: Vec<Cache> = (0..3).filter_map(|_| world.build().ok()).collect();
    if caches.is_empty() {
        return 0;
    }
    let built = caches.len();
    let done = vec![format!("seed {seed}")];
    let mut run = Run { caches, world, next: Arc::default(), deleted: HashMap::new(), done };
    // Few keys a run, so that the calls interact.
    let few: Vec<String> = (0..4).map(|_| run.world.random.choice(keys).unwrap().clone()).collect();
    for _ in 0..CALLS {
        run.step(&few).await;
    }
    run.world.store.set_fault(StoreFault::None);
    let closed = run.caches[0].clone();
    run.call(closed.close()).await;
    timeout(FOREVER, closed.close()).await.unwrap();
    for key in &few {
        assert_eq!((closed.get_l1(key), closed.get(key).await), (None, None));
        let kinds = [
            closed.set(key, 1u64).await.map(drop).map_err(|error| error.kind()),
            closed.delete(key).await.map(drop).map_err(|error| error.kind()),
        ];
        assert_eq!(kinds, [Err(ErrorKind::Closed); 2]);
    }
    built
}

#[tokio::test(start_paused = true)]
async fn random_calls_with_random_options_keep_their_promises() {
    let keys = keys();
    let mut built = 0;
    for seed in 0..RUNS {
        built += live(seed, &keys).await;
    }
    // At least a third of the random options are valid.
    assert!(built as u64 > RUNS / 3, "{built}");
}
