//! At most two loads of a key run at once, also while it is deleted all the time; and which callers
//! take the result of a load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake},
    time::Duration,
};

use lazy_layers_cache::{
    CacheBuilder, Clock, Coalescing, DistributedLock, L1Options, Loaded, Source, Timeouts,
    WireCodec, WireLimits,
    testing::{SharedBus, SharedStore, TokioClock},
};
use tokio::time::{Instant, sleep};

use crate::support::{Broken, Cache, Gate, Origin, SLOW, ms, on_tokio_time, settle};

/// An origin whose version rises with each change, and that counts its loads.
#[derive(Clone, Default)]
struct Busy {
    version: Arc<AtomicU32>,
    /// The version of the last delete that has returned.
    acknowledged: Arc<AtomicU32>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    loads: Arc<AtomicUsize>,
}

const LOAD: Duration = ms(200);

impl Busy {
    fn load(&self) -> impl FnOnce() -> BusyLoad + Send + 'static {
        let this = self.clone();
        move || {
            let running = this.running.fetch_add(1, SeqCst) + 1;
            this.most.fetch_max(running, SeqCst);
            this.loads.fetch_add(1, SeqCst);
            let version = this.version.load(SeqCst);
            Box::pin(async move {
                sleep(LOAD).await;
                this.running.fetch_sub(1, SeqCst);
                Ok(Some(version))
            })
        }
    }

    async fn change(&self, cache: &Cache) {
        let version = self.version.fetch_add(1, SeqCst) + 1;
        cache.delete("k").await.unwrap();
        self.acknowledged.fetch_max(version, SeqCst);
    }

    fn every(&self, pause: u64, cache: &Cache) -> tokio::task::JoinHandle<()> {
        let (this, cache) = (self.clone(), cache.clone());
        tokio::spawn(async move {
            loop {
                sleep(ms(pause)).await;
                this.change(&cache).await;
            }
        })
    }
}

type BusyLoad =
    std::pin::Pin<Box<dyn Future<Output = Result<Option<u32>, Broken>> + Send + 'static>>;

/// The figure of decision 9: 2,000 callers of one key, a loader of 200 ms, a delete by a peer every
/// 150 ms and one of this instance every 5 ms.
async fn storm(build: impl Fn(CacheBuilder<String, u32>) -> CacheBuilder<String, u32>) {
    const SECONDS: u32 = 3;
    let origin = Busy::default();
    let (here, peer) =
        (build(on_tokio_time()).build().unwrap(), build(on_tokio_time()).build().unwrap());
    let deletes = [origin.every(150, &peer), origin.every(5, &here)];
    let end = Instant::now() + Duration::from_secs(SECONDS.into());
    let callers: Vec<_> = (0..2_000u64)
        .map(|caller| {
            let (here, origin) = (here.clone(), origin.clone());
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while Instant::now() < end {
                    let (begun, known) = (Instant::now(), origin.acknowledged.load(SeqCst));
                    let value = here.get_or_set("k", origin.load()).await.unwrap().unwrap();
                    assert!(*value >= known, "{value} is older than {known}");
                    longest = longest.max(begun.elapsed());
                    sleep(ms(caller % 40 * 5)).await;
                }
                longest
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for caller in callers {
        longest = longest.max(caller.await.unwrap());
    }
    deletes.into_iter().for_each(|task| task.abort());
    let loads = u32::try_from(origin.loads.load(SeqCst)).unwrap();
    let most = origin.most.load(SeqCst);
    println!("at most {most} loads at once, {loads} in {SECONDS} s, the longest wait {longest:?}");
    assert!(most <= 2, "{most} loads at once");
    assert!(loads <= 11 * (SECONDS + 1), "{loads} loads in {SECONDS} s and the last calls");
    assert!(longest <= 2 * LOAD + ms(20), "a caller waited for {longest:?}");
    assert_eq!(here.stats().bypassed, 0);
}

#[tokio::test(start_paused = true)]
async fn deletes_that_come_faster_than_a_load_takes_leave_two_loads_at_once() {
    storm(|builder| builder).await;
}

#[tokio::test(start_paused = true)]
async fn so_do_deletes_of_a_peer_over_l2() {
    let store = SharedStore::new(TokioClock::new());
    storm(|builder| builder.l2(store.clone(), WireCodec::new())).await;
    storm(|builder| builder.l2(store.clone(), WireCodec::new()).without_l1()).await;
}

#[tokio::test(start_paused = true)]
async fn so_do_deletes_of_a_peer_over_l2_and_a_bus() {
    let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
    storm(|builder| {
        builder
            .l2(store.clone(), WireCodec::new())
            .name("test")
            .event_bus(bus.link(), WireCodec::new())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn so_do_deletes_of_a_peer_with_the_lock() {
    let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
    storm(|builder| {
        builder.l2(store.clone(), WireCodec::new()).distributed_lock(DistributedLock::enabled())
    })
    .await;
    storm(|builder| {
        builder
            .l2(store.clone(), WireCodec::new())
            .distributed_lock(DistributedLock::enabled())
            .name("test")
            .event_bus(bus.link(), WireCodec::new())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_after_a_call_serves_it_although_it_may_not_be_cached() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let spawn = || {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set("k", load).outcome().await.unwrap() })
    };
    // Two loads that nobody can join any more.
    let before: Vec<_> = [0, 1].map(|_| spawn()).into();
    settle().await;
    cache.delete("k").await.unwrap();
    let second = spawn();
    settle().await;
    cache.delete("k").await.unwrap();
    sleep(ms(100)).await;
    let waiting: Vec<_> = (0..5).map(|_| spawn()).collect();
    settle().await;
    assert_eq!((origin.loads(), cache.stats().loads_in_flight), (2, 2));
    for caller in before {
        assert_eq!(caller.await.unwrap().value.as_deref(), Some(&1));
    }
    settle().await;
    assert_eq!(origin.loads(), 3, "the next one begins when one of the two ends");
    cache.delete("k").await.unwrap();
    assert_eq!(second.await.unwrap().value.as_deref(), Some(&2));
    let begun = Instant::now();
    for caller in waiting {
        assert_eq!(caller.await.unwrap().value.as_deref(), Some(&3));
    }
    assert_eq!(begun.elapsed(), SLOW);
    assert_eq!((cache.get_l1("k"), cache.stats().loads_in_flight), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn callers_that_stop_waiting_for_the_next_load_leave_nothing_behind() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    for _ in 0..2 {
        drop(spawn(Gate::Slow));
        settle().await;
        cache.delete("k").await.unwrap();
    }
    let waiting: Vec<_> = (0..10).map(|_| spawn(Gate::Slow)).collect();
    settle().await;
    // The first one was to lead; each is dropped alone.
    waiting[..9].iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    let last = waiting.into_iter().next_back().unwrap();
    assert_eq!(last.await.unwrap().as_deref(), Some(&3));
    assert_eq!((origin.loads(), cache.stats().loads_in_flight), (3, 0));
    for _ in 0..2 {
        cache.delete("k").await.unwrap();
        drop(spawn(Gate::Slow));
        settle().await;
    }
    cache.delete("k").await.unwrap();
    let alone = spawn(Gate::Slow);
    settle().await;
    alone.abort();
    sleep(SLOW * 2).await;
    assert_eq!((origin.loads(), cache.stats().loads_in_flight), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_not_polled_does_not_keep_the_others_waiting() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    for _ in 0..2 {
        tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            async move { cache.get_or_set("k", load).await }
        });
        settle().await;
        cache.delete("k").await.unwrap();
    }
    let mut unpolled = std::pin::pin!(cache.get_or_set("k", origin.load(Gate::Ok)).into_future());
    let first =
        std::future::poll_fn(|context| Poll::Ready(unpolled.as_mut().poll(context).is_pending()));
    assert!(first.await);
    let other = tokio::spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Ok));
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    sleep(SLOW + ms(1)).await;
    assert_eq!(other.await.unwrap().as_deref(), Some(&3));
    assert_eq!(unpolled.await.unwrap().as_deref(), Some(&3));
}

/// How a load ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Value,
    TooLargeForL2,
    ZeroTtl,
    None,
    Fails,
    Panics,
    TimesOut,
}

const ENDS: [End; 7] = [
    End::Value,
    End::TooLargeForL2,
    End::ZeroTtl,
    End::None,
    End::Fails,
    End::Panics,
    End::TimesOut,
];

/// What a caller gets: the number of the load, none, or an error.
type Got = Result<Option<String>, ()>;

type Texts = lazy_layers_cache::LazyLayersCache<String, String>;

fn texts() -> CacheBuilder<String, String> {
    Texts::builder().clock(TokioClock::new()).ttl(ms(60_000)).l1(L1Options::default())
}

fn call(cache: &Texts, end: End, number: u32) -> tokio::task::JoinHandle<Got> {
    let cache = cache.clone();
    tokio::spawn(async move {
        let loader = move || async move {
            sleep(SLOW).await;
            Ok::<_, Broken>(match end {
                End::Value => Loaded::value(number.to_string()),
                End::TooLargeForL2 => Loaded::value(format!("{number}{}", " ".repeat(5_000))),
                End::ZeroTtl => Loaded::value(number.to_string()).ttl(Duration::ZERO),
                End::None => Loaded::none(),
                End::Fails => return Err(Broken),
                End::Panics => panic!("the loader panics on purpose"),
                End::TimesOut => std::future::pending().await,
            })
        };
        let hard = Timeouts::none().hard(ms(300));
        let request = cache.get_or_set("k", loader).timeouts(hard);
        let value = request.await.map_err(drop)?;
        Ok(value.map(|value| value.trim_end().to_owned()))
    })
}

/// The origin's answer changes, a peer deletes the key, and then a caller joins a load from before.
async fn a_late_follower_gets_a_newer_load(
    here: &Texts,
    end: End,
    how: &str,
    delete: impl AsyncFnOnce(),
) {
    let leader = call(here, end, 1);
    sleep(ms(100)).await;
    delete().await;
    // Joins the load, and would end as it does; a load of its own gives 2.
    let late = [(); 3].map(|()| {
        let (cache, end) = (here.clone(), End::Value);
        call(&cache, end, 2)
    });
    let before = here.stats().joined;
    settle().await;
    assert_eq!(here.stats().joined - before, 3, "{end:?}, {how}: they joined");
    for late in late {
        let got = late.await.unwrap();
        // Each of them has a hard timeout of its own, of 300 ms from its call.
        assert!(got == Ok(Some("2".to_owned())) || got.is_err(), "{end:?}, {how}: {got:?}");
    }
    let _ = leader.await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_after_a_delete_of_a_peer_over_l2_needs_a_newer_load() {
    for end in ENDS {
        for without_l1 in [false, true] {
            let store = SharedStore::new(TokioClock::new());
            let instance = || {
                let builder = texts().l2(
                    store.clone(),
                    WireCodec::new().limits(WireLimits::default().stored(1_000)),
                );
                let builder = if without_l1 { builder.without_l1() } else { builder };
                builder.build().unwrap()
            };
            let (here, peer) = (instance(), instance());
            let how = format!("without L1: {without_l1}");
            a_late_follower_gets_a_newer_load(&here, end, &how, async || {
                peer.delete("k").await.unwrap();
            })
            .await;
            assert!(here.stats().loads >= 2, "{end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_before_the_message_of_a_delete_arrives_needs_a_newer_load() {
    for end in ENDS {
        for (with_l2, without_l1) in [(false, false), (true, false), (true, true)] {
            let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
            let instance = || {
                let builder = texts().name("test").event_bus(bus.link(), WireCodec::new());
                let builder =
                    if with_l2 { builder.l2(store.clone(), WireCodec::new()) } else { builder };
                let builder = if without_l1 { builder.without_l1() } else { builder };
                builder.build().unwrap()
            };
            let (here, peer) = (instance(), instance());
            for cache in [&here, &peer] {
                cache.ready().await.unwrap();
            }
            sleep(ms(4_000)).await;
            let how = format!("with L2: {with_l2}, without L1: {without_l1}");
            a_late_follower_gets_a_newer_load(&here, end, &how, async || {
                bus.delay_next(ms(150));
                peer.delete("k").await.unwrap();
            })
            .await;
            assert!(here.stats().loads >= 2, "{end:?}, {how}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_joined_before_a_delete_of_their_own_instance_get_the_result() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let spawn = || {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let callers: Vec<_> = (0..5).map(|_| spawn()).collect();
    settle().await;
    cache.delete("k").await.unwrap();
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_deref(), Some(&1));
    }
    assert_eq!(origin.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn callers_that_join_a_load_that_hangs_are_served_by_a_later_one() {
    for l2 in [false, true] {
        let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
        let builder = if l2 {
            builder.l2(SharedStore::new(TokioClock::new()), WireCodec::new())
        } else {
            builder
        };
        let (cache, origin) = (builder.build().unwrap(), Origin::default());
        let spawn = |gate| {
            let (cache, load) = (cache.clone(), origin.load(gate));
            tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
        };
        let begun = Instant::now();
        let leader = spawn(Gate::Never);
        settle().await;
        let callers: Vec<_> = (0..10).map(|_| spawn(Gate::Slow)).collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap().as_deref(), Some(&2));
        }
        assert_eq!((begun.elapsed(), origin.loads()), (ms(1_001) + SLOW, 2));
        // The leader has no other loader; it takes the value after twice that time.
        assert_eq!(leader.await.unwrap().as_deref(), Some(&2));
        assert_eq!((begun.elapsed(), origin.loads()), (ms(2_001), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_load_hangs_is_served_by_a_load_that_begins_long_after() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let (cache, origin) = (builder.build().unwrap(), Origin::default());
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let leader = spawn(Gate::Never);
    sleep(ms(600_500)).await;
    let begun = Instant::now();
    let later = spawn(Gate::Slow);
    let served = tokio::time::timeout(ms(60_000), leader).await.expect("told of the later load");
    assert_eq!(served.unwrap().as_deref(), Some(&2));
    assert_eq!((begun.elapsed(), origin.loads()), (SLOW, 2));
    assert_eq!(later.await.unwrap().as_deref(), Some(&2));
}

/// How L1 gets a value of a key beside a load of it that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Set,
    /// By a caller above the limit of followers.
    Bypass,
    /// By a caller that reads L2.
    Get,
    Peer,
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_load_hangs_is_served_by_a_value_that_comes_without_a_flight() {
    for by in [Filled::Set, Filled::Bypass, Filled::Get, Filled::Peer] {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let instance = || {
            let limits = Coalescing::default().ttl(ms(1_000));
            let builder = on_tokio_time().ttl(ms(3_600_000)).name("test");
            match by {
                Filled::Set => builder.inflight(limits),
                Filled::Bypass => builder.inflight(limits.max_followers(0)),
                Filled::Get => builder.inflight(limits).l2(store.clone(), WireCodec::new()),
                Filled::Peer => builder.inflight(limits).event_bus(bus.link(), WireCodec::new()),
            }
        };
        let (here, peer) = (instance().build().unwrap(), instance().build().unwrap());
        let origin = Origin::default();
        for cache in [&here, &peer] {
            cache.ready().await.unwrap();
        }
        sleep(ms(4_000)).await;
        let leader = tokio::spawn({
            let (cache, load) = (here.clone(), origin.load(Gate::Never));
            async move { cache.get_or_set("k", load).await.unwrap() }
        });
        sleep(ms(100)).await;
        let begun = Instant::now();
        match by {
            Filled::Set => {
                here.set("k", 2).await.unwrap();
            }
            Filled::Bypass => {
                here.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
                assert_eq!(here.stats().bypassed, 1);
            }
            Filled::Get => {
                peer.set("k", 2).await.unwrap();
                assert_eq!(here.get("k").await.as_deref(), Some(&2));
            }
            Filled::Peer => {
                peer.set("k", 2).await.unwrap();
            }
        }
        let served = tokio::time::timeout(ms(60_000), leader).await;
        assert_eq!(served.expect("in time").unwrap().as_deref(), Some(&2), "{by:?}");
        assert_eq!(begun.elapsed(), ms(1_901), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_cannot_use_the_load_after_one_that_hangs_asks_again_at_once() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let cache = builder.build().unwrap();
    let begun = Instant::now();
    let spawn = |pause, value| {
        let cache = cache.clone();
        let load = move || async move {
            sleep(pause).await;
            Ok::<Option<u32>, Broken>(value)
        };
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let _hangs = spawn(ms(3_600_000), None);
    settle().await;
    let none = spawn(SLOW, None);
    settle().await;
    let load = || async {
        sleep(SLOW).await;
        Ok::<u32, Broken>(7)
    };
    // A task, as the caller before it is: both are woken after the ttl, in this order.
    let value = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    assert_eq!(*value.await.unwrap(), 7);
    assert_eq!(begun.elapsed(), ms(1_001) + 2 * SLOW);
    assert_eq!(none.await.unwrap(), None);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("the waker panics on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_leaves_no_load_behind_that_nobody_runs() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let (cache, origin) = (builder.build().unwrap(), Origin::default());
    let call = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        Box::pin(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    for _ in 0..2 {
        drop(tokio::spawn(call(Gate::Never)));
        settle().await;
        cache.delete("k").await.unwrap();
    }
    let mut waits = call(Gate::Never);
    let waker = Arc::new(Panics).into();
    // Where there is no runtime, whose timer would wake it as well.
    let mut poll = || waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
    assert!(std::thread::scope(|scope| scope.spawn(&mut poll).join().unwrap()));
    // It begins the next load, and wakes the caller that waits for it.
    let begins = tokio::spawn(call(Gate::Slow));
    assert!(begins.await.unwrap_err().is_panic());
    let begun = Instant::now();
    assert_eq!(call(Gate::Slow).await.as_deref(), Some(&3));
    assert_eq!(begun.elapsed(), SLOW);
    drop(waits);
}

#[tokio::test(start_paused = true)]
async fn callers_leave_a_load_that_hangs_although_some_of_them_are_not_polled() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let (cache, origin) = (builder.build().unwrap(), Origin::default());
    let call = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        Box::pin(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let leader = tokio::spawn(call(Gate::Never));
    settle().await;
    let mut unpolled: Vec<_> = (0..50).map(|_| call(Gate::Ok)).collect();
    std::future::poll_fn(|context| {
        let pending = unpolled.iter_mut().all(|it| it.as_mut().poll(context).is_pending());
        assert!(pending);
        Poll::Ready(())
    })
    .await;
    let begun = Instant::now();
    let callers: Vec<_> = (0..10).map(|_| tokio::spawn(call(Gate::Ok))).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_deref(), Some(&2));
    }
    assert_eq!((begun.elapsed(), origin.loads()), (ms(1_001), 2));
    for caller in unpolled {
        assert_eq!(caller.await.as_deref(), Some(&2));
    }
    assert_eq!(leader.await.unwrap().as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_behind_two_loads_that_hang_are_served_by_a_later_one() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let (cache, origin) = (builder.build().unwrap(), Origin::default());
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let begun = Instant::now();
    for _ in 0..2 {
        drop(spawn(Gate::Never));
        settle().await;
        cache.delete("k").await.unwrap();
    }
    let callers: Vec<_> = (0..10).map(|_| spawn(Gate::Ok)).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_deref(), Some(&3));
    }
    assert_eq!((begun.elapsed(), origin.loads()), (ms(1_001), 3));
}

#[tokio::test(start_paused = true)]
async fn a_load_slower_than_the_limit_still_answers_those_that_joined_it() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(200)));
    let (cache, origin) = (builder.build().unwrap(), Origin::default());
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let begun = Instant::now();
    let leader = spawn(Gate::Slow);
    settle().await;
    let follower = spawn(Gate::Never);
    assert_eq!(follower.await.unwrap().as_deref(), Some(&1));
    assert_eq!((begun.elapsed(), leader.await.unwrap().as_deref()), (SLOW, Some(&1)));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_asks_for_its_own_key_in_a_task_waits_no_longer_than_the_limit() {
    let builder = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000)));
    let cache = builder.build().unwrap();
    let inner = cache.clone();
    let begun = Instant::now();
    let value = cache
        .get_or_set("k", move || async move {
            let asks = async move { inner.get_or_set("k", || async { Ok::<_, Broken>(7) }).await };
            tokio::spawn(asks).await.unwrap().map(|value| *value + 1)
        })
        .await
        .unwrap();
    assert_eq!((*value, begun.elapsed()), (8, ms(1_001)));
}

/// A clock that jumps, as after a freeze: no task of the instance has run meanwhile.
#[derive(Clone)]
struct Jumping(TokioClock, Arc<AtomicU64>);

impl Clock for Jumping {
    fn now(&self) -> u64 {
        self.0.now() + self.1.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_freeze_no_load_from_before_is_joined_that_is_older_than_trust_lasts() {
    for (frozen, joins) in [(2_000, true), (3_500, false)] {
        let (bus, ahead) = (SharedBus::new(1), Arc::new(AtomicU64::new(0)));
        let builder = Cache::builder().clock(Jumping(TokioClock::new(), Arc::clone(&ahead)));
        let cache = builder.name("test").event_bus(bus.link(), WireCodec::new()).build().unwrap();
        let origin = Origin::default();
        cache.ready().await.unwrap();
        sleep(ms(4_000)).await;
        let stuck = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Never));
            async move { cache.get_or_set("k", load).await }
        });
        settle().await;
        ahead.store(frozen, SeqCst);
        let call = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
        let mut call = std::pin::pin!(call);
        let first = std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        assert_eq!(first.await.is_pending(), joins, "frozen for {frozen} ms");
        stuck.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_both_kinds_of_loader_share_loads_that_both_can_use() {
    let cache = on_tokio_time().build().unwrap();
    let loads = Arc::new(AtomicUsize::new(0));
    let mut callers = Vec::new();
    for number in 0..100 {
        let (cache, loads) = (cache.clone(), Arc::clone(&loads));
        callers.push(tokio::spawn(async move {
            if number % 2 == 0 {
                let none = || async move {
                    loads.fetch_add(1, SeqCst);
                    sleep(SLOW).await;
                    Ok::<Option<u32>, Broken>(None)
                };
                assert!(cache.get_or_set("k", none).await.unwrap().is_none_or(|it| *it == 7));
            } else {
                let value = || async move {
                    loads.fetch_add(1, SeqCst);
                    sleep(SLOW).await;
                    Ok::<u32, Broken>(7)
                };
                assert_eq!(*cache.get_or_set("k", value).await.unwrap(), 7);
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((loads.load(SeqCst), cache.stats().bypassed), (2, 0));
}

/// The request compiles where its future must be `Send`, with a boxed error.
#[tokio::test(start_paused = true)]
async fn an_outcome_can_be_awaited_in_a_task_whatever_the_type_of_the_error() {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    let cache = on_tokio_time().build().unwrap();
    let outcome = tokio::spawn(async move {
        let load = || async { Ok::<u32, Boxed>("7".parse()?) };
        let first = cache.get_or_set("k", load).outcome().await?;
        let key = "k".to_owned();
        let again = cache.get_or_set(&key, || async { Err::<u32, Boxed>("late".into()) });
        Ok::<_, lazy_layers_cache::Error>((first.source, again.ttl(ms(5)).outcome().await?.source))
    });
    assert_eq!(outcome.await.unwrap().unwrap(), (Source::Loader, Source::L1));
}
