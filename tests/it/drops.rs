//! No code of the user runs under a lock: values, errors, handlers and loaders whose `Drop` calls
//! the cache, in every place where the cache drops one; and keys, weighers, codecs, types of serde,
//! handlers, wakers, stores and transports that call it.

use std::{
    borrow::Borrow,
    cell::RefCell,
    hash::{Hash, Hasher},
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use lazy_layers_cache::{
    BoxError, CacheBuilder, CacheKey, Codec, DistributedLock, FailSafe, KeyText, L1Options,
    LazyLayersCache, Loaded, NegativeCache, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::runtime::Handle;

use crate::support::{
    calling::{CallingStore, CallingTransport},
    ms, settle,
};

type Cache = LazyLayersCache<String, Value>;

const MAX_CALLS: usize = 500;

/// What every dropped item calls: the cache, once there is one.
#[derive(Clone, Default)]
struct Home(Arc<(OnceLock<Calls>, AtomicUsize, AtomicBool)>);

type Calls = Box<dyn Fn() + Send + Sync>;

impl Home {
    /// Calls the cache in each way that takes a lock. The calls that wait are polled once.
    fn call(&self) {
        // What such a call runs does not call the cache again, and so on without an end.
        if !self.0.2.swap(true, SeqCst) {
            self.call_once();
            self.0.2.store(false, SeqCst);
        }
    }

    fn call_once(&self) {
        let Some(calls) = self.0.0.get() else { return };
        // The loads that these calls begin call the store, which calls the cache.
        if self.0.1.fetch_add(1, SeqCst) <= MAX_CALLS {
            calls();
        }
    }
}

fn call_all<K, V>(cache: &LazyLayersCache<K, V>)
where
    K: CacheKey + Borrow<str> + 'static,
    V: Send + Sync + 'static,
{
    let context = &mut Context::from_waker(Waker::noop());
    for key in ["k", "k2"] {
        let _ = (cache.get_l1(key), cache.stats(), cache.health(), cache.guarantees());
        let _ = format!("{cache:?} {:?}", cache.clone());
        let _ = Box::pin(cache.get(key)).as_mut().poll(context);
        let _ = Box::pin(cache.has(key)).as_mut().poll(context);
        let _ = Box::pin(cache.delete(key)).as_mut().poll(context);
        let loader = || std::future::pending::<Result<Option<V>, Failure>>();
        let _ = Box::pin(cache.get_or_set(key, loader).into_future()).as_mut().poll(context);
        if let Ok(runtime) = Handle::try_current() {
            let cache = cache.clone();
            runtime.spawn(async move { cache.delete(key).await });
        }
    }
    drop(cache.on(|_| ()));
    let _ = Box::pin(cache.delete_by_pattern("x*")).as_mut().poll(context);
}

struct Value {
    number: u32,
    home: Home,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.home.call();
    }
}

struct Failure(Home);

impl Drop for Failure {
    fn drop(&mut self) {
        self.0.call();
    }
}

impl std::fmt::Debug for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failure")
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the loader fails")
    }
}

impl std::error::Error for Failure {}

#[derive(Clone)]
struct Numbers(Home);

impl Codec<Value> for Numbers {
    fn encode(&self, value: &Value) -> Result<Vec<u8>, BoxError> {
        self.0.call();
        Ok(value.number.to_le_bytes().to_vec())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        self.0.call();
        let number = u32::from_le_bytes(bytes.try_into()?);
        Ok(Value { number, home: self.0.clone() })
    }
}

/// Runs a test in a thread of its own: a deadlock fails it.
fn without_deadlock<F: Future<Output = ()>>(test: impl FnOnce(Home) -> F + Send + 'static) {
    let (sender, done) = mpsc::channel();
    let home = Home::default();
    let calls = home.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(test(home));
        let _ = sender.send(());
    });
    match done.recv_timeout(Duration::from_secs(60)) {
        Ok(()) => assert!(calls.0.1.load(SeqCst) > 0, "something was dropped"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a deadlock"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the test has failed"),
    }
}

fn builder() -> CacheBuilder<String, Value> {
    Cache::builder()
        .clock(TokioClock::new())
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)).throttle(ms(10)))
        .negative_cache(NegativeCache::enabled())
}

/// Lets the drops call the cache from now on.
fn begin<K, V>(home: &Home, cache: &LazyLayersCache<K, V>)
where
    K: CacheKey + Borrow<str> + 'static,
    V: Send + Sync + 'static,
{
    let cache = cache.clone();
    let _ = home.0.0.set(Box::new(move || call_all(&cache)));
}

impl Home {
    fn value(&self, number: u32) -> Value {
        Value { number, home: self.clone() }
    }

    async fn load(&self, cache: &Cache, number: u32) {
        let (home, value) = (self.clone(), self.value(number));
        let loader = || async move {
            let _owned = home;
            tokio::time::sleep(ms(1)).await;
            Ok::<_, Failure>(Some(value))
        };
        let _ = cache.get_or_set("k", loader).refresh().await;
    }

    async fn fail(&self, cache: &Cache, key: &str) {
        let failure = Failure(self.clone());
        let loader = || async move {
            tokio::time::sleep(ms(1)).await;
            Err::<Option<Value>, _>(failure)
        };
        let _ = cache.get_or_set(key, loader).refresh().await;
    }
}

/// Every way to displace a value or to end a load, one after the other.
async fn drop_everything(home: &Home, cache: &Cache) {
    begin(home, cache);
    for round in 0..3 {
        for number in 0..3 {
            cache.set("k", home.value(number)).await.unwrap();
            cache.set("k2", home.value(number)).await.unwrap();
        }
        home.load(cache, 10).await;
        home.load(cache, 11).await;
        home.fail(cache, "k").await;
        tokio::time::sleep(ms(1_500)).await;
        home.fail(cache, "k").await;
        home.fail(cache, "other").await;
        let none = || async { Ok::<Option<Value>, Failure>(None) };
        let _ = cache.get_or_set("k", none).refresh().await;
        let zero = home.value(12);
        let zero = || async move { Ok::<_, Failure>(Loaded::value(zero).ttl(Duration::ZERO)) };
        let _ = cache.get_or_set("k", zero).refresh().await;
        let panics = home.value(13);
        let panics = move || async move {
            let _owned = panics;
            tokio::time::sleep(ms(1)).await;
            if round < 100 {
                panic!("the loader panics on purpose");
            }
            Ok::<Option<Value>, Failure>(None)
        };
        let _ = cache.get_or_set("k", panics).refresh().await;
        // A load that a delete supersedes, with followers.
        let calls = tokio::join!(
            home.load(cache, 14),
            home.load(cache, 15),
            async { drop(cache.delete("k").await) },
            async { drop(cache.delete_by_pattern("k*").await) },
        );
        let ((), (), (), ()) = calls;
        // Evicted by the bound of L1.
        for key in 0..50 {
            cache.set(&key.to_string(), home.value(key)).await.unwrap();
        }
        // Abandoned callers.
        let abandoned = home.load(cache, 16);
        let _ = tokio::time::timeout(ms(0), abandoned).await;
        let (captured, kept) = (home.value(17), home.value(18));
        let handler = cache.on(move |_| {
            let _ = captured.number;
        });
        drop(handler);
        drop(kept);
        let _ = cache.delete_by_pattern("k*").await;
        cache.clear().await.unwrap();
        settle().await;
    }
    tokio::time::sleep(ms(20_000)).await;
    cache.close().await;
}

#[test]
fn in_memory() {
    without_deadlock(|home| async move {
        let cache = builder().l1(L1Options::default().max_entries(40)).build().unwrap();
        drop_everything(&home, &cache).await;
    });
}

#[test]
fn with_a_weigher_that_calls_the_cache() {
    without_deadlock(|home| async move {
        let weighs = home.clone();
        let cache = builder()
            .l1(L1Options::default().max_weight(400))
            .weigher(move |_: &str, _: &Value| {
                weighs.call();
                10
            })
            .build()
            .unwrap();
        drop_everything(&home, &cache).await;
    });
}

#[test]
fn over_l2_and_a_bus_with_codecs_that_call_the_cache() {
    without_deadlock(|home| async move {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let instance = || {
            builder()
                .l1(L1Options::default().max_entries(40))
                .l2(store.clone(), Numbers(home.clone()))
                .name("test")
                .event_bus(bus.link(), Numbers(home.clone()))
                .build()
                .unwrap()
        };
        let (cache, peer) = (instance(), instance());
        for cache in [&cache, &peer] {
            cache.ready().await.unwrap();
        }
        tokio::time::sleep(ms(4_000)).await;
        peer.set("k", home.value(20)).await.unwrap();
        tokio::time::sleep(ms(10)).await;
        drop_everything(&home, &cache).await;
        peer.close().await;
    });
}

/// L1 has a better stale copy than L2: the one of L2 is dropped while the flight has it.
#[test]
fn a_stale_copy_that_loses_against_another() {
    without_deadlock(|home| async move {
        let store = SharedStore::new(TokioClock::new());
        let short = builder()
            .fail_safe(FailSafe::enabled().stale_ttl(ms(5_000)))
            .l2(store.clone(), Numbers(Home::default()))
            .build()
            .unwrap();
        let cache = builder().l2(store.clone(), Numbers(home.clone())).build().unwrap();
        cache.set("k", home.value(1)).await.unwrap();
        short.set("k", Home::default().value(2)).await.unwrap();
        tokio::time::sleep(ms(1_500)).await;
        begin(&home, &cache);
        home.fail(&cache, "k").await;
    });
}

#[test]
fn with_handlers_that_call_the_cache() {
    without_deadlock(|home| async move {
        let cache = over_all(&home, SharedStore::new(TokioClock::new()), &SharedBus::new(1));
        cache.ready().await.unwrap();
        let calls = home.clone();
        let _calls = cache.on(move |_| calls.call());
        let _panics = cache.on(|event| {
            assert!(event.name() != "hit", "the handler panics on purpose");
        });
        drop_everything(&home, &cache).await;
    });
}

fn over_all(home: &Home, store: SharedStore, bus: &SharedBus) -> Cache {
    let calls = || {
        let home = home.clone();
        Arc::new(move || home.call())
    };
    builder()
        .l1(L1Options::default().max_entries(40))
        .l2(CallingStore(store, calls()), Numbers(home.clone()))
        .distributed_lock(DistributedLock::enabled())
        .name("test")
        .event_bus(CallingTransport(bus.link(), calls()), Numbers(home.clone()))
        .build()
        .unwrap()
}

#[test]
fn with_a_store_and_a_transport_that_call_the_cache() {
    without_deadlock(|home| async move {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let cache = over_all(&home, store.clone(), &bus);
        let peer = over_all(&Home::default(), store, &bus);
        for cache in [&cache, &peer] {
            cache.ready().await.unwrap();
        }
        tokio::time::sleep(ms(4_000)).await;
        begin(&home, &cache);
        // A peer sends, replaces and deletes values, and one is read from L2.
        for number in 0..3 {
            peer.set("k", Home::default().value(number)).await.unwrap();
            cache.set("k", home.value(number)).await.unwrap();
            home.load(&peer, number).await;
            tokio::time::sleep(ms(5)).await;
            peer.delete("k").await.unwrap();
            home.fail(&peer, "k").await;
            let none = || async { Ok::<Option<Value>, Failure>(None) };
            let _ = peer.get_or_set("none", none).await;
            let _ = cache.get_or_set("none", none).await;
            peer.set("far", home.value(number)).await.unwrap();
            let _ = cache.get("far").await;
        }
        drop_everything(&home, &cache).await;
        peer.close().await;
    });
}

/// Dropped without `close`, with values in L1 and loads that run.
#[test]
fn a_cache_that_is_dropped() {
    without_deadlock(|home| async move {
        let other = builder().build().unwrap();
        begin(&home, &other);
        let cache = builder().build().unwrap();
        cache.set("k", home.value(1)).await.unwrap();
        let load = home.load(&cache, 2);
        let _ = tokio::time::timeout(ms(0), load).await;
        drop(cache);
        tokio::time::sleep(ms(100)).await;
    });
}

/// A key all of whose traits call the cache.
struct Key(&'static str, Home);

impl CacheKey for Key {
    fn key_text(&self) -> KeyText<'_> {
        self.1.call();
        KeyText::display(self)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.1.call();
        f.write_str(self.0)
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.1.call();
        self.0
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.1.call();
        self.0.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.1.call();
        self.0 == other.0
    }
}

impl Eq for Key {}

impl Clone for Key {
    fn clone(&self) -> Self {
        self.1.call();
        Self(self.0, self.1.clone())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.1.call();
    }
}

#[test]
fn with_keys_that_call_the_cache() {
    without_deadlock(|home| async move {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let cache = LazyLayersCache::<Key, Value>::builder()
            .clock(TokioClock::new())
            .fail_safe(FailSafe::enabled())
            .l2(store, Numbers(home.clone()))
            .name("test")
            .event_bus(bus.link(), Numbers(home.clone()))
            .build()
            .unwrap();
        cache.ready().await.unwrap();
        begin(&home, &cache);
        for round in 0..3 {
            for text in ["k", "k2", "a key whose text is longer than what fits in forty bytes"] {
                let key = Key(text, home.clone());
                cache.set(&key, home.value(round)).await.unwrap();
                drop((cache.get(&key).await, cache.get_l1(&key), cache.has(&key).await));
                let load = || {
                    let value = home.value(round);
                    cache.get_or_set(&key, || async move {
                        tokio::time::sleep(ms(1)).await;
                        Ok::<_, Failure>(Some(value))
                    })
                };
                let clone = key.clone();
                let calls = tokio::join!(load().refresh(), load().outcome(), cache.delete(&clone));
                drop((calls, cache.delete(&key).await));
            }
        }
        cache.close().await;
    });
}

thread_local! {
    static SERDE: RefCell<Option<Home>> = const { RefCell::new(None) };
}

/// A value whose `Serialize` and `Deserialize` call the cache of the thread.
struct Typed(u32);

fn call_by_serde() {
    let home = SERDE.with(|home| home.borrow().clone());
    home.iter().for_each(Home::call);
}

impl Serialize for Typed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        call_by_serde();
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        call_by_serde();
        // Some of its values are not readable: the cache discards them.
        match u32::deserialize(deserializer)? {
            13 => Err(serde::de::Error::custom("unreadable on purpose")),
            number => Ok(Self(number)),
        }
    }
}

#[test]
fn with_types_of_serde_that_call_the_cache() {
    without_deadlock(|home| async move {
        SERDE.with(|it| *it.borrow_mut() = Some(home.clone()));
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let instance = || {
            LazyLayersCache::<String, Typed>::builder()
                .clock(TokioClock::new())
                .ttl(ms(1_000))
                .fail_safe(FailSafe::enabled())
                .l2(store.clone(), WireCodec::new())
                .name("test")
                .event_bus(bus.link(), WireCodec::new().json())
                .build()
                .unwrap()
        };
        let (cache, peer) = (instance(), instance());
        for cache in [&cache, &peer] {
            cache.ready().await.unwrap();
        }
        tokio::time::sleep(ms(4_000)).await;
        begin(&home, &cache);
        for number in [1, 2, 13, 3] {
            peer.set("k", Typed(number)).await.unwrap();
            tokio::time::sleep(ms(5)).await;
            cache.set("k2", Typed(number)).await.unwrap();
            tokio::time::sleep(ms(1_500)).await;
            store.insert_raw("far", [b"HC1M".as_slice(), &[number as u8]].concat(), ms(9_000));
            drop((cache.get("far").await, cache.has("far").await));
            for key in ["k", "k2"] {
                let load = || cache.get_or_set(key, async || Ok::<_, Failure>(Some(Typed(4))));
                drop((load().await, load().refresh().await));
            }
        }
        cache.close().await;
        peer.close().await;
        SERDE.with(|it| *it.borrow_mut() = None);
    });
}

/// A waker that calls the cache when it wakes its task and when it is dropped, as that of an
/// executor may that polls at once. Not for futures that call the store of the tests, which yields:
/// tokio wakes the tasks that yield while it holds a borrow of its own.
struct CallingWaker(Waker, Home);

impl Wake for CallingWaker {
    fn wake(self: Arc<Self>) {
        self.1.call();
        self.0.wake_by_ref();
    }
}

impl Drop for CallingWaker {
    fn drop(&mut self) {
        self.1.call();
    }
}

async fn with_calling_wakers<F: Future>(home: &Home, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let waker = Arc::new(CallingWaker(context.waker().clone(), home.clone()));
        future.as_mut().poll(&mut Context::from_waker(&Waker::from(waker)))
    })
    .await
}

#[test]
fn with_wakers_that_call_the_cache() {
    without_deadlock(|home| async move {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let cache = over_all(&Home::default(), store.clone(), &bus);
        cache.ready().await.unwrap();
        begin(&home, &cache);
        for number in 0..3 {
            store.set_fault(StoreFault::Fails);
            let reports = [
                cache.delete("k").await.unwrap(),
                cache.delete_by_pattern("k*").await.unwrap(),
                cache.set("k2", home.value(number)).await.unwrap(),
            ];
            store.set_fault(StoreFault::None);
            store.reconnect();
            for report in reports {
                assert!(with_calling_wakers(&home, report.settled(ms(10_000))).await);
            }
        }
        // Callers of one key: they wait for a flight, for the next one, and for a peer's lock.
        let peer = over_all(&Home::default(), store, &bus);
        for number in 0..3 {
            let call = |cache: Cache| {
                let home = home.clone();
                async move { with_calling_wakers(&home, home.load(&cache, number)).await }
            };
            let calls = [&peer, &cache, &cache, &cache].map(|it| tokio::spawn(call(it.clone())));
            tokio::time::sleep(ms(0)).await;
            cache.delete("k").await.unwrap();
            let later = [&cache, &cache, &peer].map(|it| tokio::spawn(call(it.clone())));
            for call in calls.into_iter().chain(later) {
                call.await.unwrap();
            }
        }
        drop_everything(&home, &cache).await;
        peer.close().await;
    });
}
