//! Sentinels that are dead, that are out of date, or that name a server that is no master yet.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use lazy_layers_cache::{RedisOptions, RedisStore, Store};
use tokio::time::sleep;

use crate::support::{fake_sentinel::FakeSentinel, ms, publication, redis::RedisServer};

/// The supervisor task checks the connection, and so asks the sentinels, every 100 ms.
fn store(sentinels: [String; 2]) -> RedisStore {
    let mut options = RedisOptions::default();
    options.check_interval = ms(100);
    RedisStore::sentinel(sentinels, "redis://main/").options(options).build().unwrap()
}

/// Returns true if the store can write, and its value is on that server.
async fn writes_to(store: &RedisStore, server: &RedisServer) -> bool {
    let Ok(Some(lease)) = store.acquire_write_lease("k", ms(1_000)).await else { return false };
    if !store.publish("k", &lease, publication(b"1", ms(60_000))).await.unwrap_or(false) {
        return false;
    }
    redis::cmd("EXISTS").arg("cache:k").query(&mut server.connect()).unwrap()
}

async fn eventually_writes_to(store: &RedisStore, server: &RedisServer) {
    let begun = Instant::now();
    while !writes_to(store, server).await {
        assert!(begun.elapsed() < Duration::from_secs(5), "the store does not follow the master");
        sleep(ms(20)).await;
    }
}

async fn keeps_its_connection(store: &RedisStore) {
    let (begun, first) = (Instant::now(), store.connection_generation());
    while begun.elapsed() < ms(1_000) {
        store.get("k", false).await.unwrap();
        assert_eq!(store.connection_generation(), first, "the store reconnected without a reason");
        sleep(ms(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_sentinel_hides_no_failover() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    // The kernel accepts connections, and no process answers.
    let dead = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dead_url = format!("redis://127.0.0.1:{}/", dead.local_addr().unwrap().port());
    let sentinel = FakeSentinel::naming(old.port(), 1);
    let store = store([dead_url, sentinel.url()]);
    eventually_writes_to(&store, &old).await;
    // The old master still considers itself the master.
    sentinel.name(new.port(), 2);
    eventually_writes_to(&store, &new).await;
    keeps_its_connection(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outdated_sentinel_or_one_that_is_too_early_is_not_followed() {
    let (other, master) = (RedisServer::start(), RedisServer::start());
    // The stale sentinel was cut off together with the old master, which still considers itself
    // the master.
    let (stale, sentinel) =
        (FakeSentinel::naming(other.port(), 1), FakeSentinel::naming(master.port(), 2));
    let store = store([stale.url(), sentinel.url()]);
    eventually_writes_to(&store, &master).await;
    keeps_its_connection(&store).await;

    let replica_of = |of: [&str; 2]| {
        redis::cmd("REPLICAOF").arg(&of).exec(&mut other.connect()).unwrap();
    };
    replica_of(["127.0.0.1", &master.port().to_string()]);
    stale.name(other.port(), 3);
    keeps_its_connection(&store).await;
    replica_of(["NO", "ONE"]);
    eventually_writes_to(&store, &other).await;
}
