//! A manager calls code of the user while it builds a cache (a store, a transport, a subscriber of
//! the log), and holds no lock meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use lazy_layers_cache::{
    BuildError, CacheManager, LazyLayersCache, LocalTransport, Subscribed, Transport,
    TransportFuture, WireCodec,
    testing::{SharedStore, TokioClock},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::support::{calling::CallingStore, log::listen, ms, transports::PATIENCE};

fn users(manager: &CacheManager) -> Result<LazyLayersCache<u64, String>, BuildError> {
    manager.cache("users").build()
}

/// A transport that calls a function when a cache begins to use it.
struct Calling<F>(LocalTransport, F);

impl<F: Fn(&str) + Send + Sync + 'static> Transport for Calling<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn on_used_by(&self, cache: &str) {
        self.1(cache);
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(message)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.0.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}

/// A subscriber of the log that calls a function for each line.
struct Listening<F>(F);

impl<S: tracing::Subscriber, F: Fn(&str) + 'static> Layer<S> for Listening<F> {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        self.0("users");
    }
}

/// Else such code waits for a lock that its own thread holds, for ever.
#[test]
fn code_of_the_user_that_a_build_calls_may_call_the_manager() {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let slot = Arc::new(OnceLock::<CacheManager>::new());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let call = |by: &'static str| {
            let (slot, calls) = (Arc::clone(&slot), Arc::clone(&calls));
            move |cache: &str| {
                // The cache `inner` is built by such a call.
                let Some(manager) = slot.get().filter(|_| cache == "users") else { return };
                let error = users(manager).err().map(|error| error.to_string());
                let caches = manager.stats().len();
                manager.cache::<u64, u32>("inner").build().unwrap();
                calls.lock().unwrap().push((by, caches, error));
            }
        };
        let (of_store, of_transport) = (call("store"), call("transport"));
        let store = move |name: &str| {
            of_store(name);
            SharedStore::new(TokioClock::new())
        };
        let transport = Calling(LocalTransport::new(), of_transport);
        let manager = CacheManager::builder().event_bus(transport).l2(store).build().unwrap();
        slot.set(manager.clone()).unwrap();
        let _listening = listen(Listening(call("subscriber")));
        let first = users(&manager).unwrap();
        // A warning, as its options have no effect.
        manager.cache::<u64, String>("users").ttl(ms(1)).build().unwrap();
        drop(first);
        done.send(std::mem::take(&mut *calls.lock().unwrap())).unwrap();
    });
    let calls = is_done.recv_timeout(PATIENCE).expect("the thread waits for itself, or failed");
    let by: Vec<_> =
        calls.iter().map(|(by, caches, error)| (*by, *caches, error.is_some())).collect();
    assert_eq!(by, [("store", 0, true), ("transport", 0, true), ("subscriber", 1, false)]);
    for error in calls.into_iter().filter_map(|(.., error)| error) {
        assert!(error.contains("which this thread is building"), "{error}");
    }
}

/// The manager would not close it.
#[test]
fn a_cache_that_is_built_while_its_manager_closes_is_refused() {
    let (building, is_building) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let is_closed = Mutex::new(is_closed);
    let store = move |_: &str| {
        building.send(()).unwrap();
        is_closed.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        SharedStore::new(TokioClock::new())
    };
    let manager = CacheManager::builder().l2(store).build().unwrap();
    thread::scope(|scope| {
        let built = scope.spawn(|| users(&manager).map(drop));
        is_building.recv_timeout(PATIENCE).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(manager.close());
        closed.send(()).unwrap();
        assert_eq!(built.join().unwrap().unwrap_err().option(), "manager");
    });
    assert!(manager.stats().is_empty());
}

/// Else the session keeps the place of a cache that does not exist.
#[test]
fn a_panic_of_the_users_code_during_a_build_leaves_the_name_free() {
    for of_store in [true, false] {
        let panics = Arc::new(AtomicBool::new(true));
        let panics_once = |is_here: bool| {
            let panics = Arc::clone(&panics);
            move |_: &str| assert!(!(is_here && panics.swap(false, Relaxed)), "a bug of the user")
        };
        let (in_store, in_transport) = (panics_once(of_store), panics_once(!of_store));
        let store = SharedStore::new(TokioClock::new());
        let bus = Calling(LocalTransport::new(), in_transport);
        let manager = CacheManager::builder().event_bus(bus).build().unwrap();
        let build = || {
            let in_store = in_store.clone();
            let store = CallingStore(store.clone(), Arc::new(move || in_store("users")));
            manager.cache::<u64, String>("users").l2(store, WireCodec::new()).build()
        };
        assert!(catch_unwind(AssertUnwindSafe(build)).is_err());
        let users = build().expect("the name is free");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            users.ready().await.unwrap();
            users.set(&7, "Ada".to_owned()).await.unwrap();
            assert!(users.get_l1(&7).is_some());
            manager.close().await;
        });
    }
}
