//! The look at the shared level is the leader's to poll, and nobody depends on that.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Waker},
    time::Duration,
};

use lazy_layers_cache::{
    Builder, ErrorKind, Event, FailSafe, L2Timeouts, StaleReason, Timeouts, WireCodec,
    testing::{SharedStore, TokioClock},
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Cache, Gate, Origin, ms, on_tokio_time,
    road::{Fate, Road},
};

fn builder(store: &SharedStore, begin: fn(&str) -> Fate) -> Builder<String, u32> {
    let limits = L2Timeouts::default().read(ms(60_000));
    let road = Road { begin, ..Road::to(store) };
    on_tokio_time().l2(road, WireCodec::new()).l2_timeouts(limits).ttl(ms(60_000))
}

/// A look takes 100 ms.
fn slow() -> (SharedStore, Cache) {
    let store = SharedStore::new(TokioClock::new());
    let cache = builder(&store, |_| Fate::Arrives(100)).build().unwrap();
    (store, cache)
}

async fn with_a_value(store: &SharedStore) {
    let writer = on_tokio_time().l2(store.clone(), WireCodec::new()).build().unwrap();
    writer.set("k", 7).await.unwrap();
}

/// What hangs is to fail.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls it once, and no more.
fn begin<F: Future + Unpin>(future: &mut F) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(future).poll(&mut context).is_pending());
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn a_hit_in_the_shared_level_costs_no_task() {
    let (store, cache) = slow();
    with_a_value(&store).await;
    let before = tasks();
    let mut call = cache.get_or_set("k", Origin::default().load(Gate::Never)).into_future();
    begin(&mut call);
    tokio::time::sleep(ms(50)).await;
    assert_eq!(tasks(), before);
    assert_eq!(call.await.unwrap().as_deref(), Some(&7));
}

#[tokio::test(start_paused = true)]
async fn who_joins_does_not_depend_on_the_leader() {
    for there in [true, false] {
        let (store, cache) = slow();
        if there {
            with_a_value(&store).await;
        }
        let origin = Origin::default();
        let mut leader = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
        begin(&mut leader);
        let begun = Instant::now();
        let joining = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
        let joined = tokio::time::timeout(PATIENCE, joining).await.unwrap().unwrap();
        assert_eq!(joined.as_deref(), Some(if there { &7 } else { &1 }));
        assert_eq!((begun.elapsed(), origin.loads()), (ms(100), usize::from(!there)));
        assert_eq!(leader.await.unwrap(), joined);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_carries_nothing_any_more_hears_of_the_landing() {
    let (_, cache) = slow();
    let origin = Origin::default();
    let leader = tokio::spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        async move { cache.get_or_set("k", load).await }
    });
    tokio::time::sleep(ms(50)).await;
    let joined = cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    let led = tokio::time::timeout(PATIENCE, leader).await.expect("it was told");
    assert_eq!((led.unwrap().unwrap(), origin.loads()), (joined, 1));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_away_leaves_a_load_that_goes_on() {
    let (store, cache) = slow();
    let origin = Origin::default();
    let mut leader = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
    begin(&mut leader);
    drop(leader);
    tokio::time::sleep(ms(101)).await;
    assert_eq!((origin.loads(), cache.get_l1("k").as_deref()), (1, Some(&1)));
    assert!(store.peek("k").is_some(), "published for all");
    assert_eq!(cache.stats().loads_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_takes_a_copy_leaves_a_load_that_goes_on() {
    let store = SharedStore::new(TokioClock::new());
    let cache = builder(&store, |_| Fate::Arrives(100))
        .fail_safe(FailSafe::enabled())
        .timeouts(Timeouts::none().soft(ms(10)))
        .build()
        .unwrap();
    let origin = Origin::default();
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::sleep(ms(60_001)).await;
    let begun = Instant::now();
    let served = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((served.stale, begun.elapsed()), (Some(StaleReason::SoftTimeout), ms(10)));
    tokio::time::sleep(ms(91)).await;
    assert_eq!(cache.get_l1("k").as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_not_polled_does_not_hold_up_the_end() {
    let (store, cache) = slow();
    with_a_value(&store).await;
    let mut leader = cache.get_or_set("k", Origin::default().load(Gate::Ok)).into_future();
    begin(&mut leader);
    let begun = Instant::now();
    cache.close().await;
    assert!(begun.elapsed() <= ms(6_000), "{:?}", begun.elapsed());
    assert!(leader.await.is_err(), "nothing is begun any more");
    assert_eq!(cache.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_the_end_interrupts_is_over_at_once() {
    let store = SharedStore::new(TokioClock::new());
    let cache = builder(&store, |_| Fate::IsNotAnswered).build().unwrap();
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_set("k", Origin::default().load(Gate::Ok)).await }
    });
    tokio::time::sleep(ms(50)).await;
    let begun = Instant::now();
    cache.close().await;
    assert!(leader.await.unwrap().is_err());
    assert_eq!(begun.elapsed(), ms(5_000), "as long as loads are given");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_is_an_error_of_this_call() {
    let store = SharedStore::new(TokioClock::new());
    let cache = builder(&store, |_| panic!("a store that panics")).build().unwrap();
    let error = cache.get_or_set("k", Origin::default().load(Gate::Ok)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Abandoned);
    assert_eq!(cache.stats().loads_in_flight, 0);
}

#[test]
fn who_joins_while_the_look_is_polled_does_not_depend_on_the_leader_either() {
    static IS_POLLED: AtomicBool = AtomicBool::new(false);
    static HAS_JOINED: AtomicBool = AtomicBool::new(false);
    fn wait_for(flag: &AtomicBool) {
        let begun = std::time::Instant::now();
        while !flag.load(Ordering::SeqCst) {
            assert!(begun.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
    }
    let road = Road {
        begin: |_| {
            IS_POLLED.store(true, Ordering::SeqCst);
            wait_for(&HAS_JOINED);
            Fate::Arrives(1)
        },
        ..Road::to(&SharedStore::new(TokioClock::new()))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let cache = Cache::builder().l2(road, WireCodec::new()).build().unwrap();
    let _subscription = cache.on(|event| {
        if let Event::InflightReuse { .. } = event {
            HAS_JOINED.store(true, Ordering::SeqCst);
        }
    });
    let origin = Origin::default();
    let mut leader = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let _entered = runtime.enter();
            begin(&mut leader);
        });
        wait_for(&IS_POLLED);
        runtime.block_on(async {
            let joining = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
            let joined = tokio::time::timeout(PATIENCE, joining).await.expect("it goes on");
            assert_eq!(joined.unwrap().as_deref(), Some(&1));
        });
    });
    assert_eq!(runtime.block_on(leader).unwrap().as_deref(), Some(&1));
}

/// Leaders and those who join them, as they come and go on two threads: nobody is left waiting.
#[test]
fn a_look_changes_hands_at_any_moment() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    let store = SharedStore::new(TokioClock::new());
    let road = Road { begin: |_| Fate::Yields(3), ..Road::to(&store) };
    let cache = Cache::builder().without_l1().l2(road, WireCodec::new()).build().unwrap();
    runtime.block_on(async {
        for round in 0..2_000 {
            let mut all = JoinSet::new();
            for caller in 0..4 {
                let cache = cache.clone();
                all.spawn(async move {
                    let load = || async { Ok::<_, std::fmt::Error>(1) };
                    let key = round.to_string();
                    let mut call = cache.get_or_set(&key, load).into_future();
                    if caller % 2 == 1 {
                        return *call.await.unwrap();
                    }
                    // Polled once, and gone.
                    let mut context = Context::from_waker(Waker::noop());
                    drop(pin!(&mut call).poll(&mut context));
                    1
                });
            }
            let all = tokio::time::timeout(PATIENCE, all.join_all()).await;
            assert_eq!(all.expect("nobody is left waiting"), [1; 4]);
        }
    });
    runtime.block_on(cache.close());
}
