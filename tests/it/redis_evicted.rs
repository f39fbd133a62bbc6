//! Names of the cache's own that Redis has evicted: the index and the run id.

use std::time::{Duration, Instant};

use lazy_layers_cache::{LazyLayersCache, RedisOptions, RedisStore, WireCodec};
use redis::Connection;
use tokio::time::sleep;

use crate::support::{
    ms,
    redis::{RedisServer, field},
};

type Cache = LazyLayersCache<String, u32>;

fn evicting() -> RedisServer {
    RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"])
}

fn checking_each(server: &RedisServer, interval: Duration) -> Cache {
    let store =
        RedisStore::at(server.url()).options(RedisOptions::default().check_interval(interval));
    let store = store.build().unwrap();
    Cache::builder().without_l1().l2(store, WireCodec::new()).build().unwrap()
}

#[tokio::test]
async fn an_index_that_was_evicted_is_not_used_once_nothing_is_evicted_any_more() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let cache = checking_each(&server, ms(500));
    let count = |redis: &mut Connection, glob: &str| -> usize {
        redis::cmd("KEYS").arg(glob).query::<Vec<String>>(redis).unwrap().len()
    };
    while count(&mut redis, "cache:k*") == 0 || count(&mut redis, "cache:__index") > 0 {
        for number in 0..50 {
            cache.set(&format!("k{number}"), 1).await.unwrap();
        }
        server.config_set("maxmemory-policy", "allkeys-random");
        while count(&mut redis, "cache:__index") > 0 {
            let used: u64 = field(&server.info("memory"), "used_memory").unwrap().parse().unwrap();
            server.config_set("maxmemory", &(used - 100).to_string());
            // A command that needs room.
            let _ = redis::cmd("APPEND").arg("other").arg("").exec(&mut redis);
        }
        server.config_set("maxmemory", "0");
        server.config_set("maxmemory-policy", "noeviction");
    }
    cache.set("last", 1).await.unwrap();
    let there = count(&mut redis, "cache:k*") as u64 + 1;
    assert_eq!(cache.size().await, there, "with the values that the new index does not name");
    cache.delete_by_pattern("k*").await.unwrap();
    assert_eq!(count(&mut redis, "cache:k*"), 0);
    assert_eq!(cache.get("last").await.as_deref(), Some(&1));
}

#[tokio::test]
async fn a_restart_is_noticed_although_the_run_id_was_evicted() {
    let mut server = evicting();
    let mut redis = server.connect();
    let cache = checking_each(&server, Duration::from_secs(60));
    cache.set("k", 1).await.unwrap();
    // As by eviction: nobody has used it for long.
    redis::cmd("DEL").arg("cache:__run").exec(&mut redis).unwrap();
    server.save();
    cache.delete("k").await.unwrap();
    drop(cache);
    server.restart();
    let is_back: bool = redis::cmd("EXISTS").arg("cache:k").query(&mut server.connect()).unwrap();
    assert!(is_back);
    let began_later = checking_each(&server, Duration::from_secs(60));
    assert_eq!(began_later.get("k").await, None, "it was deleted");
    began_later.set("k", 2).await.unwrap();
    // The run id is stored now.
    let began_last = checking_each(&server, Duration::from_secs(60));
    assert_eq!(began_last.get("k").await.as_deref(), Some(&2));
}

#[tokio::test]
async fn a_run_id_that_was_evicted_is_stored_again() {
    let server = evicting();
    let mut redis = server.connect();
    let cache = checking_each(&server, ms(500));
    cache.set("k", 1).await.unwrap();
    redis::cmd("DEL").arg("cache:__run").exec(&mut redis).unwrap();
    let begun = Instant::now();
    let stored = loop {
        let stored: Option<String> =
            redis::cmd("GET").arg("cache:__run").query(&mut redis).unwrap();
        if let Some(stored) = stored {
            break stored;
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(ms(10)).await;
    };
    assert_eq!(Some(&*stored), field(&server.info("server"), "run_id"));
    assert_eq!(checking_each(&server, ms(500)).get("k").await.as_deref(), Some(&1));
}
