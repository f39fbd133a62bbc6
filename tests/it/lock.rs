//! The distributed lock: instances that share an L2 load a key once. Paused time.

use std::time::Duration;

use lazy_layers_cache::{
    DistributedLock, FailSafe, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, Publication,
    Source, StaleReason, Store, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};

use crate::support::{
    Broken, Cache, Gate, Log, Origin, REFRESH, SLOW,
    faulty_store::{Fate, FaultyStore},
    ms, on_tokio_time,
};

fn instance(store: impl Store, lock: DistributedLock) -> Cache {
    on_tokio_time()
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)))
        .distributed_lock(lock)
        .l2(store, WireCodec::new())
        .build()
        .unwrap()
}

fn world() -> (SharedStore, Cache, Cache, Origin) {
    let store = SharedStore::new(TokioClock::new());
    let lock = DistributedLock::enabled;
    let (left, right) = (instance(store.clone(), lock()), instance(store.clone(), lock()));
    (store, left, right, Origin::default())
}

fn load(cache: &Cache, origin: &Origin, gate: Gate) -> tokio::task::JoinHandle<Option<u32>> {
    let (cache, load) = (cache.clone(), origin.load(gate));
    tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap().as_deref().copied() })
}

/// Takes the lock of the key, if it is free.
async fn is_free(store: &SharedStore) -> bool {
    let taken = store.lock("k", "another", ms(1), None).await.unwrap();
    taken == LockResponse::Acquired
}

#[tokio::test(start_paused = true)]
async fn an_instance_waits_for_the_value_that_a_peer_loads() {
    let (store, left, right, origin) = world();
    let log = Log::of(&right);
    let first = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(1)).await;
    let second = load(&right, &origin, Gate::Slow);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Some(1), Some(1)));
    assert_eq!(origin.loads(), 1);
    assert_eq!(log.take(), ["lock:wait", "hit"]);
    tokio::time::sleep(ms(1)).await;
    assert!(is_free(&store).await, "the lock was released");
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_released_however_the_load_ends() {
    for gate in [Gate::Err, Gate::Panic, Gate::None, Gate::SlowErr] {
        let (store, left, _, origin) = world();
        let _ = left.get_or_set("k", origin.load(gate)).await;
        tokio::time::sleep(ms(1)).await;
        assert!(is_free(&store).await, "{gate:?}");
    }
    let (store, left, _, origin) = world();
    let loading = load(&left, &origin, Gate::Never);
    tokio::time::sleep(ms(10)).await;
    assert!(!is_free(&store).await);
    loading.abort();
    drop(left);
    tokio::time::sleep(ms(10)).await;
    assert!(is_free(&store).await, "the cache was dropped");
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_renewed_while_the_loader_runs() {
    let store = SharedStore::new(TokioClock::new());
    let lock = || DistributedLock::enabled().ttl(ms(90)).wait_timeout(ms(10_000));
    let (left, right) = (instance(store.clone(), lock()), instance(store.clone(), lock()));
    let origin = Origin::default();
    let first = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(1)).await;
    let second = load(&right, &origin, Gate::Slow);
    assert!(SLOW > ms(180));
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Some(1), Some(1)));
    assert_eq!(origin.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_wait_timeout_a_caller_gets_a_stale_value_or_loads_without_the_lock() {
    let (_, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::sleep(ms(1_500)).await;
    let stuck = load(&left, &origin, Gate::Never);
    tokio::time::sleep(ms(1)).await;
    let log = Log::of(&right);
    let begun = tokio::time::Instant::now();
    let outcome = right.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!(
        (outcome.value.as_deref(), outcome.stale),
        (Some(&1), Some(StaleReason::LockTimeout))
    );
    assert!((ms(2_000)..ms(2_100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(log.take(), ["lock:wait", "lock:timeout", "stale:hit(lock-timeout)"]);
    stuck.abort();

    let (_, left, right, origin) = world();
    let stuck = load(&left, &origin, Gate::Never);
    tokio::time::sleep(ms(1)).await;
    let outcome = right.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((outcome.value.as_deref(), outcome.source), (Some(&2), Source::Loader));
    stuck.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_is_reported_and_the_load_goes_on() {
    let (store, left, _, origin) = world();
    let log = Log::of(&left);
    let cache = left.clone();
    let slow = origin.load(Gate::Ok);
    let loading = tokio::spawn(async move {
        let load = move || async move {
            tokio::time::sleep(ms(5_000)).await;
            slow().await
        };
        cache.get_or_set("k", load).await.unwrap().as_deref().copied()
    });
    tokio::time::sleep(ms(10)).await;
    store.restart();
    assert_eq!(loading.await.unwrap(), Some(1));
    assert!(log.take().contains(&"lock:lost".to_owned()));
    assert_eq!(store.peek("k"), None, "the lease is lost too, so L2 refuses the value");
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_of_l2_a_load_runs_without_the_lock() {
    let (store, left, _, origin) = world();
    store.set_fault(StoreFault::Fails);
    assert_eq!(load(&left, &origin, Gate::Ok).await.unwrap(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_released_even_if_its_grant_was_never_received() {
    for is_dropped in [false, true] {
        let store = SharedStore::new(TokioClock::new());
        let faulty = FaultyStore { lock: |_| Fate::NotAnswered, ..FaultyStore::to(&store) };
        let cache = instance(faulty, DistributedLock::enabled());
        let loading = load(&cache, &Origin::default(), Gate::Ok);
        tokio::time::sleep(ms(10)).await;
        assert!(!is_free(&store).await);
        if is_dropped {
            loading.abort();
        } else {
            assert_eq!(loading.await.unwrap(), Some(1));
        }
        drop(cache);
        tokio::time::sleep(ms(10)).await;
        assert!(is_free(&store).await, "is dropped: {is_dropped}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_ttl_does_not_lose_the_lock() {
    for (ends, is_lost) in [(800, false), (3_000, true)] {
        let store = SharedStore::new(TokioClock::new());
        let cache = instance(store.clone(), DistributedLock::enabled().ttl(ms(900)));
        let log = Log::of(&cache);
        let loading = load(&cache, &Origin::default(), Gate::Never);
        tokio::time::sleep(ms(200)).await;
        store.set_fault(StoreFault::Fails);
        tokio::time::sleep(ms(ends - 200)).await;
        store.set_fault(StoreFault::None);
        tokio::time::sleep(ms(3_000)).await;
        assert_eq!(log.take().contains(&"lock:lost".to_owned()), is_lost, "after {ends} ms");
        assert_eq!(is_free(&store).await, is_lost);
        loading.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_a_wait_timeout_waits_for_the_result() {
    let store = SharedStore::new(TokioClock::new());
    let lock = || DistributedLock::enabled().wait_timeout(Duration::MAX);
    let (left, right) = (instance(store.clone(), lock()), instance(store, lock()));
    let origin = Origin::default();
    let first = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(1)).await;
    let second = load(&right, &origin, Gate::Slow);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (Some(1), Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_bus_wakes_a_caller_that_waits_for_the_lock() {
    let store = SharedStore::new(TokioClock::new());
    let bus = SharedBus::new(1);
    let lock = DistributedLock::enabled().poll(ms(60_000)).wait_timeout(ms(120_000));
    let build = || {
        on_tokio_time()
            .l2(store.clone(), WireCodec::new())
            .name("test")
            .event_bus(bus.link(), WireCodec::new())
            .distributed_lock(lock.clone())
            .build()
            .unwrap()
    };
    let (left, right, origin) = (build(), build(), Origin::default());
    left.ready().await.unwrap();
    right.ready().await.unwrap();
    // Until the instances have discovered each other.
    tokio::time::sleep(ms(3_200)).await;
    let loads = [&left, &right].map(|cache| {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    });
    let began = tokio::time::Instant::now();
    for load in loads {
        load.await.unwrap();
    }
    assert!(began.elapsed() < SLOW + ms(10), "{:?}", began.elapsed());
    assert_eq!(left.stats().loads + right.stats().loads, 1);
}

/// Loads the key on each of several instances at once, and returns the answers and their time.
async fn load_everywhere(
    caches: &[Cache],
    origin: &Origin,
    result: fn() -> Result<Option<u32>, Broken>,
) -> (Vec<Option<Option<u32>>>, Duration) {
    let begun = tokio::time::Instant::now();
    let calls = caches.iter().map(|cache| {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move {
            let loader = move || async move {
                load().await.unwrap();
                result()
            };
            cache.get_or_set("k", loader).await.ok().map(|value| value.as_deref().copied())
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    (answers, begun.elapsed())
}

fn five_instances(store: &SharedStore) -> Vec<Cache> {
    (0..5).map(|_| instance(store.clone(), DistributedLock::enabled())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_is_loaded_once_by_all_instances_without_negative_entries_too() {
    let (store, _, _, origin) = world();
    let caches = five_instances(&store);
    let (answers, took) = load_everywhere(&caches, &origin, || Ok(None)).await;
    assert_eq!((answers, origin.loads()), (vec![Some(None); 5], 1));
    assert!(took <= SLOW + ms(60), "{took:?}: one load and one poll");
    // Callers that have not waited load for themselves.
    let (answers, _) = load_everywhere(&caches[..1], &origin, || Ok(None)).await;
    assert_eq!((answers, origin.loads()), (vec![Some(None)], 2));
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_wakes_all_waiters_which_load_at_once() {
    let (store, _, _, origin) = world();
    let caches = five_instances(&store);
    let (answers, took) = load_everywhere(&caches, &origin, || Err(Broken)).await;
    assert_eq!((answers, origin.loads()), (vec![None; 5], 5));
    assert!(took <= SLOW * 2 + ms(60), "{took:?}: not one load after the other");
    caches[0].set("k", 7).ttl(ms(10)).await.unwrap();
    tokio::time::sleep(ms(20)).await;
    let (answers, _) = load_everywhere(&five_instances(&store), &origin, || Err(Broken)).await;
    assert_eq!((answers, origin.loads()), (vec![Some(Some(7)); 5], 6), "all had a copy");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_take_a_result_from_before_an_invalidation_that_it_began_after() {
    let (store, _, right, origin) = world();
    assert_eq!(store.lock("k", "peer", ms(9_000), None).await.unwrap(), LockResponse::Acquired);
    let request = LeaseRequest { refresh: false, ..REFRESH };
    let response = store.get_or_lease("k", request).await.unwrap();
    let LeaseResponse::Load { lease: Some(lease), .. } = response else { panic!("{response:?}") };
    let none = Publication::Missing { ttl: ms(0) };
    assert!(store.publish("k", &lease, none).await.unwrap());
    // The row is inserted, and the key is deleted.
    store.delete("k").await.unwrap();
    let load = origin.load(Gate::Ok);
    let waiter =
        tokio::spawn(async move { right.get_or_set("k", load).await.unwrap().as_deref().copied() });
    tokio::time::sleep(ms(60)).await;
    store.unlock("k", "peer", Some(LoadEnd::Missing(lease))).await.unwrap();
    assert_eq!((waiter.await.unwrap(), origin.loads()), (Some(1), 1));
}
