//! `RedisStore` with real Redis servers: the store contract, the bytes, the round trips.

use std::time::Duration;

use lazy_layers_cache::{
    CacheManager, DeleteStrategy, FailSafe, LazyLayersCache, Lease, LeaseRequest, LeaseResponse,
    LockResponse, ManagerOptions, NegativeCache, RedisStore, RestartPolicy, Store, WireCodec,
    testing::{SharedStore, TokioClock, check_store},
};

use crate::support::{REFRESH, ms, publication, redis::RedisServer};

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::at(server.url()).build().unwrap()
}

fn cache(store: RedisStore) -> LazyLayersCache<String, u32> {
    LazyLayersCache::builder().l2(store, WireCodec::new()).build().unwrap()
}

async fn lease(store: &RedisStore, key: &str) -> Lease {
    let begin = REFRESH;
    match store.get_or_lease(key, begin).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => lease,
        begun => panic!("{begun:?}"),
    }
}

async fn write(store: &RedisStore, key: &str, value: &str, ttl: Duration) {
    let lease = store.acquire_write_lease(key, ms(1_000)).await.unwrap().unwrap();
    assert!(store.publish(key, &lease, publication(value, ttl)).await.unwrap());
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    check_store(&SharedStore::new(TokioClock::new())).await;
}

#[tokio::test]
async fn redis_keeps_the_contract_with_an_index_and_without() {
    let server = RedisServer::start();
    for (prefix, use_index) in [("cache:", true), ("x|", true), ("odd*[x]:", false), ("{t}:", true)]
    {
        let store = RedisStore::at(server.url()).prefix(prefix).use_index(use_index);
        let store = store.delete_strategy(DeleteStrategy::Del).scan_count(3).batch_size(2);
        check_store(&store.build().unwrap()).await;
        redis::cmd("FLUSHALL").exec(&mut server.connect()).unwrap();
    }
}

#[tokio::test]
async fn names_and_bytes_are_those_of_the_typescript_package() {
    let server = RedisServer::start();
    let cache = cache(store(&server));
    cache.set("user:1", 7).await.unwrap();
    let mut redis = server.connect();
    let bytes: Vec<u8> = redis::cmd("GET").arg("cache:user:1").query(&mut redis).unwrap();
    assert_eq!(bytes, b"HC1M\x07");
    let index: Vec<String> =
        redis::cmd("ZRANGE").arg("cache:__index").arg(0).arg(-1).query(&mut redis).unwrap();
    assert_eq!(index, ["cache:user:1"]);
    let taken = store(&server).lock("user:1", "me", ms(5_000), None).await.unwrap();
    assert_eq!(taken, LockResponse::Acquired);
    let owner: String = redis::cmd("GET").arg("cache:__lock:user:1").query(&mut redis).unwrap();
    assert_eq!(owner, "me");
    redis::cmd("SET").arg("cache:there").arg(b"HC1M\x09").exec(&mut redis).unwrap();
    assert_eq!(cache.get("there").await.as_deref(), Some(&9), "a value without expiry is fresh");
}

#[tokio::test]
async fn a_hit_and_a_delete_take_one_round_trip_a_miss_and_a_write_two() {
    for with_sidecars in [false, true] {
        let server = RedisServer::start();
        let mut builder = LazyLayersCache::<String, u32>::builder().without_l1();
        if with_sidecars {
            let negative = NegativeCache::enabled();
            builder = builder.fail_safe(FailSafe::enabled()).negative_cache(negative);
        }
        let cache = builder.l2(store(&server), WireCodec::new()).build().unwrap();
        let load = || async { Ok::<_, std::io::Error>(1) };
        let none = || async { Ok::<_, std::io::Error>(None::<u32>) };
        // The store connects, and Redis learns the scripts.
        cache.get_or_set("warm", load).await.unwrap();
        cache.set("warm", 2).await.unwrap();
        cache.get_or_set("none", none).await.unwrap();
        let mut last = server.round_trips();
        let mut trips = || {
            let now = server.round_trips();
            std::mem::replace(&mut last, now).abs_diff(now)
        };
        trips();
        // The cost of reading the counter; the health checks of the connection may add to it.
        let asking = trips();
        let mut check = |what: &str, each: u64| {
            let trips = trips() - asking;
            println!("sidecars {with_sidecars}: {trips} round trips for fifty {what}");
            assert!((50 * each..=50 * each + 3).contains(&trips), "{what}: {trips}");
        };
        for number in 0..50 {
            cache.get_or_set(&number.to_string(), load).await.unwrap();
        }
        check("misses with their writes", 2);
        for _ in 0..50 {
            cache.get_or_set("1", load).await.unwrap();
        }
        check("hits", 1);
        for _ in 0..50 {
            cache.get("1").await.unwrap();
        }
        check("reads", 1);
        for _ in 0..50 {
            cache.set("1", 3).await.unwrap();
        }
        check("writes", 2);
        for _ in 0..50 {
            cache.delete("1").await.unwrap();
        }
        check("deletes", 1);
        if with_sidecars {
            for _ in 0..50 {
                assert_eq!(cache.get_or_set("none", none).await.unwrap(), None);
            }
            check("hits of a negative entry", 1);
        }
    }
}

#[tokio::test]
async fn internal_and_foreign_names_are_never_touched() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let foreign = ["cache2:a", "cach", "other", "cache:__mine", "cacheX:a"];
    for name in foreign {
        redis::cmd("SET").arg(name).arg("x").exec(&mut redis).unwrap();
    }
    redis::cmd("LPUSH").arg("cache:list").arg("x").exec(&mut redis).unwrap();
    for use_index in [true, false] {
        let store = RedisStore::at(server.url()).use_index(use_index).build().unwrap();
        write(&store, "a", "1", ms(60_000)).await;
        store.delete_matching("*").await.unwrap();
        assert_eq!(store.get("a", false).await.unwrap(), None);
        let cache = cache(store);
        cache.set("__mine", 1).await.unwrap();
        cache.delete("__mine").await.unwrap();
        cache.clear().await.unwrap();
        for name in foreign {
            let is_there: bool = redis::cmd("EXISTS").arg(name).query(&mut redis).unwrap();
            assert!(is_there, "{name}");
        }
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss_and_is_replaced() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let cache = cache(store(&server));
    for round in 0..5 {
        redis::cmd("DEL").arg("cache:k").exec(&mut redis).unwrap();
        redis::cmd("LPUSH").arg("cache:k").arg("x").exec(&mut redis).unwrap();
        assert_eq!(cache.get("k").await, None);
        let loaded = cache
            .get_or_set("k", move || async move { Ok::<_, std::io::Error>(round) })
            .await
            .unwrap();
        assert_eq!(*loaded, round);
        let bytes: Vec<u8> = redis::cmd("GET").arg("cache:k").query(&mut redis).unwrap();
        assert_eq!(bytes, [b"HC1M".as_slice(), &[round as u8]].concat());
        cache.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_neither_read_nor_written() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let store = RedisStore::at(server.url()).max_payload_bytes(100).build().unwrap();
    redis::cmd("SET").arg("cache:k").arg("x".repeat(101)).exec(&mut redis).unwrap();
    assert_eq!(store.get("k", false).await.unwrap(), None);
    let lease = lease(&store, "k").await;
    let begun =
        store.get_or_lease("k", LeaseRequest { lease_for: ms(9), refresh: false, ..REFRESH }).await;
    assert!(
        matches!(begun.unwrap(), LeaseResponse::Load { stale: None, .. }),
        "Redis does not send it"
    );
    let error =
        store.publish("k", &lease, publication(vec![0; 101], ms(60_000))).await.unwrap_err();
    assert!(error.to_string().contains("redis.max_payload_bytes is 100"), "{error}");
    assert!(store.publish("k", &lease, publication(vec![0; 100], ms(60_000))).await.unwrap());
}

#[tokio::test]
async fn a_load_that_adopts_a_lease_soon_writes_nothing_and_one_that_needs_it_longer_extends_it() {
    let server = RedisServer::start();
    let store = store(&server);
    let begin = |lease_for| LeaseRequest { lease_for, refresh: false, ..REFRESH };
    let left = |server: &RedisServer| -> i64 {
        redis::cmd("PTTL").arg("cache:__lease:{cache:k}").query(&mut server.connect()).unwrap()
    };
    let LeaseResponse::Load { lease: first, .. } =
        store.get_or_lease("k", begin(ms(60_000))).await.unwrap()
    else {
        panic!("there is no value")
    };
    let before = (server.calls("pexpire"), server.calls("sadd"));
    let again = store.get_or_lease("k", begin(ms(60_000))).await.unwrap();
    assert_eq!(again, LeaseResponse::Load { lease: first.clone(), stale: None });
    assert_eq!((server.calls("pexpire"), server.calls("sadd")), before);
    assert!(left(&server) >= 60_000, "{}", left(&server));
    let again = store.get_or_lease("k", begin(ms(100_000))).await.unwrap();
    assert_eq!(again, LeaseResponse::Load { lease: first, stale: None });
    assert!(left(&server) >= 100_000, "{}", left(&server));
}

#[tokio::test]
async fn beyond_max_entries_the_oldest_entries_are_removed() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).max_entries(10).build().unwrap();
    for i in 0..30 {
        write(&store, &i.to_string(), "x", ms(60_000)).await;
        tokio::time::sleep(ms(2)).await;
    }
    assert_eq!(store.size().await.unwrap(), 10);
    assert!(
        store.get("29", false).await.unwrap().is_some()
            && store.get("19", false).await.unwrap().is_none()
    );
}

#[tokio::test]
async fn the_index_forgets_expired_values() {
    let server = RedisServer::start();
    let store = store(&server);
    for i in 0..500 {
        write(&store, &i.to_string(), "x", ms(1)).await;
    }
    let members = |server: &RedisServer| -> u64 {
        redis::cmd("ZCARD").arg("cache:__index").query(&mut server.connect()).unwrap()
    };
    // Until the last values have expired.
    tokio::time::sleep(ms(5)).await;
    assert!(members(&server) < 100, "{} names of expired values", members(&server));
    assert_eq!(store.size().await.unwrap(), 0);
    assert_eq!(members(&server), 0);
}

/// Returns the last call of a script about the key, as the server received it.
fn last_call(server: &RedisServer, key: &str) -> redis::Cmd {
    type Entry = (u64, u64, u64, Vec<String>, String, String);
    let log = redis::cmd("SLOWLOG").arg("GET").arg(-1).query(&mut server.connect());
    let entries: Vec<Entry> = log.unwrap();
    let is_match = |args: &Vec<String>| args[0] == "EVALSHA" && args.contains(&key.to_owned());
    let args = entries.into_iter().map(|(.., args, _, _)| args).find(is_match).unwrap();
    redis::cmd(&args[0]).arg(&args[1..]).to_owned()
}

#[tokio::test]
async fn a_call_that_arrives_twice_does_not_restore_a_lease_that_a_delete_voided() {
    let server = RedisServer::start();
    server.config_set("slowlog-log-slower-than", "0");
    server.config_set("slowlog-max-len", "1000");
    let store = store(&server);
    // Redis learns the scripts.
    write(&store, "warm", "1", ms(60_000)).await;
    lease(&store, "warm").await;
    for writes in [false, true] {
        let voided = if writes {
            store.acquire_write_lease("k", ms(60_000)).await.unwrap().unwrap()
        } else {
            lease(&store, "k").await
        };
        let copy = last_call(&server, "cache:k");
        store.delete("k").await.unwrap();
        copy.exec(&mut server.connect()).unwrap();
        let published = store.publish("k", &voided, publication(b"old", ms(60_000))).await;
        assert!(!published.unwrap(), "lease of a write: {writes}");
        store.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_delete_that_fails_halfway_leaves_the_value_in_the_index_for_the_next_delete() {
    let server = RedisServer::start_with_user("app", "secret", "~cache:* &* +@all");
    let may = |rule: &str| {
        let mut allow = redis::cmd("ACL");
        allow.arg("SETUSER").arg("app").arg(rule).exec(&mut server.connect()).unwrap();
    };
    let store = store(&server);
    for pattern in [false, true] {
        write(&store, "k", "1", ms(60_000)).await;
        let load = lease(&store, "k").await;
        may("-unlink");
        if pattern {
            store.delete_matching("k*").await.unwrap_err();
        } else {
            store.delete("k").await.unwrap_err();
        }
        may("+unlink");
        store.delete_matching("k*").await.unwrap();
        assert_eq!(store.get("k", false).await.unwrap(), None, "by pattern: {pattern}");
        assert!(!store.publish("k", &load, publication(b"old", ms(60_000))).await.unwrap());
    }
}

#[tokio::test]
async fn a_password_a_user_and_a_connection_of_the_application_are_supported() {
    let server = RedisServer::start_with_password("secret");
    check_store(&store(&server)).await;
    let rules = "~cache:* &* +@all -@dangerous";
    let server = RedisServer::start_with_user("app", "secret", rules);
    check_store(&store(&server)).await;
    let server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    check_store(&RedisStore::over(connection).build().unwrap()).await;
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn tls_with_a_private_authority_is_supported() {
    let server = RedisServer::start_with_tls();
    let authority = std::fs::read(server.authority()).unwrap();
    let store = RedisStore::at(server.url()).root_certificates(authority).build().unwrap();
    check_store(&store).await;
    let stranger = self::store(&server);
    let error = stranger.get("k", false).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_configuration_file_names_the_certificates_of_redis() {
    let server = RedisServer::start_with_tls();
    let (url, authority) = (server.url(), server.authority().display().to_string());
    let file = format!(
        "[redis]\nurl = {url:?}\ntls.ca_file = {authority:?}\n[bus]\ntransport = \"redis\""
    );
    let manager = || {
        let options: ManagerOptions = toml::from_str(&file).unwrap();
        CacheManager::builder().options(options).build().unwrap()
    };
    let (here, there) = (manager(), manager());
    let users = here.cache::<u64, String>("users").build().unwrap();
    let peer = there.cache::<u64, String>("users").build().unwrap();
    tokio::try_join!(here.ready(), there.ready()).unwrap();
    let report = users.set(&7, "Ada".to_owned()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(peer.get(&7).await.as_deref(), Some(&"Ada".to_owned()));
}

#[test]
fn a_build_error_names_the_option_and_the_fix() {
    let refused = |builder: lazy_layers_cache::RedisStoreBuilder| builder.build().unwrap_err();
    let at = || RedisStore::at("redis://127.0.0.1/");
    for (error, option) in [
        (refused(RedisStore::at("http://127.0.0.1")), "redis.url"),
        (refused(RedisStore::cluster(Vec::<String>::new())), "redis.cluster"),
        (refused(RedisStore::sentinel(Vec::<String>::new(), "redis://m")), "redis.sentinel"),
        (refused(at().prefix("a{b")), "redis.prefix"),
        (refused(at().scan_count(0)), "redis.scan_count"),
        (refused(at().batch_size(0)), "redis.batch_size"),
        (refused(at().max_payload_bytes(0)), "redis.max_payload_bytes"),
        (refused(at().max_entries(0)), "redis.max_entries"),
        (refused(at().max_entries(1).use_index(false)), "redis.max_entries"),
        (refused(RedisStore::cluster(["redis://h"]).max_entries(1)), "redis.max_entries"),
    ] {
        assert_eq!(error.option(), option, "{error}");
    }
    let kept = at().after_restart(RestartPolicy::Keep).build().unwrap();
    assert!(format!("{kept:?}").contains("Keep"));
}
