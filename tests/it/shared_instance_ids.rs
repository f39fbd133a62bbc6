//! Two live processes with one instance id are noticed and named; a restart is not taken for that.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use lazy_layers_cache::{
    CacheManager, Event, EventBus, HandlerGuard, LazyLayersCache, LocalTransport, RedisTransport,
    testing::TokioClock,
};
use tokio::time::sleep;

use crate::support::{
    log::{Lines, listen},
    ms,
    redis::RedisServer,
    transports::PATIENCE,
};

type Users = LazyLayersCache<u64, u32>;

/// A process: a manager with the cache of this name.
struct Process {
    cache: Users,
    ids: Arc<Mutex<Vec<String>>>,
    _guard: HandlerGuard,
    _manager: CacheManager,
}

impl Process {
    async fn start(bus: EventBus, id: &str, name: &str, is_paused: bool) -> Self {
        let builder = CacheManager::builder().event_bus(bus).instance_id(id);
        let builder = if is_paused { builder.clock(TokioClock::new()) } else { builder };
        let manager = builder.build().unwrap();
        let cache: Users = manager.cache(name).build().unwrap();
        let ids = Arc::new(Mutex::new(Vec::new()));
        let guard = cache.on({
            let ids = Arc::clone(&ids);
            move |event| {
                if let Event::BusSharedInstanceId { instance_id, .. } = event {
                    ids.lock().unwrap().push((*instance_id).to_owned());
                }
            }
        });
        cache.ready().await.unwrap();
        Self { cache, ids, _guard: guard, _manager: manager }
    }

    /// The instance ids of which the process was told.
    fn noticed(&self) -> Vec<String> {
        let ids = self.ids.lock().unwrap().clone();
        assert_eq!(self.cache.stats().bus_shared_instance_ids, ids.len() as u64);
        ids
    }
}

fn of_shared_ids(lines: &Lines) -> usize {
    lines.take().iter().filter(|line| line.contains("under one instance id")).count()
}

#[tokio::test(start_paused = true)]
async fn two_live_processes_with_one_id_are_told_of_once_by_everybody() {
    let warnings = Lines::default();
    let _default = listen(warnings.clone());
    let bus = EventBus::new(LocalTransport::new());
    let start = |id| Process::start(bus.clone(), id, "users", true);
    let (peer, first) = (start("peer").await, start("host").await);
    sleep(ms(10_000)).await;
    let second = start("host").await;
    // Two sessions of one process may have one id, if their caches differ.
    let mails = Process::start(bus.clone(), "peer", "mails", true).await;
    sleep(ms(60_000)).await;
    for process in [&peer, &first, &second] {
        assert_eq!(process.noticed(), ["host"]);
    }
    assert!(mails.noticed().is_empty());
    assert_eq!(of_shared_ids(&warnings), 3);
    for process in [peer, first, second, mails] {
        process.cache.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_no_second_process() {
    let warnings = Lines::default();
    let _default = listen(warnings.clone());
    let bus = EventBus::new(LocalTransport::new());
    let start = || Process::start(bus.clone(), "host", "users", true);
    let peer = Process::start(bus.clone(), "peer", "users", true).await;
    for is_closed in [true, false, true, false] {
        let process = start().await;
        sleep(ms(10_000)).await;
        assert!(process.noticed().is_empty());
        if is_closed {
            process.cache.close().await;
        }
    }
    sleep(ms(60_000)).await;
    assert!(peer.noticed().is_empty());
    assert_eq!(of_shared_ids(&warnings), 0);
    peer.cache.close().await;
}

#[tokio::test]
async fn two_live_processes_are_noticed_over_redis() {
    let server = RedisServer::start();
    let start = || {
        let bus = EventBus::new(RedisTransport::at(server.url()).build().unwrap());
        Process::start(bus, "host", "users", false)
    };
    let (first, second) = (start().await, start().await);
    let begun = std::time::Instant::now();
    while first.noticed().is_empty() || second.noticed().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "not noticed");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((first.noticed(), second.noticed()), (vec!["host".into()], vec!["host".into()]));
    first.cache.close().await;
    second.cache.close().await;
}
