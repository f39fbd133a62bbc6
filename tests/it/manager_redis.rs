//! Managers of two processes over a real Redis, from a configuration file: keys by name under one
//! prefix, one connection of L2, deletes that reach the other process.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lazy_layers_cache::{
    CacheManager, LazyLayersCache, ManagerOptions, RedisOptions, RedisStore, RedisTransport,
};
use tokio::time::sleep;

use crate::support::{
    Broken,
    log::{Lines, listen},
    ms,
    redis::RedisServer,
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(ms(10)).await;
    }
}

fn keys(server: &RedisServer) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.connect()).unwrap();
    keys.retain(|key| !key.contains(":__"));
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_caches_by_name_over_one_connection_each() {
    let server = RedisServer::start_with_password("s3cret");
    let process = |id: &str| {
        let text = format!(
            r#"
            instance_id = "{id}"
            [redis]
            url = "{}"
            prefix = "shop:"
            [bus]
            transport = "redis"
            channel = "shop:invalidations"
            [defaults]
            ttl = "10m"
            [caches.prices]
            ttl = "20m"
            "#,
            server.url()
        );
        let options: ManagerOptions = toml::from_str(&text).unwrap();
        CacheManager::builder().options(options).build().unwrap()
    };
    let names = ["users", "prices", "mails", "orders", "carts"];
    let caches = |manager: &CacheManager| {
        names.map(|name| manager.cache::<str, String>(name).build().unwrap())
    };
    let (a, b) = (process("a"), process("b"));
    let (of_a, of_b) = (caches(&a), caches(&b));
    a.ready().await.unwrap();
    b.ready().await.unwrap();
    for (name, cache) in names.iter().zip(&of_a) {
        let value = format!("of {name}");
        cache.get_or_set("k", || async { Ok::<_, Broken>(value) }).await.unwrap();
    }
    assert_eq!(
        keys(&server),
        ["carts", "mails", "orders", "prices", "users"].map(|name| format!("shop:{name}:cache:k"))
    );
    let ttl = |name: &str| -> i64 {
        let key = format!("shop:{name}:cache:k");
        redis::cmd("TTL").arg(key).query(&mut server.connect()).unwrap()
    };
    assert!((590..=600).contains(&ttl("users")) && (1_190..=1_200).contains(&ttl("prices")));
    for (name, cache) in names.iter().zip(&of_b) {
        assert_eq!(*cache.get("k").await.unwrap(), format!("of {name}"));
    }
    // A clear of one name is one of that name only, in both processes.
    of_a[0].clear().await.unwrap();
    eventually("the clear arrives", async || of_b[0].get_l1("k").is_none()).await;
    assert!(of_b[0].get("k").await.is_none());
    for cache in &of_b[1..] {
        assert!(cache.get_l1("k").is_some());
    }
    let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connect()).unwrap();
    let stores = list.lines().filter(|line| line.contains(":store ")).count();
    assert_eq!(stores, 2, "one connection of L2 for each process: {list}");
    for manager in [&a, &b] {
        assert!(manager.health().is_healthy(), "{:?}", manager.health());
        manager.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_the_application_is_lent_by_name() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let other = CacheManager::builder().redis(store).build().unwrap();
    let manager = CacheManager::builder().redis(RedisStore::at(server.url())).build().unwrap();
    let build = |manager: &CacheManager, name: &str| -> LazyLayersCache<str, u32> {
        manager.cache(name).build().unwrap()
    };
    let (one, same, another) =
        (build(&manager, "one"), build(&other, "one"), build(&manager, "another"));
    one.set("k", 1).await.unwrap();
    another.set("k", 2).await.unwrap();
    assert_eq!(*same.get("k").await.unwrap(), 1);
    assert_eq!(keys(&server), ["another:cache:k", "one:cache:k"]);
    let refused = CacheManager::builder().redis(RedisStore::at("no url")).build().unwrap_err();
    assert_eq!(refused.option(), "redis.url");
    manager.close().await;
    other.close().await;
}

/// Fifty caches over a Redis that evicts keys, so that their indexes cannot be used.
#[tokio::test]
async fn one_walk_over_redis_clears_all_caches_after_a_restart() {
    let log = Lines::default();
    let _default = listen(log.clone());
    let evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let mut server = RedisServer::start_with(&evicting);
    let store =
        RedisStore::at(server.url()).options(RedisOptions::default().check_interval(ms(50)));
    let manager = CacheManager::builder().redis(store).build().unwrap();
    let caches: Vec<LazyLayersCache<str, u32>> = (0..50)
        .map(|number| manager.cache(&format!("c{number}")).without_l1().build().unwrap())
        .collect();
    for cache in &caches {
        eventually("Redis has it", async || cache.set("k", 1).await.unwrap().is_complete()).await;
    }
    redis::cmd("SET").arg("c7:foreign").arg("kept").exec(&mut server.connect()).unwrap();
    assert_eq!(keys(&server).len(), 51);
    server.save();
    server.kill();
    let mut arguments = evicting.to_vec();
    arguments.extend(["--save", ""]);
    server.restart_with(&arguments);
    // At first too: a Redis that evicts keys may have evicted its run id.
    let stats = || manager.stats().into_values();
    assert!(stats().all(|it| it.l2_emptied == 1));
    log.take();
    eventually("all caches are cleared", async || {
        for cache in &caches {
            assert_eq!(cache.get("k").await, None, "no value from before the restart");
        }
        stats().all(|it| it.l2_emptied == 2)
    })
    .await;
    assert_eq!(keys(&server), ["c7:foreign"]);
    // The walk deletes leases, then values, then copies.
    assert_eq!(server.calls("scan"), 3);
    let lines = || {
        let log = log.take();
        log.iter().filter(|line| line.contains("were removed from L2")).count()
    };
    assert_eq!(lines(), 1);
    // A cache whose first call comes later, on the same connection.
    redis::cmd("SET").arg("late:cache:__run").arg("another").exec(&mut server.connect()).unwrap();
    let late: LazyLayersCache<str, u32> = manager.cache("late").without_l1().build().unwrap();
    eventually("it is cleared", async || {
        assert_eq!(late.get("k").await, None);
        late.stats().l2_emptied == 1
    })
    .await;
    assert_eq!(lines(), 1);
    manager.close().await;
}

/// A call of each cache, one after the other. Returns how long they took in all.
async fn call_each(caches: &[LazyLayersCache<str, u32>], key: &str) -> Duration {
    let begun = Instant::now();
    for cache in caches {
        let value = cache.get_or_set(key, || async { Ok::<_, Broken>(7) }).await.unwrap();
        assert_eq!(*value, 7);
    }
    begun.elapsed()
}

#[tokio::test]
async fn an_outage_of_redis_is_one_for_fifty_caches() {
    let log = Lines::default();
    let _default = listen(log.clone());
    let opened = || log.take().iter().filter(|line| line.contains("its circuit opened")).count();
    let mut server = RedisServer::start();
    server.kill();
    let manager = CacheManager::builder().redis(RedisStore::at(server.url())).build().unwrap();
    let caches: Vec<LazyLayersCache<str, u32>> =
        (0..50).map(|number| manager.cache(&format!("c{number}")).build().unwrap()).collect();
    let recovered = async |what: &str| {
        let begun = Instant::now();
        join_all(caches.iter().map(async |cache| {
            while !cache.set("recovered", 1).await.unwrap().is_complete() {
                assert!(begun.elapsed() < ms(3_000), "{what}: a cache is not back after 3 s");
                sleep(ms(10)).await;
            }
        }))
        .await;
    };
    // Three calls fail, each within the deadline of 500 ms, and all others skip Redis.
    let at_most = ms(3 * 500 + 1_000);
    let took = call_each(&caches, "at the start").await;
    assert!(took < at_most, "{took:?}");
    assert_eq!(opened(), 1);
    server.restart();
    recovered("started").await;
    assert!(manager.health().is_healthy(), "{:?}", manager.health());
    opened();

    server.freeze();
    let took = call_each(&caches, "in the middle").await;
    assert!(took < at_most, "{took:?}");
    assert_eq!(opened(), 1);
    server.thaw();
    recovered("thawed").await;
    assert!(manager.health().is_healthy(), "{:?}", manager.health());
    manager.close().await;
}

#[tokio::test]
async fn a_restart_of_the_broker_is_reported_once_for_fifty_caches() {
    let log = Lines::default();
    let _default = listen(log.clone());
    let mut server = RedisServer::start();
    let bus = RedisTransport::at(server.url()).build().unwrap();
    let manager = CacheManager::builder().event_bus(bus).build().unwrap();
    let caches: Vec<LazyLayersCache<str, u32>> =
        (0..50).map(|number| manager.cache(&format!("c{number}")).build().unwrap()).collect();
    manager.ready().await.unwrap();
    for cache in &caches {
        cache.set("k", 1).await.unwrap();
    }
    assert_eq!(log.take(), Vec::<String>::new());
    server.kill();
    let all = |is_subscribed: bool| {
        let health = manager.health();
        health.caches.values().all(|it| {
            let bus = it.event_bus.as_ref();
            bus.is_some_and(|bus| (bus.subscribed, bus.trusted) == (is_subscribed, is_subscribed))
        })
    };
    eventually("all caches know", async || all(false)).await;
    server.restart();
    eventually("all caches are back", async || all(true)).await;
    let lines = log.take();
    for text in ["not subscribed to the bus", "subscribed to the bus again"] {
        let found = lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(found, 1, "{text}: {lines:#?}");
    }
    manager.close().await;
}

#[tokio::test]
async fn the_checks_of_the_connection_are_as_many_for_fifty_caches_as_for_one() {
    let server = RedisServer::start();
    let store =
        RedisStore::at(server.url()).options(RedisOptions::default().check_interval(ms(100)));
    let manager = CacheManager::builder().redis(store).build().unwrap();
    let caches: Vec<LazyLayersCache<str, u32>> =
        (0..50).map(|number| manager.cache(&format!("c{number}")).build().unwrap()).collect();
    for cache in &caches {
        eventually("Redis has it", async || cache.set("k", 1).await.unwrap().is_complete()).await;
    }
    let (before, checks) = (server.round_trips(), server.calls("role"));
    eventually("twenty checks", async || server.calls("role") >= checks + 20).await;
    let checks = server.calls("role") - checks;
    let trips = server.round_trips() - before;
    assert!(trips <= 4 * checks + 10, "{trips} round trips for {checks} checks");
    manager.close().await;
}
