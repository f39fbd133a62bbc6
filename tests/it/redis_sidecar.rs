//! The sidecar of a key in a real Redis: lease, negative entry and stale copy.

use std::{io, time::Duration};

use lazy_layers_cache::{
    CacheBuilder, FailSafe, LazyLayersCache, LeaseRequest, LeaseResponse, NegativeCache,
    Publication, RedisStore, Source, Store, WireCodec,
};
use redis::Connection;
use tokio::time::sleep;

use crate::support::{
    REFRESH, ms,
    redis::{RedisServer, field},
};

type Cache = LazyLayersCache<String, u32>;

fn builder(server: &RedisServer) -> CacheBuilder<String, u32> {
    let store = RedisStore::at(server.url()).build().unwrap();
    Cache::builder().l2(store, WireCodec::new())
}

fn with_fail_safe(server: &RedisServer, stale_ttl: Duration) -> Cache {
    builder(server).fail_safe(FailSafe::enabled().stale_ttl(stale_ttl)).build().unwrap()
}

async fn load(cache: &Cache, key: &str, value: u32) -> (u32, Source) {
    let loader = move || async move { Ok::<_, io::Error>(value) };
    let outcome = cache.get_or_set(key, loader).outcome().await.unwrap();
    (*outcome.value, outcome.source)
}

/// The value that a reader gets whose loader fails.
async fn stale(cache: &Cache, key: &str) -> Option<u32> {
    let broken = || async { Err::<u32, _>(io::Error::other("the database is down")) };
    cache.get_or_set(key, broken).await.ok().map(|value| *value)
}

fn pttl(redis: &mut Connection, name: &str) -> i64 {
    redis::cmd("PTTL").arg(name).query(redis).unwrap()
}

fn names(redis: &mut Connection) -> Vec<String> {
    let mut names: Vec<String> = redis::cmd("KEYS").arg("*").query(redis).unwrap();
    names.retain(|name| !name.ends_with("__run"));
    names.sort();
    names
}

const COPY: &str = "cache:__copy:{cache:k}";

#[tokio::test]
async fn instances_with_any_fail_safe_agree_on_what_is_fresh() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let writers = [
        builder(&server).build().unwrap(),
        with_fail_safe(&server, ms(60_000)),
        with_fail_safe(&server, Duration::MAX),
    ];
    for writer in &writers {
        for reader in 0..3 {
            writer.set("k", 7).ttl(ms(5_000)).await.unwrap();
            assert!((4_000..=5_000).contains(&pttl(&mut redis, "cache:k")), "exactly its ttl");
            let reader = match reader {
                0 => builder(&server).build().unwrap(),
                1 => with_fail_safe(&server, ms(30_000)),
                _ => with_fail_safe(&server, Duration::MAX),
            };
            assert_eq!(load(&reader, "k", 8).await, (7, Source::L2));
        }
    }
    // A program that knows nothing of sidecars, too.
    redis::cmd("SET")
        .arg("cache:k")
        .arg(b"HC1M\x09")
        .arg("PX")
        .arg(5_000)
        .exec(&mut redis)
        .unwrap();
    for reader in [builder(&server).build().unwrap(), with_fail_safe(&server, ms(30_000))] {
        assert_eq!(load(&reader, "k", 8).await, (9, Source::L2));
    }
}

#[tokio::test]
async fn a_copy_is_served_after_the_ttl_and_only_within_the_window_of_its_value() {
    let server = RedisServer::start();
    let [writer, reader, without] = [
        with_fail_safe(&server, ms(60_000)),
        with_fail_safe(&server, ms(60_000)),
        builder(&server).build().unwrap(),
    ];
    writer.set("long", 1).ttl(ms(50)).await.unwrap();
    writer.set("short", 2).ttl(ms(50)).stale_for(ms(50)).await.unwrap();
    writer.set("none", 3).ttl(ms(50)).stale_for(ms(0)).await.unwrap();
    without.set("unknown", 4).ttl(ms(50)).await.unwrap();
    sleep(ms(120)).await;
    assert_eq!(stale(&reader, "long").await, Some(1));
    for key in ["short", "none", "unknown"] {
        assert_eq!(stale(&reader, key).await, None, "{key}");
    }
    assert_eq!(stale(&without, "long").await, None, "it serves no stale values");
}

#[tokio::test]
async fn a_value_promoted_from_redis_keeps_the_window_that_its_writer_gave() {
    let server = RedisServer::start();
    let (writer, reader) =
        (with_fail_safe(&server, ms(60_000)), with_fail_safe(&server, ms(60_000)));
    writer.set("permission", 1).ttl(ms(100)).stale_for(ms(0)).await.unwrap();
    writer.set("price", 2).ttl(ms(100)).await.unwrap();
    for (key, value) in [("permission", 1), ("price", 2)] {
        assert_eq!(load(&reader, key, 9).await, (value, Source::L2));
    }
    server.freeze();
    sleep(ms(150)).await;
    assert_eq!(stale(&reader, "permission").await, None, "no window, in L1 neither");
    assert_eq!(stale(&reader, "price").await, Some(2));
}

#[tokio::test]
async fn the_copy_of_a_value_that_was_removed_or_replaced_in_redis_goes() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    for change in ["DEL", "SET", "EXPIRE"] {
        let [writer, reader] = [(); 2].map(|()| with_fail_safe(&server, ms(60_000)));
        writer.set("k", 1).ttl(ms(300)).await.unwrap();
        assert!(pttl(&mut redis, COPY) > 0);
        match change {
            "DEL" => redis::cmd("DEL").arg("cache:k").exec(&mut redis).unwrap(),
            "SET" => {
                let mut set = redis::cmd("SET");
                set.arg("cache:k").arg(b"HC1M\x02").arg("PX").arg(5_000).exec(&mut redis).unwrap();
            }
            _ => redis::cmd("PEXPIRE").arg("cache:k").arg(1).exec(&mut redis).unwrap(),
        }
        sleep(ms(5)).await;
        // An instance reads the key before the old ttl ends.
        let _ = reader.get("k").await;
        assert_eq!(pttl(&mut redis, COPY), -2, "the copy of the old value after {change}");
        redis::cmd("DEL").arg("cache:k").exec(&mut redis).unwrap();
        sleep(ms(350)).await;
        assert_eq!(stale(&with_fail_safe(&server, ms(60_000)), "k").await, None, "{change}");
    }
}

#[tokio::test]
async fn each_change_of_each_instance_removes_value_and_copy() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    for with_index in [true, false] {
        let builder = || {
            let store = RedisStore::at(server.url()).use_index(with_index).build().unwrap();
            Cache::builder().l2(store, WireCodec::new())
        };
        let with_fail_safe = || builder().fail_safe(FailSafe::enabled()).build().unwrap();
        let writer = with_fail_safe();
        for changer in [builder().build().unwrap(), with_fail_safe()] {
            for change in 0..6 {
                writer.set("k", 1).ttl(ms(30)).await.unwrap();
                // The value has expired; only the copy is left.
                sleep(ms(40)).await;
                assert!(pttl(&mut redis, COPY) > 0);
                match change {
                    0 => drop(changer.delete("k").await.unwrap()),
                    1 => drop(changer.delete_by_pattern("k*").await.unwrap()),
                    2 => drop(changer.clear().await.unwrap()),
                    3 => drop(changer.set("k", 2).ttl(ms(0)).await.unwrap()),
                    4 => {
                        let none = || async { Ok::<_, io::Error>(None::<u32>) };
                        assert_eq!(changer.get_or_set("k", none).await.unwrap(), None);
                    }
                    _ => drop(changer.set("k", 2).stale_for(ms(0)).ttl(ms(9_000)).await.unwrap()),
                }
                assert_eq!(pttl(&mut redis, COPY), -2, "change {change}, index {with_index}");
                writer.clear().await.unwrap();
            }
        }
    }
    let mut left = names(&mut redis);
    left.retain(|name| !name.contains("__leases:"));
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn copies_stay_within_max_entries_and_are_no_entries() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let store = RedisStore::at(server.url()).max_entries(10).build().unwrap();
    for (round, ttl) in [ms(5), ms(60_000)].into_iter().enumerate() {
        for number in 0..40 {
            let key = format!("{round}:{number}");
            let lease = store.acquire_write_lease(&key, ms(5_000)).await.unwrap().unwrap();
            let value = Publication::Value { value: vec![1], ttl, stale_for: ms(60_000) };
            assert!(store.publish(&key, &lease, value).await.unwrap());
            sleep(ms(1)).await;
        }
        sleep(ms(10)).await;
        let all = names(&mut redis);
        let copies = all.iter().filter(|name| name.contains("__copy:")).count();
        let values = all.iter().filter(|name| !name.contains("__")).count();
        assert!(copies <= 10, "{copies} copies: {all:?}");
        assert_eq!((values, store.size().await.unwrap()), (round * 10, round as u64 * 10));
    }
}

#[tokio::test]
async fn missing_keys_take_little_memory_and_are_gone_within_a_minute() {
    const KEYS: u64 = 20_000;
    let server = RedisServer::start();
    let mut redis = server.connect();
    let used = |server: &RedisServer| -> u64 {
        let info = server.info("memory");
        field(&info, "used_memory").unwrap().parse().unwrap()
    };
    let store = RedisStore::at(server.url()).build().unwrap();
    let request = LeaseRequest { lease_for: ms(32_000), refresh: false, ..REFRESH };
    store.get_or_lease("warm", request).await.unwrap();
    let before = used(&server);
    for first in (0..KEYS).step_by(500) {
        let all = (first..first + 500).map(|number| {
            let store = store.clone();
            async move { store.get_or_lease(&format!("missing:user:{number:07}"), request).await }
        });
        for response in futures_util::future::join_all(all).await {
            assert!(matches!(response, Ok(LeaseResponse::Load { lease: Some(_), stale: None })));
        }
    }
    let bytes = (used(&server) - before) / KEYS;
    println!("{bytes} bytes of Redis for each load of a missing key");
    assert!(bytes <= 256, "{bytes} bytes a key");
    for name in names(&mut redis) {
        let left = pttl(&mut redis, &name);
        assert!((1..=60_000).contains(&left), "{name} ends in {left} ms");
    }
}

#[tokio::test]
async fn a_negative_entry_is_shared_and_is_never_a_null_under_the_key() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let negative = || NegativeCache::enabled().ttl(ms(400));
    let [one, other] =
        [(); 2].map(|()| builder(&server).negative_cache(negative()).build().unwrap());
    let without = builder(&server).build().unwrap();
    let none = || async { Ok::<_, io::Error>(None::<u32>) };
    let some = || async { Ok::<_, io::Error>(Some(1)) };
    assert_eq!(one.get_or_set("k", none).await.unwrap(), None);
    assert_eq!(pttl(&mut redis, "cache:k"), -2, "for TypeScript a null is a value");
    let outcome = other.get_or_set("k", some).outcome().await.unwrap();
    assert_eq!((outcome.value, outcome.source), (None, Source::L2));
    assert_eq!(other.stats().loads, 0);
    // A cache without negative entries loads, and so does a loader that always has a value.
    assert_eq!(without.get_or_set("k", some).await.unwrap().as_deref(), Some(&1));
    one.delete("k").await.unwrap();
    assert_eq!(one.get_or_set("k", none).await.unwrap(), None);
    assert_eq!(
        load(&builder(&server).negative_cache(negative()).build().unwrap(), "k", 5).await.0,
        5
    );
    other.delete("k").await.unwrap();
    assert_eq!(one.get_or_set("k2", none).await.unwrap(), None);
    one.delete_by_pattern("k*").await.unwrap();
    assert_eq!(other.get_or_set("k2", some).await.unwrap().as_deref(), Some(&1));
    assert_eq!(one.get_or_set("k3", none).await.unwrap(), None);
    sleep(ms(450)).await;
    assert_eq!(names(&mut redis).iter().filter(|name| name.contains("k3")).count(), 0);
}

#[tokio::test]
async fn a_null_of_a_typescript_instance_is_none_for_a_type_without_null_and_stays() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let null = b"HC1M\xb4__hybridcache_null__";
    redis::cmd("SET").arg("cache:k").arg(null).arg("PX").arg(60_000).exec(&mut redis).unwrap();
    let cache = builder(&server).build().unwrap();
    assert_eq!(cache.get("k").await, None);
    let some = || async { Ok::<_, io::Error>(Some(1)) };
    assert_eq!(cache.get_or_set("k", some).await.unwrap(), None, "null is a value there");
    let bytes: Vec<u8> = redis::cmd("GET").arg("cache:k").query(&mut redis).unwrap();
    assert_eq!(bytes, null);
    // A loader that always has a value is asked.
    assert_eq!(load(&cache, "k", 5).await, (5, Source::Loader));
}

#[tokio::test]
async fn a_lease_lives_at_most_a_minute_and_a_long_load_extends_it() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let store = RedisStore::at(server.url()).build().unwrap();
    let request = LeaseRequest { lease_for: ms(200), refresh: false, ..REFRESH };
    let response = store.get_or_lease("k", request).await.unwrap();
    let LeaseResponse::Load { lease: Some(lease), .. } = response else { panic!("{response:?}") };
    assert!(store.extend_lease("k", &lease, ms(30_000)).await.unwrap());
    let left = pttl(&mut redis, "cache:__lease:{cache:k}");
    assert!((29_000..=30_000).contains(&left), "{left}");
    store.delete_matching("*").await.unwrap();
    assert!(!store.extend_lease("k", &lease, ms(30_000)).await.unwrap(), "the delete voided it");
    let cache = builder(&server).build().unwrap();
    let loading = tokio::spawn(async move {
        let slow = || async {
            sleep(ms(300)).await;
            Ok::<_, io::Error>(1)
        };
        cache.get_or_set("long", slow).await.map(|value| *value)
    });
    sleep(ms(100)).await;
    let left = pttl(&mut redis, "cache:__lease:{cache:long}");
    assert!((30_000..=60_000).contains(&left), "{left}");
    assert_eq!(loading.await.unwrap().unwrap(), 1);
    assert_eq!(pttl(&mut redis, "cache:__lease:{cache:long}"), -2);
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_still_read() {
    let server = RedisServer::start();
    let cache = builder(&server).build().unwrap();
    for number in 0..20 {
        cache.set(&number.to_string(), number).await.unwrap();
    }
    server.config_set("min-replicas-to-write", "1");
    let reader = builder(&server).build().unwrap();
    for number in 0..20 {
        // Misses between the hits, whose leases the server refuses.
        assert_eq!(load(&reader, &format!("missing {number}"), 3).await, (3, Source::Loader));
        assert_eq!(load(&reader, &number.to_string(), 99).await, (number, Source::L2));
    }
}

/// The bytes that the server has sent.
fn sent(server: &RedisServer) -> u64 {
    let stats = server.info("stats");
    field(&stats, "total_net_output_bytes").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_read_without_a_load_does_not_fetch_the_copy_of_an_expired_value() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let mut redis = server.connect();
    for is_removed in [false, true] {
        let lease = store.acquire_write_lease("k", ms(5_000)).await.unwrap().unwrap();
        let ttl = if is_removed { ms(60_000) } else { ms(50) };
        let value = Publication::Value { value: vec![1; 300_000], ttl, stale_for: ms(60_000) };
        assert!(store.publish("k", &lease, value).await.unwrap());
        if is_removed {
            redis::cmd("DEL").arg("cache:k").exec(&mut redis).unwrap();
        } else {
            sleep(ms(60)).await;
        }
        let before = sent(&server);
        assert_eq!(store.get("k", true).await.unwrap(), None);
        let bytes = sent(&server) - before;
        assert!(bytes < 50_000, "{bytes} bytes for a value that is gone");
        let is_kept: bool = redis::cmd("EXISTS").arg(COPY).query(&mut redis).unwrap();
        assert_eq!(is_kept, !is_removed, "the copy of a value that went before its time goes");
    }
}

#[tokio::test]
async fn the_copy_goes_when_a_value_of_nearly_the_same_expiry_is_read() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let mut redis = server.connect();
    for (after, is_kept) in [(-900, false), (-50, false), (0, true), (50, false), (900, false)] {
        let lease = store.acquire_write_lease("k", ms(5_000)).await.unwrap().unwrap();
        let value = Publication::Value { value: vec![1], ttl: ms(5_000), stale_for: ms(60_000) };
        assert!(store.publish("k", &lease, value).await.unwrap());
        // Another program replaces the value by one of the same length, or changes its ttl.
        if after != 0 {
            let millis = pttl(&mut redis, "cache:k") + after;
            redis::cmd("PEXPIRE").arg("cache:k").arg(millis).exec(&mut redis).unwrap();
        }
        let stored = store.get("k", true).await.unwrap().expect("there is a value");
        assert_eq!(stored.stale_for.is_zero(), !is_kept, "{after} ms later: {stored:?}");
        let exists: bool = redis::cmd("EXISTS").arg(COPY).query(&mut redis).unwrap();
        assert_eq!(exists, is_kept, "{after} ms later");
    }
}
