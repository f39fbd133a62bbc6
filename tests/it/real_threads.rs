//! Races on real threads, which paused time cannot produce.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lazy_layers_cache::{
    EventBusOptions, FailSafe, L1Options, LazyLayersCache, LocalTransport, WireCodec,
};

use crate::support::{Broken, ms};

const KEYS: usize = 4;
const TASKS: u64 = 8;
const STEPS: usize = 20_000;

/// Each task changes the origin, invalidates and reads, over and over: no read may return a version
/// older than the reader's own last invalidation.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_never_gets_a_value_from_before_its_own_invalidation() {
    let versions: Arc<[AtomicU64; KEYS]> = Arc::default();
    // Two entries, so that eviction takes part.
    let cache = LazyLayersCache::<usize, u64>::builder()
        .l1(L1Options::default().max_entries(2))
        .fail_safe(FailSafe::enabled())
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|seed| {
            let (cache, versions) = (cache.clone(), Arc::clone(&versions));
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..STEPS {
                    let key = random.usize(0..KEYS);
                    let mut at_least = 0;
                    match random.u8(0..8) {
                        0..=2 => {
                            at_least = versions[key].fetch_add(1, Ordering::SeqCst) + 1;
                            cache.delete(&key).await.unwrap();
                        }
                        3 => {
                            at_least = versions[key].fetch_add(1, Ordering::SeqCst) + 1;
                            cache.delete_by_pattern(&format!("[{key}]")).await.unwrap();
                        }
                        4 => {
                            at_least = versions[key].fetch_add(1, Ordering::SeqCst) + 1;
                            cache.clear().await.unwrap();
                        }
                        _ => {}
                    }
                    let (origin, waits) = (Arc::clone(&versions), random.u8(0..4));
                    let fails = random.u8(0..10) == 0;
                    let load = move || async move {
                        let version = origin[key].load(Ordering::SeqCst);
                        for _ in 0..waits {
                            tokio::task::yield_now().await;
                        }
                        if fails { Err(Broken) } else { Ok(version) }
                    };
                    let read = cache.get_or_set(&key, load);
                    let read = if random.bool() { read.refresh().await } else { read.await };
                    if let Ok(version) = read {
                        assert!(*version >= at_least, "key {key}: {version} after {at_least}");
                    }
                    if let Some(version) = cache.get_l1(&key) {
                        assert!(
                            *version >= at_least,
                            "key {key}: {version} after {at_least} in L1"
                        );
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(cache.stats().loads_in_flight, 0);
}

/// A value whose `Drop` uses the cache: the cache must never drop it under a lock of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_drop_of_a_value_may_use_the_cache() {
    struct UsesCacheOnDrop(std::sync::Mutex<Option<LazyLayersCache<usize, UsesCacheOnDrop>>>);
    impl Drop for UsesCacheOnDrop {
        fn drop(&mut self) {
            let cache = self.0.get_mut().unwrap().take();
            if let Some(cache) = cache {
                for key in 0..8 {
                    let _ = cache.get_l1(&key);
                    let _ = cache.stats();
                }
                let delete = std::pin::pin!(cache.delete(&3));
                let waker = std::task::Waker::noop();
                assert!(delete.poll(&mut std::task::Context::from_waker(waker)).is_ready());
            }
        }
    }
    let cache = LazyLayersCache::<usize, UsesCacheOnDrop>::builder()
        .ttl(ms(1))
        .l1(L1Options::default().max_entries(4))
        .fail_safe(FailSafe::enabled().throttle(ms(0)))
        .build()
        .unwrap();
    let all = async {
        let tasks: Vec<_> = (0..4)
            .map(|seed| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..2_000 {
                        let key = random.usize(0..8);
                        let value = UsesCacheOnDrop(std::sync::Mutex::new(Some(cache.clone())));
                        match random.u8(0..6) {
                            0 => drop(cache.set(&key, value).await.unwrap()),
                            1 => drop(cache.delete(&key).await.unwrap()),
                            2 => drop(cache.clear().await.unwrap()),
                            3 => {
                                let fail = || async { Err::<UsesCacheOnDrop, _>(Broken) };
                                let _ = cache.get_or_set(&key, fail).await;
                            }
                            _ => {
                                let load = || async {
                                    tokio::task::yield_now().await;
                                    Ok::<_, Broken>(value)
                                };
                                // Fails if it joined a failing load.
                                let _ = cache.get_or_set(&key, load).await;
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    };
    tokio::time::timeout(ms(60_000), all).await.expect("no deadlock");
}

/// Two instances that prime each other: after a delete on one instance, its callers get no older
/// value there, however late a value of the peer arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_value_of_a_peer_undoes_a_delete() {
    let versions: Arc<[AtomicU64; KEYS]> = Arc::default();
    let bus = LocalTransport::new();
    let instances: Vec<_> = (0..2).map(|_| instance(&bus)).collect();
    for instance in &instances {
        instance.ready().await.unwrap();
    }
    // Until the instances have discovered each other and accept values.
    for key in KEYS.. {
        let load = || async { Ok::<_, Broken>(0) };
        instances[0].get_or_set(&key, load).await.unwrap();
        tokio::time::sleep(ms(20)).await;
        if instances[1].stats().values_received > 0 {
            break;
        }
        assert!(key < 2_000, "no value is accepted");
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|seed| {
            let (versions, cache) = (Arc::clone(&versions), instances[seed as usize % 2].clone());
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for step in 0..STEPS / 4 {
                    let key = random.usize(0..KEYS);
                    let mut at_least = 0;
                    if random.u8(0..8) == 0 {
                        at_least = versions[key].fetch_add(1, Ordering::SeqCst) + 1;
                        if random.u8(0..8) == 0 {
                            cache.clear().await.unwrap();
                        } else {
                            cache.delete(&key).await.unwrap();
                        }
                    }
                    let origin = Arc::clone(&versions);
                    let load = move || async move {
                        let version = origin[key].load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Ok::<_, Broken>(version)
                    };
                    let read = *cache.get_or_set(&key, load).await.unwrap();
                    assert!(read >= at_least, "{read} after {at_least} of key {key}, step {step}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    // At the end both instances are up to date.
    tokio::time::sleep(ms(1_000)).await;
    for (key, version) in versions.iter().enumerate() {
        for instance in &instances {
            let held = instance.get_l1(&key);
            let newest = version.load(Ordering::SeqCst);
            assert!(held.as_deref().is_none_or(|held| *held == newest), "{held:?}, not {newest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn close_returns_while_writers_keep_writing() {
    for _ in 0..50 {
        let bus = LocalTransport::new();
        let instances = [instance(&bus), instance(&bus)];
        let writers = instances.clone().map(|cache| {
            tokio::spawn(async move {
                for key in 0.. {
                    if cache.set(&(key % 100), key as u64).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        tokio::time::sleep(ms(5)).await;
        for instance in &instances {
            let closed = tokio::time::timeout(ms(20_000), instance.close()).await;
            closed.expect("close returns");
            assert_eq!(instance.stats().l1_entries, 0);
        }
        for writer in writers {
            writer.await.unwrap();
        }
    }
}

fn instance(bus: &LocalTransport) -> LazyLayersCache<usize, u64> {
    LazyLayersCache::builder()
        .name("test")
        .event_bus(bus.clone(), WireCodec::new())
        .event_bus_options(EventBusOptions::default().trust_timeout(ms(300)))
        .build()
        .unwrap()
}
