//! A load keeps its lease while the loader runs. A load that fails or is dropped leaves its lease
//! to the loads that have adopted it.

use std::{future::pending, io, time::Duration};

use futures_util::future::join_all;
use lazy_layers_cache::{
    LazyLayersCache, RedisStore, Source, Timeouts, WireCodec,
    testing::{SharedStore, TokioClock},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::sleep,
};

use crate::support::{ms, redis::RedisServer};

type Cache = LazyLayersCache<String, u32>;

const PATIENCE: Duration = Duration::from_secs(10);

/// How a load ends without a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Error,
    Panic,
    HardTimeout,
    CallerDropped,
    CacheClosed,
    CacheDropped,
    RuntimeShutDown,
}

const ENDS: [End; 7] = [
    End::Error,
    End::Panic,
    End::HardTimeout,
    End::CallerDropped,
    End::CacheClosed,
    End::CacheDropped,
    End::RuntimeShutDown,
];

fn cache(server: &RedisServer, with_index: bool) -> Cache {
    let store = RedisStore::at(server.url()).use_index(with_index).build().unwrap();
    Cache::builder().l2(store, WireCodec::new()).build().unwrap()
}

/// Tells when the loader is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// Starts a load that ends in one way, once the returned function is called, on a runtime of its
/// own. The function returns when the load has ended, with the runtime.
async fn start(cache: Cache, key: String, end: End) -> impl AsyncFnOnce() -> Option<Runtime> {
    let runtime: Runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (started, has_started) = oneshot::channel();
    let (ending, may_end) = oneshot::channel::<()>();
    let (dropped, is_dropped) = oneshot::channel();
    let caller = cache.clone();
    let task = runtime.spawn(async move {
        let loader = move || async move {
            let _dropped = Dropped(Some(dropped));
            started.send(()).unwrap();
            if !matches!(end, End::Error | End::Panic) {
                pending::<()>().await;
            }
            may_end.await.unwrap();
            assert!(end != End::Panic, "the loader panics on purpose");
            Err::<u32, _>(io::Error::other("the loader fails"))
        };
        let limits = match end {
            End::HardTimeout => Timeouts::default().hard(ms(500)),
            _ => Timeouts::default(),
        };
        caller.get_or_set(&key, loader).timeouts(limits).await.unwrap_err();
    });
    tokio::time::timeout(PATIENCE, has_started).await.unwrap().unwrap();
    async move || {
        match end {
            End::Error | End::Panic => ending.send(()).unwrap(),
            End::HardTimeout | End::RuntimeShutDown => {}
            End::CallerDropped => task.abort(),
            End::CacheClosed => cache.close().await,
            End::CacheDropped => {
                task.abort();
                drop(cache);
            }
        }
        let runtime = match end {
            End::RuntimeShutDown => {
                runtime.shutdown_background();
                None
            }
            _ => Some(runtime),
        };
        if end == End::CallerDropped {
            // A load may go on without its caller.
            let _ = tokio::time::timeout(ms(200), is_dropped).await;
        } else {
            let ended = tokio::time::timeout(PATIENCE, is_dropped).await;
            ended.unwrap_or_else(|_| panic!("{end:?}: the load does not end")).unwrap();
        }
        runtime
    }
}

async fn lease_is_left_alone(server: &RedisServer, end: End, with_index: bool) {
    let mut redis = server.connect();
    let mut read =
        |name: &str| -> Option<String> { redis::cmd("GET").arg(name).query(&mut redis).unwrap() };
    let case = format!("{end:?}, index {with_index}");
    let (first, second) = (cache(server, with_index), cache(server, with_index));
    let end_first = start(first, case.clone(), end).await;
    let lease = format!("cache:__lease:{{cache:{case}}}");
    let token = read(&lease).expect("the load has a lease");

    let (started, has_started) = oneshot::channel();
    let (ending, may_end) = oneshot::channel();
    let name = case.clone();
    let adopting = tokio::spawn(async move {
        let loader = || async move {
            started.send(()).unwrap();
            may_end.await.unwrap();
            Ok::<_, io::Error>(2)
        };
        *second.get_or_set(&name, loader).await.unwrap()
    });
    has_started.await.unwrap();
    assert_eq!(read(&lease).as_ref(), Some(&token), "{case}: it is adopted");

    let runtime = end_first().await;
    // What the instance of the first load might still send would arrive by then.
    sleep(ms(50)).await;
    assert_eq!(read(&lease), Some(token), "{case}: it is left alone");
    ending.send(()).unwrap();
    assert_eq!(adopting.await.unwrap(), 2, "{case}");
    assert_eq!(read(&lease), None, "{case}: the publication uses it up");
    let load = || async { Ok::<_, io::Error>(3) };
    let found = cache(server, with_index).get_or_set(&case, load).outcome().await.unwrap();
    assert_eq!((*found.value, found.source), (2, Source::L2), "{case}");
    runtime.into_iter().for_each(Runtime::shutdown_background);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_or_is_dropped_leaves_its_lease_to_the_loads_that_adopted_it() {
    let server = RedisServer::start();
    let cases = ENDS.iter().flat_map(|end| [(*end, true), (*end, false)]);
    join_all(cases.map(|(end, with_index)| lease_is_left_alone(&server, end, with_index))).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_of_many_minutes_keeps_its_lease_until_a_delete_voids_it() {
    for is_deleted in [false, true] {
        let store = SharedStore::new(TokioClock::new());
        let [one, other] = [(); 2].map(|()| {
            let builder = Cache::builder().clock(TokioClock::new());
            builder.without_l1().l2(store.clone(), WireCodec::new()).build().unwrap()
        });
        let loading = tokio::spawn(async move {
            let slow = || async {
                sleep(Duration::from_secs(600)).await;
                Ok::<_, io::Error>(1)
            };
            *one.get_or_set("k", slow).await.unwrap()
        });
        sleep(Duration::from_secs(590)).await;
        if is_deleted {
            other.delete("k").await.unwrap();
        }
        assert_eq!(loading.await.unwrap(), 1);
        assert_eq!(other.get("k").await.is_none(), is_deleted);
    }
}
