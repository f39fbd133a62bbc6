//! Sentinels that are dead, that know less than others, and that name who is no master yet.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use lazy_layers_cache::{RedisOptions, RedisStore, Store};
use tokio::time::sleep;

use crate::support::{fake_sentinel::FakeSentinel, ms, redis::RedisServer};

/// A check of the connection, and so a question to the sentinels, every 100 ms.
fn store(sentinels: [String; 2]) -> RedisStore {
    let mut options = RedisOptions::default();
    options.check_interval = ms(100);
    RedisStore::sentinel(sentinels, "redis://main/").options(options).build().unwrap()
}

/// Whether what the store writes is on that server.
async fn writes_to(store: &RedisStore, server: &RedisServer) -> bool {
    let Ok(Some(lease)) = store.acquire_write_lease("k", ms(1_000)).await else { return false };
    if !store.publish("k", &lease, b"1".to_vec(), ms(60_000)).await.unwrap_or(false) {
        return false;
    }
    redis::cmd("EXISTS").arg("cache:k").query(&mut server.connect()).unwrap()
}

async fn soon_writes_to(store: &RedisStore, server: &RedisServer) {
    let begun = Instant::now();
    while !writes_to(store, server).await {
        assert!(begun.elapsed() < Duration::from_secs(5), "the master is not followed");
        sleep(ms(20)).await;
    }
}

async fn stays_where_it_is(store: &RedisStore) {
    let (begun, first) = (Instant::now(), store.connection_generation());
    while begun.elapsed() < ms(1_000) {
        store.get("k").await.unwrap();
        assert_eq!(store.connection_generation(), first, "it is no better elsewhere");
        sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sentinel_hides_no_failover() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    // The kernel takes connections, and nobody ever answers.
    let dead = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dead_url = format!("redis://127.0.0.1:{}/", dead.local_addr().unwrap().port());
    let sentinel = FakeSentinel::naming(old.port(), 1);
    let store = store([dead_url, sentinel.url()]);
    soon_writes_to(&store, &old).await;
    // The old one does not know yet.
    sentinel.name(new.port(), 2);
    soon_writes_to(&store, &new).await;
    stays_where_it_is(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_knows_less_or_too_early_is_not_followed() {
    let (other, master) = (RedisServer::start(), RedisServer::start());
    // It was cut off, with what was the master then and does not know better either.
    let (stale, sentinel) =
        (FakeSentinel::naming(other.port(), 1), FakeSentinel::naming(master.port(), 2));
    let store = store([stale.url(), sentinel.url()]);
    soon_writes_to(&store, &master).await;
    stays_where_it_is(&store).await;

    let replica_of = |of: [&str; 2]| {
        redis::cmd("REPLICAOF").arg(&of).exec(&mut other.connect()).unwrap();
    };
    replica_of(["127.0.0.1", &master.port().to_string()]);
    stale.name(other.port(), 3);
    stays_where_it_is(&store).await;
    replica_of(["NO", "ONE"]);
    soon_writes_to(&store, &other).await;
}
