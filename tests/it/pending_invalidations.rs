//! Writes that do not reach the store, or whose callers drop them: the invalidation is retried
//! whatever the fault, and L1 never keeps an old value.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use lazy_layers_cache::{
    L2Effect, L2Health, L2Timeouts, LazyLayersCache, LocalTransport, PatternCursor, Store,
    StoreFuture, SystemClock, WireCodec,
    testing::{ForwardStore, SharedStore, StoreFault, TokioClock},
};
use tokio::time::{sleep, timeout};

use crate::support::{
    Cache,
    faulty_store::{Fate, FaultyStore},
    ms, on_tokio_time, settle,
};

fn over(store: FaultyStore) -> Cache {
    on_tokio_time().ttl(ms(3_600_000)).l2(store, WireCodec::new()).build().unwrap()
}

const LONG: Duration = ms(3_600_000);

#[tokio::test(start_paused = true)]
async fn a_delete_that_always_fails_does_not_block_the_retry_of_others() {
    let store = SharedStore::new(TokioClock::new());
    let is_bad: fn(&str) -> Fate =
        |key| if key.starts_with("bad") { Fate::Fails } else { Fate::ArrivesAfter(0) };
    let cache = over(FaultyStore { delete: is_bad, pattern: is_bad, ..FaultyStore::to(&store) });
    for key in ["bad", "bad1", "bad2", "good", "well"] {
        store.insert_raw(key, b"HC1M\x07", LONG);
    }
    store.set_fault(StoreFault::Fails);
    for key in ["bad", "bad1", "good"] {
        assert_eq!(cache.delete(key).await.unwrap().l2, L2Effect::Pending);
    }
    for pattern in ["bad*", "wel*"] {
        assert_eq!(cache.delete_by_pattern(pattern).await.unwrap().l2, L2Effect::Pending);
    }
    store.set_fault(StoreFault::None);
    store.reconnect();
    // Five pending invalidations, and a pause of at most 1 s after each third failure.
    sleep(ms(5_000)).await;
    assert_eq!((store.peek("good"), store.peek("well")), (None, None));
    assert!(store.peek("bad").is_some());
    sleep(ms(600_000)).await;
    assert_eq!(cache.get("bad2").await, None, "the key was deleted, although L2 still has it");
    cache.set("good", 8).await.unwrap();
    assert!(store.peek("good").is_some());
    assert_eq!(cache.health().l2, Some(L2Health::Answering), "the retry does not open the circuit");
}

#[tokio::test(start_paused = true)]
async fn a_pending_delete_does_not_wait_for_the_cooldown_of_the_circuit() {
    for fault in [StoreFault::Fails, StoreFault::Hangs] {
        let store = SharedStore::new(TokioClock::new());
        let cache = over(FaultyStore::to(&store));
        for key in ["a", "b", "c", "other"] {
            store.insert_raw(key, b"HC1M\x07", LONG);
        }
        store.set_fault(fault);
        for key in ["a", "b", "c"] {
            assert_eq!(cache.delete(key).await.unwrap().l2, L2Effect::Pending);
        }
        assert_eq!(cache.health().l2, Some(L2Health::Skipped));
        assert_eq!(cache.get("other").await, None, "nobody waits for L2");
        // It answers again over the same connection.
        store.set_fault(StoreFault::None);
        // The limit of the retry that runs, and a pause of at most 1 s.
        sleep(ms(2_000)).await;
        assert_eq!(["a", "b", "c"].map(|key| store.peek(key)), [None, None, None]);
        assert_eq!(cache.health().l2, Some(L2Health::Answering));
        assert!(cache.get("other").await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_pattern_is_retried_with_a_longer_limit_and_does_not_open_the_circuit() {
    let store = SharedStore::new(TokioClock::new());
    let long: fn(&str) -> Fate = |_| Fate::ArrivesAfter(300);
    let cache = on_tokio_time()
        .l2_timeouts(L2Timeouts::default().pattern(ms(100)))
        .l2(FaultyStore { pattern: long, ..FaultyStore::to(&store) }, WireCodec::new())
        .build()
        .unwrap();
    store.insert_raw("a", b"HC1M\x07", LONG);
    store.insert_raw("other", b"HC1M\x07", LONG);
    for _ in 0..4 {
        assert_eq!(cache.delete_by_pattern("a*").await.unwrap().l2, L2Effect::Pending);
    }
    assert_eq!(cache.health().l2, Some(L2Health::Answering));
    assert!(cache.get("other").await.is_some());
    sleep(ms(1_000)).await;
    assert_eq!(store.peek("a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_pattern_that_takes_longer_than_its_retries_gets_longer_ones_until_it_succeeds() {
    let store = SharedStore::new(TokioClock::new());
    let long: fn(&str) -> Fate = |_| Fate::ArrivesAfter(5_000);
    let cache = on_tokio_time()
        .l2_timeouts(L2Timeouts::default().pattern(ms(100)))
        .l2(FaultyStore { pattern: long, ..FaultyStore::to(&store) }, WireCodec::new())
        .build()
        .unwrap();
    store.insert_raw("a", b"HC1M\x07", LONG);
    let report = cache.delete_by_pattern("a*").await.unwrap();
    // Retries of 1, 2, 4 and 8 s, and the pauses between them.
    assert!(report.settled(ms(17_000)).await);
    assert_eq!(store.peek("a"), None);
}

/// A store that looks at one key after the other, each in its own time, and continues at the key
/// where the last call ended.
struct SteppedStore {
    store: SharedStore,
    steps: Arc<AtomicU64>,
}

const KEYS: u64 = 200;
const STEP: Duration = ms(30);

impl ForwardStore for SteppedStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn delete_matching_from<'a>(
        &'a self,
        _: &'a str,
        _: bool,
        cursor: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let first = cursor.position().map_or(0, |position| position.parse().unwrap());
            for key in first..KEYS {
                sleep(STEP).await;
                self.store.delete(&key.to_string()).await?;
                cursor.advance((key + 1).to_string());
                self.steps.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    }
}

/// The retries have a second each, for a delete of six seconds.
#[tokio::test(start_paused = true)]
async fn a_pending_pattern_resumes_where_it_was() {
    for is_dropped in [false, true] {
        let (store, steps) = (SharedStore::new(TokioClock::new()), Arc::default());
        let stepped = SteppedStore { store: store.clone(), steps: Arc::clone(&steps) };
        let cache = on_tokio_time()
            .l2_timeouts(L2Timeouts::default().pattern(ms(100)))
            .l2(stepped, WireCodec::new())
            .build()
            .unwrap();
        for key in 0..KEYS {
            store.insert_raw(&key.to_string(), b"HC1M\x07", LONG);
        }
        if is_dropped {
            timeout(ms(70), cache.delete_by_pattern("*")).await.unwrap_err();
            assert_eq!(steps.load(Ordering::SeqCst), 2);
        } else {
            assert_eq!(cache.delete_by_pattern("*").await.unwrap().l2, L2Effect::Pending);
            assert_eq!(steps.load(Ordering::SeqCst), 3);
        }
        // Six retries, and a pause of at most 1 s after each.
        sleep(ms(12_000)).await;
        assert_eq!(steps.load(Ordering::SeqCst), KEYS, "no key is looked at again");
        assert_eq!(store.peek("199"), None);
        assert_eq!(cache.get("7").await, None);
        store.insert_raw("7", b"HC1M\x07", LONG);
        assert!(cache.get("7").await.is_some(), "nothing is pending");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_pattern_that_is_deleted_again_begins_anew() {
    let (store, steps) = (SharedStore::new(TokioClock::new()), Arc::default());
    let stepped = SteppedStore { store: store.clone(), steps: Arc::clone(&steps) };
    let cache = on_tokio_time()
        .l2_timeouts(L2Timeouts::default().pattern(ms(100)))
        .l2(stepped, WireCodec::new())
        .build()
        .unwrap();
    cache.delete_by_pattern("*").await.unwrap();
    sleep(ms(600)).await;
    assert!(steps.load(Ordering::SeqCst) > 10, "a retry has begun");
    // Another instance writes a key that the first delete has passed, before the second one.
    store.insert_raw("9", b"HC1M\x07", LONG);
    let report = cache.delete_by_pattern("*").await.unwrap();
    assert!(report.settled(ms(20_000)).await);
    assert_eq!(store.peek("9"), None);
}

#[tokio::test(start_paused = true)]
async fn pending_deletes_of_keys_are_retried_in_few_calls() {
    let store = SharedStore::new(TokioClock::new());
    let calls = Arc::new(AtomicU64::new(0));
    let cache = over_counted(&store, &calls);
    store.set_fault(StoreFault::Fails);
    for key in 0..1_000 {
        store.insert_raw(&key.to_string(), b"HC1M\x07", LONG);
        cache.delete(&*key.to_string()).await.unwrap();
    }
    sleep(ms(10_000)).await;
    store.set_fault(StoreFault::None);
    store.reconnect();
    let before = calls.load(Ordering::SeqCst);
    sleep(ms(5_000)).await;
    assert!((0..1_000).all(|key: u32| store.peek(&key.to_string()).is_none()));
    let calls = calls.load(Ordering::SeqCst) - before;
    assert!(calls < 20, "{calls} calls for 1,000 keys");
}

/// Counts deletes of keys: those of one key, and those of several.
struct CountedStore(SharedStore, Arc<AtomicU64>);

impl ForwardStore for CountedStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.delete(key)
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.delete_all(keys)
    }
}

fn over_counted(store: &SharedStore, calls: &Arc<AtomicU64>) -> Cache {
    let store = CountedStore(store.clone(), Arc::clone(calls));
    on_tokio_time().l2(store, WireCodec::new()).build().unwrap()
}

/// An invalidation of "k".
#[derive(Debug, Clone, Copy)]
enum Write {
    Delete,
    Set,
    Pattern,
}

impl Write {
    async fn of(self, cache: &Cache) {
        let told = match self {
            Self::Delete => cache.delete("k").await,
            Self::Set => cache.set("k", 8).await,
            Self::Pattern => cache.delete_by_pattern("k*").await,
        };
        told.unwrap();
    }
}

const WRITES: [Write; 3] = [Write::Delete, Write::Set, Write::Pattern];

fn over_a_slow_store(store: &SharedStore) -> Cache {
    let long: fn(&str) -> Fate = |_| Fate::ArrivesAfter(200);
    over(FaultyStore {
        delete: long,
        pattern: long,
        acquire_write_lease: long,
        ..FaultyStore::to(store)
    })
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_caller_drops_it_leaves_no_old_value() {
    for write in WRITES {
        let store = SharedStore::new(TokioClock::new());
        let cache = over_a_slow_store(&store);
        store.insert_raw("k", b"HC1M\x07", LONG);
        let writing = tokio::spawn({
            let cache = cache.clone();
            async move { timeout(ms(50), write.of(&cache)).await.unwrap_err() }
        });
        sleep(ms(20)).await;
        assert_eq!(cache.get("k").await.as_deref(), Some(&7), "the write has not reached L2 yet");
        assert!(cache.get_l1("k").is_some());
        writing.await.unwrap();
        settle().await;
        assert_eq!(cache.get_l1("k"), None, "{write:?}");
        assert_eq!(cache.get("k").await, None, "{write:?}");
        sleep(ms(300)).await;
        assert_eq!(store.peek("k"), None, "{write:?}");
    }
}

#[tokio::test]
async fn a_set_that_is_dropped_while_its_value_is_encoded_leaves_no_old_value() {
    let (bus, store) = (LocalTransport::new(), SharedStore::new(SystemClock));
    let build = || {
        let builder = LazyLayersCache::<String, String>::builder().name("texts");
        let builder = builder.event_bus(bus.clone(), WireCodec::new());
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let (cache, peer) = (build(), build());
    cache.ready().await.unwrap();
    peer.ready().await.unwrap();
    cache.set("k", "old".to_owned()).await.unwrap();
    assert!(peer.get("k").await.is_some() && store.peek("k").is_some());
    {
        let mut set = pin!(cache.set("k", "x".repeat(2 << 20)).into_future());
        let context = &mut Context::from_waker(Waker::noop());
        assert!(set.as_mut().poll(context).is_pending(), "it is encoded on another thread");
    }
    assert_eq!((cache.get_l1("k"), cache.get("k").await), (None, None));
    let is_gone = || peer.get_l1("k").is_none() && store.peek("k").is_none();
    let gone = async {
        while !is_gone() {
            sleep(ms(1)).await;
        }
    };
    timeout(ms(10_000), gone).await.expect("the peer and L2 get the delete");
    assert_eq!(peer.get("k").await, None);
}

#[test]
fn an_invalidation_recorded_without_a_runtime_is_retried_once_there_is_one() {
    for write in WRITES {
        for has in [false, true] {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(true).build().unwrap();
            let (store, cache) = runtime.block_on(async {
                let store = SharedStore::new(TokioClock::new());
                (store.clone(), over_a_slow_store(&store))
            });
            runtime.block_on(async { store.insert_raw("k", b"HC1M\x07", LONG) });
            let mut writing = Box::pin(write.of(&cache));
            runtime.block_on(async {
                timeout(ms(50), &mut writing).await.unwrap_err();
                cache.get("k").await.unwrap();
            });
            drop(writing);
            runtime.block_on(async {
                assert_eq!(cache.get_l1("k"), None, "{write:?}");
                sleep(ms(1_000)).await;
                assert!(store.peek("k").is_some(), "no call has started a retry yet");
                if has {
                    cache.has("other").await;
                } else {
                    cache.get("other").await;
                }
                sleep(ms(300)).await;
                assert_eq!(store.peek("k"), None, "{write:?}");
            });
        }
    }
}
