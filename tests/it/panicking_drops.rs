//! A `Drop` that panics, of a value, an error, a loader, a handler or a panic itself, wherever the
//! cache drops it: no call panics or waits for ever, the process goes on, and afterwards the same
//! key and other keys work.
//!
use std::{
    panic::{AssertUnwindSafe, catch_unwind, panic_any, set_hook, take_hook},
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use lazy_layers_cache::{
    BoxError, CacheBuilder, Codec, DistributedLock, Error, Event, FailSafe, L1Options,
    LazyLayersCache, Loaded, NegativeCache, Timeouts, WriteReport,
    testing::{SharedBus, SharedStore, TokioClock},
};
use tokio::time::{sleep, timeout};

use crate::support::{ms, settle};

type Cache = LazyLayersCache<String, Value>;

/// Panics when it is dropped, and counts that.
struct Bomb(Bombs);

/// Makes bombs, and counts those that were dropped.
#[derive(Clone, Default)]
struct Bombs(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, SeqCst);
        panic_any(OnPurpose);
    }
}

/// The payload of a panic that is not printed: there are hundreds.
struct OnPurpose;

fn print_no_bombs() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !panic.payload().is::<OnPurpose>() && !panic.payload().is::<Bomb>() {
                print(panic);
            }
        }));
    });
}

struct Value {
    number: u32,
    _bomb: Bomb,
}

struct Failure(#[expect(dead_code, reason = "only dropped")] Bomb);

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failure")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it fails on purpose")
    }
}

impl std::error::Error for Failure {}

#[derive(Clone)]
struct Numbers(Bombs);

/// The codec refuses this value.
const UNWRITABLE: u32 = 99;
/// It writes this one, and does not read it.
const UNREADABLE: u32 = 98;

impl Codec<Value> for Numbers {
    fn encode(&self, value: &Value) -> Result<Vec<u8>, BoxError> {
        match value.number {
            UNWRITABLE => Err(Box::new(self.0.failure())),
            number => Ok([b"HC1M\xce".as_slice(), &number.to_be_bytes()].concat()),
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        match u32::from_be_bytes(bytes[5..].try_into()?) {
            UNREADABLE => Err(Box::new(self.0.failure())),
            number => Ok(self.0.value(number)),
        }
    }
}

impl Bombs {
    fn bomb(&self) -> Bomb {
        Bomb(self.clone())
    }

    fn value(&self, number: u32) -> Value {
        Value { number, _bomb: self.bomb() }
    }

    fn failure(&self) -> Failure {
        Failure(self.bomb())
    }

    fn dropped(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Takes the number of a value that the caller may own alone.
fn number(value: Arc<Value>) -> u32 {
    let number = value.number;
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    number
}

#[derive(Debug, PartialEq, Eq)]
enum Loads {
    Value(u32),
    None,
    Fails,
}

fn outcome(loaded: Result<Option<Arc<Value>>, Error>) -> Loads {
    match loaded {
        Ok(Some(value)) => Loads::Value(number(value)),
        Ok(None) => Loads::None,
        // The caller owns the error.
        Err(error) => {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(error)));
            Loads::Fails
        }
    }
}

/// Runs a test in a thread of its own: a deadlock fails it.
fn without_deadlock<F: Future<Output = ()>>(test: impl FnOnce(Bombs) -> F + Send + 'static) {
    print_no_bombs();
    let (sender, done) = mpsc::channel();
    let bombs = Bombs::default();
    let counted = bombs.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test(bombs));
        let _ = sender.send(());
    });
    match done.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => assert!(counted.dropped() > 0, "something was dropped"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a deadlock"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the test has failed"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Levels {
    L1,
    L2Only,
    Both,
    /// With a peer on the bus.
    All,
}

const ALL: [Levels; 4] = [Levels::L1, Levels::L2Only, Levels::Both, Levels::All];

struct World {
    levels: Levels,
    bombs: Bombs,
    store: SharedStore,
    bus: SharedBus,
}

impl World {
    fn new(levels: Levels, bombs: &Bombs) -> Self {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        Self { levels, bombs: bombs.clone(), store, bus }
    }

    fn builder(&self) -> CacheBuilder<String, Value> {
        let numbers = || Numbers(self.bombs.clone());
        let mut builder = Cache::builder()
            .clock(TokioClock::new())
            .ttl(ms(1_000))
            .l1(L1Options::default().max_weight(320).max_entries(32))
            .weigher(|_: &str, value: &Value| u64::from(value.number.max(1)))
            .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)).throttle(ms(10)))
            .distributed_lock(DistributedLock::enabled())
            .negative_cache(NegativeCache::enabled());
        if self.levels == Levels::L2Only {
            builder = builder.without_l1();
        }
        if self.levels != Levels::L1 {
            builder = builder.l2(self.store.clone(), numbers());
        }
        if self.levels == Levels::All {
            builder = builder.name("test").event_bus(self.bus.link(), numbers());
        }
        builder
    }

    async fn cache(&self) -> Cache {
        let cache = self.builder().build().unwrap();
        cache.ready().await.unwrap();
        if self.levels == Levels::All {
            // Values are not sent in the first seconds.
            sleep(ms(4_000)).await;
        }
        cache
    }

    async fn set(&self, cache: &Cache, key: &str, number: u32) -> WriteReport {
        in_time(cache.set(key, self.bombs.value(number)).into_future()).await.unwrap()
    }

    /// Loads by force, a value that is there after a millisecond.
    async fn load(&self, cache: &Cache, key: &str, number: u32) -> Loads {
        // One bomb only: two of them in one future end the process in any program.
        let value = self.bombs.value(number);
        let loader = move || async move {
            sleep(ms(1)).await;
            Ok::<_, Failure>(Some(value))
        };
        outcome(in_time(cache.get_or_set(key, loader).refresh().into_future()).await)
    }

    async fn fail(&self, cache: &Cache, key: &str) -> Loads {
        let failure = self.bombs.failure();
        let loader = move || async move {
            sleep(ms(1)).await;
            Err::<Option<Value>, _>(failure)
        };
        outcome(in_time(cache.get_or_set(key, loader).refresh().into_future()).await)
    }

    /// Loads by force, with a loader that finds nothing, sets a ttl, or panics.
    async fn load_by<T, L>(&self, cache: &Cache, loader: L) -> Loads
    where
        L: FnOnce() -> T + Send + 'static,
        T: Future<Output = Result<Loaded<Value>, Failure>> + Send + 'static,
    {
        outcome(in_time(cache.get_or_set("k", loader).refresh().into_future()).await)
    }

    /// The cache does what it promises, for the key of the test and for another one.
    async fn works(&self, cache: &Cache, step: &str) {
        for key in ["k", "k2"] {
            let context = format!("{:?}, {step}, {key}", self.levels);
            self.set(cache, key, 1).await;
            assert_eq!(in_time(cache.get(key)).await.map(number), Some(1), "{context}");
            assert!(in_time(cache.has(key)).await, "{context}");
            let loader = async || Err::<Option<Value>, _>("the value is cached");
            let loaded = in_time(cache.get_or_set(key, loader).into_future()).await;
            assert_eq!(outcome(loaded), Loads::Value(1), "{context}");
            in_time(cache.delete(key)).await.unwrap();
            assert_eq!(in_time(cache.get(key)).await.map(number), None, "{context}");
            let (first, second) = tokio::join!(self.load(cache, key, 2), self.load(cache, key, 3));
            assert_eq!((first, second), (Loads::Value(2), Loads::Value(2)), "{context}");
            assert_eq!(in_time(cache.get(key)).await.map(number), Some(2), "{context}");
            assert_eq!(cache.stats().loads_in_flight, 0, "{context}");
        }
    }
}

/// Nothing here takes longer than some seconds. A call that waits for ever ends at once, because
/// time is paused.
async fn in_time<F: Future>(call: F) -> F::Output {
    timeout(ms(600_000), call).await.expect("the call ends")
}

/// Every way to displace a value or to end a load, each followed by a check.
async fn drop_everything(world: &World, cache: &Cache) {
    let bombs = &world.bombs;
    let keeps_l1 = world.levels != Levels::L2Only;
    world.works(cache, "nothing").await;

    world.set(cache, "k", 4).await;
    world.set(cache, "k", 5).await;
    let zero = in_time(cache.set("k", bombs.value(6)).ttl(Duration::ZERO).into_future()).await;
    assert!(zero.unwrap().is_complete());
    world.works(cache, "a value that is set and not kept").await;

    // Too heavy for L1.
    world.set(cache, "k", 4_000).await;
    assert_eq!(world.load(cache, "k", 4_001).await, Loads::Value(4_001));
    world.works(cache, "values that are too heavy").await;

    // One heavy value evicts many.
    for round in 0..20 {
        for key in 0..8 {
            world.set(cache, &format!("light{round}:{key}"), 1).await;
        }
        world.set(cache, &format!("heavy{round}"), 30).await;
    }
    assert!(!keeps_l1 || cache.stats().l1_evictions > 20);
    world.works(cache, "evictions").await;

    // Superseded.
    let calls = tokio::join!(
        world.load(cache, "k", 7),
        world.load(cache, "k", 8),
        async { drop(in_time(cache.delete("k")).await) },
        async {
            sleep(ms(0)).await;
            world.load(cache, "k", 9).await
        },
        async { drop(in_time(cache.delete_by_pattern("k*")).await) },
        async { drop(in_time(cache.set("k", bombs.value(9)).into_future()).await) },
    );
    assert!(matches!((&calls.0, &calls.1), (Loads::Value(_), Loads::Value(_))), "{calls:?}");
    world.works(cache, "loads and a set that are superseded").await;

    // Failures, without and with a stale copy.
    in_time(cache.clear()).await.unwrap();
    let failures = tokio::join!(world.fail(cache, "k"), world.fail(cache, "k"));
    assert_eq!(failures, (Loads::Fails, Loads::Fails));
    world.set(cache, "k", 10).await;
    sleep(ms(1_500)).await;
    let stale = tokio::join!(world.fail(cache, "k"), world.fail(cache, "k"));
    assert_eq!(stale, (Loads::Value(10), Loads::Value(10)), "{:?}", world.levels);
    world.works(cache, "failures").await;

    // A stale copy is replaced by a load, and by none.
    world.set(cache, "k", 11).await;
    sleep(ms(1_500)).await;
    assert_eq!(world.load(cache, "k", 12).await, Loads::Value(12));
    sleep(ms(1_500)).await;
    let none = async || Ok(Loaded::none());
    assert_eq!(world.load_by(cache, none).await, Loads::None);
    world.works(cache, "negative caching").await;

    let value = bombs.value(13);
    let zero = async || Ok(Loaded::value(value).ttl(Duration::ZERO));
    assert_eq!(world.load_by(cache, zero).await, Loads::Value(13));
    world.works(cache, "a loaded value that is not kept").await;

    // Panics, of which one has a bomb as its payload.
    in_time(cache.clear()).await.unwrap();
    let payload = bombs.bomb();
    let panics = || async move { panic_any(payload) };
    assert_eq!(world.load_by(cache, panics).await, Loads::Fails);
    let payload = bombs.bomb();
    let panics = move || {
        if payload.0.dropped() > 0 {
            panic_any(payload);
        }
        async { Ok(Loaded::none()) }
    };
    assert_eq!(world.load_by(cache, panics).await, Loads::Fails);
    world.works(cache, "panics").await;

    // A loader that is dropped at its hard timeout.
    let captured = bombs.bomb();
    let hangs = move || async move {
        let _captured = captured;
        std::future::pending::<Result<Option<Value>, Failure>>().await
    };
    let hard = Timeouts::default().hard(ms(50));
    let hung = in_time(cache.get_or_set("k", hangs).refresh().timeouts(hard).into_future());
    let _ = outcome(hung.await);
    world.works(cache, "a hard timeout").await;

    // Callers that go away, with loads that end well, badly, and without a place for the value.
    for key in ["k", "gone"] {
        let _ = timeout(ms(0), world.load(cache, key, 14)).await;
        sleep(ms(5)).await;
        let _ = timeout(ms(0), world.fail(cache, key)).await;
        sleep(ms(5)).await;
        let _ = timeout(ms(0), world.load(cache, key, 4_002)).await;
        sleep(ms(5)).await;
        let value = bombs.value(15);
        let zero = || async move {
            sleep(ms(1)).await;
            Ok(Loaded::value(value).ttl(Duration::ZERO))
        };
        let _ = timeout(ms(0), world.load_by(cache, zero)).await;
        sleep(ms(5)).await;
    }
    world.works(cache, "callers that went away").await;

    // What the codec refuses.
    world.set(cache, "k", UNWRITABLE).await;
    assert_eq!(world.load(cache, "k", UNWRITABLE).await, Loads::Value(UNWRITABLE));
    world.set(cache, "k", UNREADABLE).await;
    assert_eq!(world.load(cache, "k", UNREADABLE).await, Loads::Value(UNREADABLE));
    world.works(cache, "values that the codec refuses").await;

    in_time(cache.delete_by_pattern("k*")).await.unwrap();
    in_time(cache.clear()).await.unwrap();
    world.works(cache, "a pattern and a clear").await;
}

#[test]
fn every_way_to_drop_a_value_or_an_error() {
    for levels in ALL {
        without_deadlock(move |bombs| async move {
            let world = World::new(levels, &bombs);
            let cache = world.cache().await;
            drop_everything(&world, &cache).await;
            in_time(cache.close()).await;
        });
    }
}

/// Without `close`: the values of L1 are dropped with the cache, and loads that run.
#[test]
fn a_cache_that_is_dropped() {
    for levels in ALL {
        without_deadlock(move |bombs| async move {
            let world = World::new(levels, &bombs);
            let cache = world.cache().await;
            for key in 0..20 {
                world.set(&cache, &key.to_string(), 1).await;
            }
            let _ = timeout(ms(0), world.load(&cache, "k", 2)).await;
            let value = bombs.value(1);
            let _handler = cache.on(move |_| {
                let _ = &value;
            });
            drop(cache);
            sleep(ms(5_000)).await;
            world.works(&world.cache().await, "another instance was dropped").await;
        });
    }
}

/// The better stale copy is in L1, and that of L2 is dropped while the load has yet to begin.
#[test]
fn a_stale_copy_that_loses_against_another() {
    without_deadlock(|bombs| async move {
        let world = World::new(Levels::Both, &bombs);
        let short = FailSafe::enabled().stale_ttl(ms(5_000));
        let short = world.builder().fail_safe(short).build().unwrap();
        let cache = world.cache().await;
        world.set(&cache, "k", 1).await;
        world.set(&short, "k", 2).await;
        sleep(ms(1_500)).await;
        assert_eq!(world.load(&cache, "k", 3).await, Loads::Value(3));
        world.works(&cache, "a load").await;
    });
}

/// The subscriber drops the values of peers that it must not keep, and receives the next ones.
#[test]
fn values_of_peers() {
    without_deadlock(|bombs| async move {
        let world = World::new(Levels::All, &bombs);
        let (cache, peer) = (world.cache().await, world.cache().await);
        for round in 1..4 {
            // The second is too heavy for L1, and a delete of this instance comes before the third.
            world.set(&peer, "k", round).await;
            world.set(&peer, "k", 4_000).await;
            settle().await;
            let both = tokio::join!(world.load(&peer, "k", 5), in_time(cache.delete("k")));
            assert_eq!(both.0, Loads::Value(5));
            settle().await;
            world.set(&peer, "k", UNREADABLE).await;
            settle().await;
            world.set(&peer, "far", round).await;
            sleep(ms(5)).await;
            assert_eq!(cache.get_l1("far").map(number), Some(round), "the subscriber goes on");
        }
        world.works(&cache, "values of peers").await;
    });
}

/// A handler that removes itself and others, all of which own a bomb: they are dropped where the
/// cache calls them.
#[test]
fn handlers_that_are_removed_while_they_run() {
    for levels in ALL {
        without_deadlock(move |bombs| async move {
            let world = World::new(levels, &bombs);
            let cache = world.cache().await;
            for _ in 0..10 {
                let guards = Arc::new(Mutex::new(Vec::new()));
                for _ in 0..3 {
                    let (bomb, remove) = (bombs.bomb(), Arc::downgrade(&guards));
                    let guard = cache.on(move |event: &Event<'_>| {
                        let _ = &bomb;
                        if event.name() == "loader:start" {
                            let guards =
                                remove.upgrade().map(|it| std::mem::take(&mut *it.lock().unwrap()));
                            drop(guards);
                        }
                    });
                    guards.lock().unwrap().push(guard);
                }
                assert_eq!(world.load(&cache, "k", 1).await, Loads::Value(1));
                assert_eq!(guards.lock().unwrap().len(), 0);
            }
            world.works(&cache, "handlers").await;
        });
    }
}

/// The runtime ends while loads run and values are on their way.
#[test]
fn a_runtime_that_ends() {
    print_no_bombs();
    let bombs = Bombs::default();
    for levels in ALL {
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap()
        };
        let first = runtime();
        let (world, cache) = first.block_on(async {
            let world = World::new(levels, &bombs);
            let cache = world.cache().await;
            world.set(&cache, "k", 1).await;
            sleep(ms(1_500)).await;
            for key in ["k", "k2"] {
                let failure = bombs.failure();
                let hangs = move || async move {
                    std::future::pending::<()>().await;
                    Err::<Option<Value>, _>(failure)
                };
                let _ = timeout(ms(0), cache.get_or_set(key, hangs).into_future()).await;
            }
            (world, cache)
        });
        drop(first);
        runtime().block_on(async {
            sleep(ms(10_000)).await;
            world.works(&cache, "a runtime ended").await;
            in_time(cache.close()).await;
        });
    }
}
