//! Event handlers: added, removed, and badly behaved.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use crate::support::{Broken, Cache, Gate, Log, Origin, ms, on_tokio_time};

#[tokio::test]
async fn a_removed_handler_is_not_called_again() {
    let cache = Cache::builder().build().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let add = || {
        let calls = Arc::clone(&calls);
        cache.on(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (first, second) = (add(), add());
    cache.get("k").await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    drop(first);
    cache.get("k").await;
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    drop(second);
    cache.get("k").await;
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_handler_guard_may_outlive_its_cache() {
    let cache = Cache::builder().build().unwrap();
    let guard = cache.on(|_| {});
    drop(cache);
    drop(guard);
}

#[tokio::test]
async fn a_panic_of_a_handler_affects_neither_the_call_nor_other_handlers() {
    let cache = Cache::builder().build().unwrap();
    let _bad = cache.on(|_| panic!("as the test wants"));
    let log = Log::of(&cache);
    let origin = Origin::default();
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "set"]);
}

#[test]
fn a_handler_that_blocks_delays_its_own_call_and_no_other() {
    let cache = Cache::builder().build().unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let (entered, has_entered) = mpsc::channel();
    let _guard = cache.on(move |event| {
        if event.name() == "delete" {
            entered.send(()).unwrap();
            blocked.lock().unwrap().recv().unwrap();
        }
    });
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| runtime().block_on(cache.delete("k")));
        has_entered.recv().unwrap();
        runtime().block_on(async {
            // The key of the blocked call: the cache holds no lock while it calls a handler.
            cache.set("k", 1).await.unwrap();
            assert_eq!(cache.get("k").await.as_deref(), Some(&1));
            cache.get_or_set("other", || async { Ok::<_, Broken>(2) }).await.unwrap();
            cache.clear().await.unwrap();
        });
        assert!(!deleting.is_finished());
        release.send(()).unwrap();
        deleting.join().unwrap().unwrap();
    });
}

#[tokio::test]
async fn a_handler_may_use_the_cache() {
    let cache = Cache::builder().build().unwrap();
    let inner = cache.clone();
    let _guard = cache.on(move |event| {
        if event.name() == "set" {
            assert!(inner.get_l1(event.key().unwrap()).is_some());
            drop(inner.on(|_| {}));
        }
    });
    cache.set("k", 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn counts_agree_with_events() {
    let cache = on_tokio_time().build().unwrap();
    let (log, origin) = (Log::of(&cache), Origin::default());
    for key in ["a", "b", "a", "a"] {
        cache.get_or_set(key, origin.load(Gate::Ok)).await.unwrap();
    }
    cache.get_or_set("c", origin.load(Gate::Err)).await.unwrap_err();
    let (left, right) = tokio::join!(
        cache.get_or_set("d", origin.load(Gate::Slow)),
        cache.get_or_set("d", origin.load(Gate::Slow)),
    );
    left.unwrap();
    right.unwrap();
    tokio::time::advance(ms(1)).await;
    let lines = log.take();
    let count = |name: &str| lines.iter().filter(|line| *line == name).count() as u64;
    let stats = cache.stats();
    assert_eq!(stats.l1_hits, count("hit"));
    assert_eq!(stats.misses, count("miss"));
    assert_eq!(stats.joined, count("inflight:reuse"));
    assert_eq!((stats.loads, stats.loads), (count("loader:start"), origin.loads() as u64));
    assert_eq!(stats.load_failures, count("loader:error"));
    assert_eq!((stats.l1_hits, stats.misses, stats.joined, stats.load_failures), (2, 4, 1, 1));
}
