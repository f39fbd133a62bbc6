//! `close` and the drop of the last handle: they refuse new calls, end running loads within the
//! deadline, and leave no task.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use lazy_layers_cache::ErrorKind;
use tokio::runtime::Handle;

use crate::support::{Broken, Cache, Gate, Origin, ms, on_tokio_time, settle};

fn load(
    cache: &Cache,
    origin: &Origin,
    gate: Gate,
) -> tokio::task::JoinHandle<Result<u32, ErrorKind>> {
    let (cache, load) = (cache.clone(), origin.load(gate));
    tokio::spawn(async move {
        let value = cache.get_or_set("k", load).await.map_err(|error| error.kind())?;
        Ok(*value.unwrap())
    })
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_running_loads_and_refuses_new_ones() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let running = load(&cache, &origin, Gate::Slow);
    settle().await;
    let closing = tokio::spawn({
        let cache = cache.clone();
        async move { cache.close().await }
    });
    settle().await;
    assert!(cache.health().closed);
    for refused in [
        cache.get_or_set("new", origin.load(Gate::Ok)).await.map(drop),
        cache.get_or_set("k", origin.load(Gate::Ok)).refresh().await.map(drop),
        cache.set("k", 1).await.map(drop),
        cache.delete("k").await.map(drop),
        cache.delete_by_pattern("*").await.map(drop),
        cache.clear().await.map(drop),
        cache.ready().await,
    ] {
        // A caller that joins the running load is not refused, because it begins no load.
        assert!(refused.is_ok() || refused.unwrap_err().kind() == ErrorKind::Closed);
    }
    assert_eq!(running.await.unwrap(), Ok(1));
    closing.await.unwrap();
    assert_eq!((origin.loads(), cache.get("k").await, cache.size().await), (1, None, 0));
}

#[tokio::test(start_paused = true)]
async fn loads_that_outlast_the_deadline_are_dropped() {
    let cache = on_tokio_time().close_timeout(ms(2_000)).build().unwrap();
    let origin = Origin::default();
    let before = Handle::current().metrics().num_alive_tasks();
    let stuck = load(&cache, &origin, Gate::Never);
    settle().await;
    let begun = tokio::time::Instant::now();
    cache.close().await;
    assert_eq!(begun.elapsed(), ms(2_000));
    assert_eq!(stuck.await.unwrap(), Err(ErrorKind::Abandoned));
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
    assert_eq!(cache.stats().loads_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn concurrent_and_repeated_closes_wait_for_the_same_end() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let running = load(&cache, &origin, Gate::Slow);
    settle().await;
    let begun = tokio::time::Instant::now();
    tokio::join!(cache.close(), cache.close());
    assert_eq!(begun.elapsed(), ms(300), "both wait for the load");
    cache.close().await;
    assert_eq!(begun.elapsed(), ms(300));
    assert_eq!(running.await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_drops_running_loads() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let cache = on_tokio_time().build().unwrap();
    let other = cache.clone();
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Dropped(Arc::clone(&dropped));
    let caller = tokio::spawn(async move {
        let never = move || async move {
            let _guard = guard;
            std::future::pending::<Result<u32, Broken>>().await
        };
        let _ = cache.get_or_set("k", never).await;
    });
    settle().await;
    caller.abort();
    settle().await;
    assert!(!dropped.load(Ordering::SeqCst), "another handle keeps the load alive");
    drop(other);
    settle().await;
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn five_hundred_closed_caches_leave_no_task() {
    let before = Handle::current().metrics().num_alive_tasks();
    for _ in 0..500 {
        let cache = Cache::builder().close_timeout(ms(0)).build().unwrap();
        let origin = Origin::default();
        let callers: Vec<_> = [Gate::Never, Gate::Slow, Gate::Panic, Gate::Ok]
            .map(|gate| load(&cache, &origin, gate))
            .into();
        settle().await;
        cache.close().await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
    }
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), before);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Runs a load that blocks in its first poll: it sends to `entered`, then waits for `released`.
fn load_until_released(
    cache: &Cache,
    entered: std::sync::mpsc::Sender<()>,
    released: std::sync::mpsc::Receiver<()>,
) -> Result<u32, lazy_layers_cache::Error> {
    runtime().block_on(async {
        let load = move || async move {
            entered.send(()).unwrap();
            released.recv().unwrap();
            Ok::<_, Broken>(1)
        };
        cache.get_or_set("k", load).await.map(|value| *value)
    })
}

#[test]
fn close_waits_for_a_load_in_its_first_poll() {
    let cache = Cache::builder().build().unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // A failing assertion drops it, so that the other threads end too.
        let release = release;
        let loading = scope.spawn(|| load_until_released(&cache, entered, released));
        has_entered.recv().unwrap();
        let closing = scope.spawn(|| runtime().block_on(cache.close()));
        while !cache.health().closed {
            std::thread::yield_now();
        }
        // `close` waits for the loader, which ends only after the release below.
        for _ in 0..1_000 {
            assert!(!closing.is_finished());
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        assert_eq!(loading.join().unwrap().unwrap(), 1);
        closing.join().unwrap();
    });
    assert_eq!((cache.stats().loads_in_flight, cache.get_l1("k")), (0, None));
}

/// A clock that blocks the caller of one reading until the test releases it.
struct StoppingClock {
    readings_until: std::sync::atomic::AtomicI64,
    stopped: std::sync::Mutex<std::sync::mpsc::Sender<()>>,
    go_on: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl lazy_layers_cache::Clock for StoppingClock {
    fn now(&self) -> u64 {
        if self.readings_until.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.stopped.lock().unwrap().send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        0
    }
}

#[test]
fn close_waits_for_a_load_that_is_about_to_begin() {
    let (stopped, has_stopped) = std::sync::mpsc::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel();
    let clock = StoppingClock {
        // The third reading, after those of the hit path and of the join: the recheck of L1 under
        // the lock, which has checked by then that the cache is open.
        readings_until: std::sync::atomic::AtomicI64::new(3),
        stopped: std::sync::Mutex::new(stopped),
        go_on: std::sync::Mutex::new(goes_on),
    };
    let cache = Cache::builder().clock(clock).build().unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // A failing assertion drops it, so that the other threads end too.
        let release = release;
        let loading = scope.spawn(|| load_until_released(&cache, entered, released));
        has_stopped.recv().unwrap();
        let closing = scope.spawn(|| runtime().block_on(cache.close()));
        while !cache.health().closed {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        has_entered.recv().unwrap();
        for _ in 0..1_000 {
            assert!(!closing.is_finished(), "the loader is running");
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
        release.send(()).unwrap();
        assert_eq!(loading.join().unwrap().unwrap(), 1);
        closing.join().unwrap();
    });
}
