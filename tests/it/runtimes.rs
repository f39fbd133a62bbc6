//! Loads on tokio runtimes of all kinds, on another executor, and without a runtime.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake},
    thread::Thread,
};

use lazy_layers_cache::{Coalescing, ErrorKind, FailSafe, Timeouts};

use crate::support::{Broken, Cache, Gate, Origin, SLOW, ms, on_tokio_time, settle};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on an executor other than tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_cache_is_built_and_used_without_a_runtime() {
    let cache = Cache::builder()
        .fail_safe(FailSafe::enabled())
        .timeouts(Timeouts::none().soft(ms(1)).hard(ms(10)))
        .build()
        .unwrap();
    let origin = Origin::default();
    block_on(async {
        cache.set("k", 7).await.unwrap();
        assert_eq!(cache.get("k").await.as_deref(), Some(&7));
        let loaded = cache.get_or_set("new", origin.load(Gate::Ok)).await.unwrap();
        assert_eq!(loaded.as_deref(), Some(&1));
        cache.get_or_set("err", origin.load(Gate::Err)).await.unwrap_err();
        cache.clear().await.unwrap();

        let pending = || async { std::future::pending::<Result<u32, Broken>>().await };
        let error = cache.get_or_set("waits", pending).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoRuntime);
        assert!(error.to_string().contains("runtime"), "{error}");
        assert_eq!(cache.stats().loads_in_flight, 0);
        cache.close().await;
    });
}

#[test]
fn a_load_on_another_runtime_can_be_joined_without_a_runtime() {
    let cache = Cache::builder().timeouts(Timeouts::none().hard(ms(60_000))).build().unwrap();
    let origin = Origin::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    while cache.stats().loads_in_flight == 0 {
        std::thread::yield_now();
    }
    let joined = block_on(cache.get_or_set("k", origin.load(Gate::Ok)).into_future()).unwrap();
    assert_eq!((joined.as_deref(), origin.loads()), (Some(&1), 1));
    runtime.block_on(leader).unwrap();
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn one_thread_is_enough() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_deref(), Some(&1));
    }
    assert_eq!(origin.loads(), 1);
}

#[test]
fn a_follower_loads_itself_when_the_runtime_of_the_load_shuts_down() {
    let cache = Cache::builder().build().unwrap();
    let origin = Origin::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Never));
        async move { cache.get_or_set("k", load).await.map(drop) }
    });
    while cache.stats().loads_in_flight == 0 {
        std::thread::yield_now();
    }
    let waiting = std::thread::spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Ok));
        move || block_on(cache.get_or_set("k", load).into_future())
    });
    while cache.stats().joined == 0 {
        std::thread::yield_now();
    }
    runtime.shutdown_background();
    let value = waiting.join().unwrap().unwrap();
    assert_eq!(value.as_deref(), Some(&2), "the follower called its own loader");
    assert_eq!(cache.stats().loads_in_flight, 0);
}

/// A runtime that runs only inside `block_on`.
fn new_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The load's runtime, with some of its callers, stops being driven: another runtime's callers must
/// not rely on its timers.
#[test]
fn callers_leave_a_load_that_hangs_whichever_runtime_has_stopped() {
    let cache = Cache::builder().inflight(Coalescing::default().ttl(ms(300))).build().unwrap();
    let origin = Origin::default();
    let (stopped, runtime) = (new_runtime(), new_runtime());
    let call = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        async move { cache.get_or_set("k", load).await.unwrap() }
    };
    stopped.spawn(call(Gate::Never));
    (0..5).for_each(|_| drop(stopped.spawn(call(Gate::Never))));
    stopped.block_on(settle());
    assert_eq!(cache.stats().joined, 5);
    let callers: Vec<_> = (0..5).map(|_| runtime.spawn(call(Gate::Ok))).collect();
    runtime.block_on(async {
        for caller in callers {
            let value = tokio::time::timeout(ms(20_000), caller).await;
            assert_eq!(value.expect("in time").unwrap().as_deref(), Some(&2));
        }
    });
    assert_eq!(origin.loads(), 2);
}

/// Five calls whose leader hangs on one runtime, and that were first polled on another.
#[test]
fn callers_that_were_first_polled_on_a_runtime_that_has_shut_down_leave_a_load_that_hangs() {
    let cache = Cache::builder().inflight(Coalescing::default().ttl(ms(300))).build().unwrap();
    let origin = Origin::default();
    let (shut_down, runtime) = (new_runtime(), new_runtime());
    let call = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        Box::pin(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    runtime.spawn(call(Gate::Never));
    runtime.block_on(settle());
    let mut callers: Vec<_> = (0..5).map(|_| call(Gate::Ok)).collect();
    shut_down.block_on(std::future::poll_fn(|context| {
        let pending = callers.iter_mut().all(|it| it.as_mut().poll(context).is_pending());
        assert!(pending);
        Poll::Ready(())
    }));
    // The first two have timers of the other runtime.
    callers.drain(..2).for_each(drop);
    drop(shut_down);
    runtime.block_on(async {
        for caller in callers {
            let value = tokio::time::timeout(ms(20_000), caller).await;
            assert_eq!(value.expect("in time").as_deref(), Some(&2));
        }
    });
}

#[test]
fn a_close_does_not_wait_for_callers_of_a_runtime_that_has_stopped() {
    let cache = Cache::builder().close_timeout(ms(60_000)).build().unwrap();
    let origin = Origin::default();
    let (stopped, runtime) = (new_runtime(), new_runtime());
    let call = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        async move { cache.get_or_set("k", load).await.unwrap() }
    };
    let leader = runtime.spawn(call(Gate::Slow));
    runtime.block_on(settle());
    (0..5).for_each(|_| drop(stopped.spawn(call(Gate::Ok))));
    stopped.block_on(settle());
    runtime.block_on(async {
        assert_eq!(leader.await.unwrap().as_deref(), Some(&1));
        tokio::time::timeout(ms(20_000), cache.close()).await.expect("in time");
    });
}

#[test]
fn a_runtime_without_a_timer_has_no_timeouts_and_no_panics() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let cache = Cache::builder()
        .ttl(ms(1))
        .fail_safe(FailSafe::enabled())
        .timeouts(Timeouts::none().soft(ms(1)).hard(ms(2)))
        .build()
        .unwrap();
    runtime.block_on(async {
        for _ in 0..3 {
            let waits = || async {
                tokio::task::yield_now().await;
                std::thread::sleep(ms(5));
                Ok::<_, Broken>(1)
            };
            assert_eq!(*cache.get_or_set("k", waits).await.unwrap(), 1);
        }
        cache.close().await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_waited_is_not_polled_by_its_caller_again() {
    let cache = on_tokio_time().build().unwrap();
    let polls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let load = move || {
        std::future::poll_fn(move |context: &mut Context<'_>| {
            context.waker().wake_by_ref();
            match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Poll::Pending,
                _ => Poll::Ready(Ok::<_, Broken>(Some(1))),
            }
        })
    };
    let mut request = pin!(cache.get_or_set("k", load).into_future());
    let waker = std::task::Waker::noop();
    assert!(request.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    assert_eq!(polls.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(request.await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_is_ready_at_once_spawns_no_task() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let spawned = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = spawned();
    let request = cache.get_or_set("k", origin.load(Gate::Ok)).into_future();
    let mut request = pin!(request);
    let polled = request.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready(), "the first poll returns the value");
    assert_eq!(spawned(), before);
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_waits_outlives_its_caller() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    {
        let mut request = pin!(cache.get_or_set("k", origin.load(Gate::Slow)).into_future());
        let waker = std::task::Waker::noop();
        assert!(request.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    tokio::time::sleep(SLOW).await;
    settle().await;
    assert_eq!(cache.get("k").await.as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_awaited_does_nothing() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    drop(cache.get_or_set("k", origin.load(Gate::Ok)));
    drop(cache.set("k", 1));
    assert_eq!((origin.loads(), cache.size().await), (0, 0));
}
