//! Redis servers that do not offer a command, that take no writes, that hold keys of another type
//! under internal names, or that are too old.

use std::{
    io::{BufReader, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    DistributedLock, L2Effect, LazyLayersCache, LeaseRequest, LeaseResponse, RedisStore,
    RedisStoreBuilder, Store, WireCodec, testing::check_store,
};
use tokio::time::sleep;

use crate::support::{
    REFRESH,
    cluster::Cluster,
    fake_sentinel::{FakeSentinel, command},
    ms,
    process::wait_for,
    redis::{RedisServer, field},
};

type Cache = LazyLayersCache<String, u32>;

fn cache(store: RedisStoreBuilder) -> Cache {
    Cache::builder().without_l1().l2(store.build().unwrap(), WireCodec::new()).build().unwrap()
}

/// The arguments that take commands from a server.
fn without(commands: &[&'static str]) -> Vec<&'static str> {
    commands.iter().flat_map(|command| ["--rename-command", command, ""]).collect()
}

async fn load(cache: &Cache, key: &str, value: u32) -> u32 {
    let load = move || async move { Ok::<_, std::io::Error>(value) };
    *cache.get_or_set(key, load).await.unwrap()
}

/// Checks that values are written, read and deleted.
async fn is_in_plain_use(cache: &Cache) {
    assert_eq!(load(cache, "loaded", 1).await, 1);
    assert_eq!(cache.get("loaded").await.as_deref(), Some(&1));
    cache.set("set", 2).await.unwrap();
    assert_eq!(load(cache, "set", 3).await, 2);
    cache.delete("set").await.unwrap();
    assert_eq!(cache.get("set").await, None);
}

#[tokio::test]
async fn a_server_that_does_not_offer_info_or_role_keeps_the_contract() {
    for commands in [&["INFO"][..], &["ROLE"], &["INFO", "ROLE"], &["SCAN", "CONFIG", "SCRIPT"]] {
        let server = RedisServer::start_with(&without(commands));
        check_store(&RedisStore::at(server.url()).build().unwrap()).await;
        is_in_plain_use(&cache(RedisStore::at(server.url()))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_does_not_offer_info_keeps_the_contract() {
    let cluster = Cluster::start_with(&without(&["INFO", "ROLE"]));
    check_store(&RedisStore::cluster(cluster.urls()).build().unwrap()).await;
}

#[tokio::test]
async fn a_master_that_does_not_offer_role_is_taken_at_the_word_of_its_sentinels() {
    for renamed in [true, false] {
        let server = if renamed {
            RedisServer::start_with(&without(&["ROLE"]))
        } else {
            RedisServer::start_with_user("app", "secret", "~cache:* &* +@all -role -info")
        };
        let sentinel = FakeSentinel::naming(server.port(), 1);
        let login = if renamed { "" } else { "app:secret@" };
        let store = RedisStore::sentinel([sentinel.url()], format!("redis://{login}main/"));
        check_store(&store.build().unwrap()).await;
    }
}

#[tokio::test]
async fn without_info_and_scan_only_a_delete_by_pattern_fails_and_names_the_command() {
    let commands = ["INFO", "ROLE", "SCAN", "CONFIG", "SCRIPT", "TYPE"];
    let server = RedisServer::start_with(&without(&commands));
    is_in_plain_use(&cache(RedisStore::at(server.url()))).await;
    let store = RedisStore::at(server.url()).build().unwrap();
    let error = store.delete_matching("*").await.unwrap_err().to_string();
    assert!(error.contains("SCAN"), "{error}");
}

#[tokio::test]
async fn a_command_that_is_needed_is_named_by_the_error() {
    for command in ["EVALSHA", "EVAL"] {
        let server = RedisServer::start_with(&without(&[command]));
        let store = RedisStore::at(server.url()).build().unwrap();
        let request = LeaseRequest { lease_for: ms(9), refresh: false, ..REFRESH };
        let error = store.get_or_lease("k", request).await.unwrap_err().to_string();
        let named = [format!("command '{command}'"), format!("command `{command}`")];
        assert!(named.iter().any(|named| error.contains(named)), "{error}");
    }
}

/// Makes a server refuse writes, in one of three ways.
fn refuse_writes(server: &RedisServer, code: &str) {
    match code {
        "OOM" => server.config_set("maxmemory", "1"),
        "NOREPLICAS" => server.config_set("min-replicas-to-write", "1"),
        _ => {
            // A snapshot cannot replace a directory.
            std::fs::create_dir_all(server.dir().join("dump.rdb/x")).unwrap();
            server.config_set("save", "3600 1000000");
            redis::cmd("BGSAVE").exec(&mut server.connect()).unwrap();
            wait_for("a snapshot to fail", ms(10_000), || {
                let info = server.info("persistence");
                (field(&info, "rdb_last_bgsave_status") == Some("err")).then_some(())
            });
        }
    }
    let refused = redis::cmd("SET").arg("other").arg(1).exec(&mut server.connect()).unwrap_err();
    assert_eq!(refused.code(), Some(code));
}

fn accept_writes(server: &RedisServer) {
    server.config_set("maxmemory", "0");
    server.config_set("min-replicas-to-write", "0");
    server.config_set("stop-writes-on-bgsave-error", "no");
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_is_still_read() {
    for code in ["OOM", "NOREPLICAS", "MISCONF"] {
        let server = RedisServer::start();
        cache(RedisStore::at(server.url())).set("k", 1).await.unwrap();
        redis::cmd("DEL").arg("cache:__run").exec(&mut server.connect()).unwrap();
        refuse_writes(&server, code);

        // A store that connects now.
        let store = RedisStore::at(server.url()).build().unwrap();
        let cache = Cache::builder().without_l1().l2(store.clone(), WireCodec::new());
        let cache = cache.build().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < ms(1_200) {
            assert_eq!(cache.get("k").await.as_deref(), Some(&1), "{code}");
            assert_eq!(load(&cache, "k", 2).await, 1, "{code}");
            sleep(ms(50)).await;
        }
        assert_eq!(store.connection_generation(), 1, "{code}: the store stays connected");

        accept_writes(&server);
        let accepted = Instant::now();
        while cache.get("new").await.is_none() {
            assert_eq!(load(&cache, "new", 3).await, 3);
            assert!(accepted.elapsed() < Duration::from_secs(3), "{code}: it is not written to");
            sleep(ms(20)).await;
        }
    }
}

#[tokio::test]
async fn writes_that_a_redis_refuses_do_not_stop_its_reads() {
    for code in ["OOM", "NOREPLICAS", "MISCONF"] {
        let server = RedisServer::start();
        let store = RedisStore::at(server.url()).build().unwrap();
        let cache = Cache::builder()
            .without_l1()
            .distributed_lock(DistributedLock::enabled())
            .l2(store.clone(), WireCodec::new())
            .build()
            .unwrap();
        cache.set("k", 1).await.unwrap();
        let request = LeaseRequest { lease_for: ms(30_000), refresh: false, ..REFRESH };
        let response = store.get_or_lease("leased", request).await.unwrap();
        assert!(matches!(response, LeaseResponse::Load { lease: Some(_), .. }), "{response:?}");
        refuse_writes(&server, code);
        for round in 0..4 {
            let writes = (0..12).map(|number| {
                let (cache, key) = (cache.clone(), format!("{round}:{number}"));
                async move {
                    match number % 4 {
                        0 => drop(cache.delete(&key).await.unwrap()),
                        1 => drop(cache.set(&key, 2).await.unwrap()),
                        2 => drop(load(&cache, "leased", 3).await),
                        _ => drop(load(&cache, &key, 3).await),
                    }
                }
            });
            futures_util::future::join_all(writes).await;
            for _ in 0..3 {
                // One after the other, so that no read comes between.
                cache.delete(&format!("{round}")).await.unwrap();
            }
            assert_eq!(cache.get("k").await.as_deref(), Some(&1), "{code}");
            assert_eq!(load(&cache, "k", 9).await, 1, "{code}");
        }
        assert_eq!(cache.stats().l2_skipped, 0, "{code}: the circuit never opened");
        assert_eq!(store.connection_generation(), 1, "{code}: the store stays connected");
        let report = cache.delete("k").await.unwrap();
        assert_eq!(report.l2 == L2Effect::Done, code == "OOM", "{code}: {report:?}");
        accept_writes(&server);
        assert!(report.settled(ms(3_000)).await, "{code}: {report:?}");
        assert_eq!(cache.get("k").await, None, "{code}");
    }
}

/// Puts a list in the place of a key.
fn replace(server: &RedisServer, name: &str) {
    let mut redis = server.connect();
    redis::cmd("DEL").arg(name).exec(&mut redis).unwrap();
    redis::cmd("RPUSH").arg(name).arg("x").exec(&mut redis).unwrap();
}

#[tokio::test]
async fn an_index_of_another_type_counts_as_none() {
    let server = RedisServer::start();
    for name in ["cache:__index", "cache:__epochs"] {
        redis::cmd("FLUSHALL").exec(&mut server.connect()).unwrap();
        let store = RedisStore::at(server.url()).build().unwrap();
        let cache = Cache::builder().without_l1().l2(store.clone(), WireCodec::new());
        let cache = cache.build().unwrap();
        for key in ["one", "two", "other"] {
            cache.set(key, 1).await.unwrap();
        }
        replace(&server, name);
        assert_eq!(store.size().await.unwrap(), 3);
        cache.delete_by_pattern("o*e").await.unwrap();
        assert_eq!(cache.get("one").await, None);
        assert_eq!(cache.get("two").await.as_deref(), Some(&1));
        store.delete_matching("*").await.unwrap();
        assert_eq!(store.size().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_run_id_of_another_type_counts_as_that_of_another_server() {
    let server = RedisServer::start();
    cache(RedisStore::at(server.url())).set("k", 1).await.unwrap();
    replace(&server, "cache:__run");
    let cache = cache(RedisStore::at(server.url()));
    assert_eq!(cache.get("k").await, None);
    is_in_plain_use(&cache).await;
    let mut redis = server.connect();
    let stored: String = redis::cmd("GET").arg("cache:__run").query(&mut redis).unwrap();
    assert_eq!(Some(&*stored), field(&server.info("server"), "run_id"));
}

/// A server that replies to each command with this text. Returns its port.
fn server_that_says(info: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            std::thread::spawn(move || {
                let reply = format!("${}\r\n{info}\r\n", info.len());
                while command(&mut client).is_some() {
                    if client.get_mut().write_all(reply.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_by_name() {
    let port = server_that_says("redis_version:5.0.14\r\nrun_id:a\r\n");
    let store = RedisStore::at(format!("redis://127.0.0.1:{port}/")).build().unwrap();
    let error = store.get("k", false).await.unwrap_err().to_string();
    assert!(error.contains("Redis 5.0.14") && error.contains("6.2"), "{error}");
}
