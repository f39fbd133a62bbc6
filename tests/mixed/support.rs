//! A Rust instance and a JavaScript one on one Redis. The server is the one of the other tests.

#[path = "../it/support/certificate.rs"]
pub(crate) mod certificate;
pub(crate) mod javascript;
#[path = "../it/support/process.rs"]
pub(crate) mod process;
#[path = "../it/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../it/support/redis.rs"]
pub(crate) mod redis;

use std::{sync::Arc, time::Duration};

use lazy_layers_cache::{
    CacheBuilder, DistributedLock, EventBusOptions, LazyLayersCache, RedisStore, RedisTransport,
    WireCodec,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::{javascript::JavaScript, redis::RedisServer};

pub(crate) type Cache = LazyLayersCache<String, Value>;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Pair {
    pub(crate) rust: Cache,
    pub(crate) javascript: JavaScript,
    pub(crate) server: RedisServer,
}

impl Pair {
    /// Both have subscribed, and the Rust instance is past the window in which it refuses values.
    pub(crate) async fn start() -> Self {
        let server = RedisServer::start();
        let mut javascript = JavaScript::start(&server.url());
        let rust = instance(&server).build().unwrap();
        rust.ready().await.unwrap();
        let mut asked = 0;
        eventually("values are taken", || {
            asked += 1;
            // Another key each time: after a refusal a key is refused for five seconds.
            javascript.ask(&format!("peer.prime('warm{asked}', 1)"));
            (1..=asked).any(|number| rust.get_l1(&format!("warm{number}")).is_some())
        })
        .await;
        Self { rust, javascript, server }
    }

    /// Another Rust instance that hears nothing and has nothing in memory: what it gets is what
    /// Redis holds.
    pub(crate) async fn in_redis(&self, key: &str) -> Option<Value> {
        let store = RedisStore::at(self.server.url()).prefix("cache:").build().unwrap();
        let cache = Cache::builder().l2(store, WireCodec::new()).build().unwrap();
        cache.get(key).await.map(Arc::unwrap_or_clone)
    }
}

pub(crate) fn instance(server: &RedisServer) -> CacheBuilder<String, Value> {
    let store = RedisStore::at(server.url()).prefix("cache:").build().unwrap();
    let transport = RedisTransport::at(server.url()).build().unwrap();
    Cache::builder()
        .ttl(Duration::from_secs(60))
        .distributed_lock(DistributedLock::enabled().poll(Duration::from_millis(20)))
        .l2(store, WireCodec::new())
        .name("test")
        .event_bus(transport, WireCodec::new())
        // As older TypeScript releases do.
        .event_bus_options(EventBusOptions::default().accept_unnamed(true))
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
