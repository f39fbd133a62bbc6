//! Redis dying, freezing, filling up, coming back with what was deleted, and networks that do what
//! networks do: reads keep answering, nothing deleted comes back, and when it is over it is over.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CircuitBreaker, ErrorKind, L2Timeouts, LazyLayersCache, Lease, LeaseRequest, LeaseResponse,
    RedisStore, RedisStoreBuilder, Store, WireCodec, testing::check_store,
};
use tokio::time::{sleep, timeout};

use crate::support::{
    cluster::Cluster,
    ms,
    process::wait_for,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    sentinel::Sentinel,
};

type Cache = LazyLayersCache<String, u32>;

/// What a call may take beyond its deadline.
const GRACE: Duration = ms(100);
/// How soon all is well again.
const SOON: Duration = Duration::from_secs(3);
const READ: Duration = ms(200);
const WRITE: Duration = ms(300);

fn cache(store: RedisStoreBuilder) -> Cache {
    over(store.build().unwrap())
}

fn over(store: RedisStore) -> Cache {
    Cache::builder()
        .without_l1()
        .l2_timeouts(L2Timeouts::default().read(READ).write(WRITE))
        .l2_circuit_breaker(CircuitBreaker::default().cooldown(Duration::from_secs(60)))
        .l2(store, WireCodec::new())
        .build()
        .unwrap()
}

async fn load(cache: &Cache, key: &str, value: u32) -> u32 {
    let load = move || async move { Ok::<_, std::io::Error>(value) };
    *cache.get_or_set(key, load).await.unwrap()
}

async fn lease(store: &RedisStore, key: &str) -> Lease {
    let begin = LeaseRequest { stale_for: ms(0), lease_for: ms(60_000), refresh: true };
    match store.get_or_lease(key, begin).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => lease,
        begun => panic!("{begun:?}"),
    }
}

/// Asks until it is so.
async fn soon(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(ms(20)).await;
    }
    begun.elapsed()
}

/// The cache uses its Redis: what it loads is there.
async fn serves(cache: &Cache, key: &str) {
    soon(&format!("values are kept, {key}"), async || {
        load(cache, key, 1).await;
        cache.get(key).await.is_some()
    })
    .await;
}

/// Every call ends in time, and reads have an answer.
async fn answers_in_time(cache: &Cache, rounds: u32) {
    for round in 0..rounds {
        let key = format!("during {round}");
        let begun = Instant::now();
        assert_eq!(load(cache, &key, round).await, round);
        let limit = READ + WRITE + GRACE;
        assert!(begun.elapsed() < limit, "a load took {:?}", begun.elapsed());
        let begun = Instant::now();
        cache.get(&*key).await;
        assert!(begun.elapsed() < READ + GRACE, "a read took {:?}", begun.elapsed());
        let begun = Instant::now();
        let told = cache.delete(&*key).await;
        assert!(begun.elapsed() < WRITE + GRACE, "a delete took {:?}", begun.elapsed());
        if let Err(error) = told {
            assert_eq!(error.kind(), ErrorKind::L2Unreachable);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_down_at_the_start_is_picked_up_when_it_comes() {
    let mut server = RedisServer::start();
    let url = server.url();
    server.kill();
    let cache = cache(RedisStore::at(url));
    answers_in_time(&cache, 5).await;
    server.restart();
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_is_as_if_it_were_not_there_until_it_is_back() {
    let mut server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    server.kill();
    answers_in_time(&cache, 10).await;
    let told = cache.delete("k").await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::L2Unreachable);
    server.restart();
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_its_deadline_and_then_nothing() {
    let server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    server.freeze();
    answers_in_time(&cache, 4).await;
    // The breaker is open: nobody waits any more.
    let begun = Instant::now();
    for round in 0..100 {
        assert_eq!(load(&cache, "k", round).await, round);
    }
    assert!(begun.elapsed() < ms(500), "100 loads took {:?}", begun.elapsed());
    cache.delete("k").await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    server.thaw();
    let mut redis = server.connect();
    soon("the delete is made up for", async || {
        !redis::cmd("EXISTS").arg("cache:k").query::<bool>(&mut redis).unwrap()
    })
    .await;
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_calls_end_in_time_and_all_is_well_soon_after() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    for mode in [
        Mode::Blackhole,
        Mode::LoseRequests,
        Mode::LoseReplies,
        Mode::Pause,
        Mode::Delay(ms(150)),
        Mode::Delay(ms(2_000)),
        Mode::Throttle(1_000),
        Mode::CutReply(3),
        Mode::Reset,
        Mode::Refuse,
    ] {
        let cache = cache(RedisStore::at(format!("redis://127.0.0.1:{}/", proxy.port())));
        serves(&cache, "before").await;
        proxy.set(mode);
        answers_in_time(&cache, 6).await;
        proxy.set(Mode::Pass);
        serves(&cache, &format!("after {mode:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_with_what_was_deleted_serves_none_of_it() {
    let mut server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    load(&cache, "k", 1).await;
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.save();
    cache.delete("k").await.unwrap();
    server.kill();
    server.restart();
    // From the first answer on.
    soon("it answers", async || match store.get("k").await {
        Ok(found) => {
            assert_eq!(found, None, "it was deleted");
            true
        }
        Err(_) => false,
    })
    .await;
    let late = store.publish("k", &old, b"HC1M\x01".to_vec(), ms(60_000)).await;
    assert!(!late.unwrap(), "the load began before the delete");
    assert_eq!(cache.get("k").await, None);
    // Also to whom it was never there before the restart.
    let newcomer = self::cache(RedisStore::at(server.url()));
    assert_eq!(newcomer.get("k").await, None);
    serves(&cache, "k").await;
    assert!(newcomer.get("k").await.is_some(), "and nobody removes it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_starts_after_the_restart_is_not_served_the_old_either() {
    let mut server = RedisServer::start();
    let before = cache(RedisStore::at(server.url()));
    load(&before, "k", 1).await;
    server.save();
    before.delete("k").await.unwrap();
    drop(before);
    server.kill();
    server.restart();
    let after = cache(RedisStore::at(server.url()));
    assert_eq!(after.get("k").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_old_is_not_served_before_it_could_be_removed() {
    let mut server = RedisServer::start_with_user("app", "secret", "~cache:* &* +@all");
    let before = RedisStore::at(server.url()).build().unwrap();
    let lease = lease(&before, "k").await;
    assert!(before.publish("k", &lease, b"1".to_vec(), ms(60_000)).await.unwrap());
    drop(before);
    server.save();
    server.restart();
    let may = |rule: &str| {
        let mut allow = redis::cmd("ACL");
        allow.arg("SETUSER").arg("app").arg(rule).exec(&mut server.connect()).unwrap();
    };
    may("-unlink");
    let after = RedisStore::at(server.url()).build().unwrap();
    for _ in 0..5 {
        after.get("k").await.unwrap_err();
    }
    may("+unlink");
    soon("it answers", async || after.get("k").await.is_ok_and(|found| found.is_none())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_node_that_comes_back_with_what_was_deleted_is_cleared() {
    let mut cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    // A key in a slot of the second node.
    let key = (0..).map(|i| i.to_string()).find(|key| {
        let slot = cluster.slot_of(&format!("cache:{key}"));
        (5_462..10_924).contains(&slot)
    });
    let key = key.unwrap();
    let lease = lease(&store, &key).await;
    assert!(store.publish(&key, &lease, b"1".to_vec(), ms(600_000)).await.unwrap());
    cluster.node(1).save();
    store.delete(&key).await.unwrap();
    cluster.kill(1);
    cluster.restart(1);
    let mut node = cluster.node(1).connect();
    let name = format!("cache:{key}");
    soon("it is removed", async || {
        !redis::cmd("EXISTS").arg(&name).query::<bool>(&mut node).unwrap()
    })
    .await;
    soon("it answers", async || store.get(&key).await.is_ok_and(|found| found.is_none())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_silent_while_it_is_looked_at_is_given_up() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let store = RedisStore::at(url).options({
        let mut options = lazy_layers_cache::RedisOptions::default();
        options.check_interval = ms(100);
        options
    });
    let store = store.build().unwrap();
    // It answers, but the note of its run is not taken: the look at it stands still.
    let mut admin = server.connect();
    redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").exec(&mut admin).unwrap();
    let asking = tokio::spawn({
        let store = store.clone();
        async move { store.get("k").await }
    });
    wait_for("the look", SOON, || (server.calls("get") == 1).then_some(()));
    proxy.set(Mode::Blackhole);
    proxy.set_for_new(Mode::Pass);
    redis::cmd("CLIENT").arg("UNPAUSE").exec(&mut admin).unwrap();
    drop(timeout(SOON, asking).await.expect("it is not waited for without end"));
    soon("a new connection serves", async || store.get("k").await.is_ok()).await;
}

#[tokio::test]
async fn a_redis_restarted_empty_refuses_what_began_before() {
    let mut server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.kill();
    server.restart();
    soon("it answers", async || store.get("k").await.is_ok()).await;
    assert!(!store.publish("k", &old, b"1".to_vec(), ms(60_000)).await.unwrap());
}

#[tokio::test]
async fn deletes_work_when_redis_is_out_of_memory_and_loads_go_on() {
    let server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    load(&cache, "k", 1).await;
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.config_set("maxmemory", "1");
    assert_eq!(load(&cache, "other", 2).await, 2);
    cache.delete("k").await.unwrap();
    cache.delete("other").await.unwrap();
    cache.clear().await.unwrap();
    cache.set("k", 3).await.unwrap();
    assert_eq!(cache.get("k").await, None, "there is no room for it, nor for anything old");
    server.config_set("maxmemory", "0");
    assert!(!store.publish("k", &old, b"1".to_vec(), ms(60_000)).await.unwrap());
    assert_eq!(load(&cache, "k", 4).await, 4);
    assert_eq!(cache.get("k").await.as_deref(), Some(&4), "the breaker never opened");
}

#[tokio::test]
async fn a_write_that_a_full_redis_has_no_room_for_voids_what_began_before() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.config_set("maxmemory", "1");
    assert_eq!(store.acquire_write_lease("k", ms(60_000)).await.unwrap(), None);
    server.config_set("maxmemory", "0");
    assert!(!store.publish("k", &old, b"1".to_vec(), ms(60_000)).await.unwrap());
}

#[tokio::test]
async fn an_evicted_epoch_refuses_and_an_evicted_index_hides_nothing() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let mut redis = server.connect();
    let lost = lease(&store, "k").await;
    redis::cmd("DEL").arg("cache:__epoch:{cache:k}").exec(&mut redis).unwrap();
    assert!(!store.publish("k", &lost, b"1".to_vec(), ms(60_000)).await.unwrap());
    let kept = lease(&store, "k").await;
    assert!(store.publish("k", &kept, b"1".to_vec(), ms(60_000)).await.unwrap());
    let load = lease(&store, "other").await;
    server.config_set("maxmemory", "100mb");
    server.config_set("maxmemory-policy", "allkeys-lru");
    redis::cmd("DEL").arg("cache:__index").arg("cache:__epochs").exec(&mut redis).unwrap();
    assert_eq!(store.size().await.unwrap(), 1);
    store.delete_matching("*").await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), None);
    assert!(!store.publish("other", &load, b"1".to_vec(), ms(60_000)).await.unwrap());
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    for _ in 0..3 {
        check_store(&store).await;
        redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.connect()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_delete_fences_loads_that_are_running() {
    let server = RedisServer::start();
    for use_index in [true, false] {
        let store = || RedisStore::at(server.url()).use_index(use_index);
        let (left, right) = (cache(store()), cache(store()));
        for pattern in ["user:*", "*"] {
            let (told, loading) = (std::sync::Arc::new(tokio::sync::Notify::new()), left.clone());
            let go = std::sync::Arc::clone(&told);
            let (began, has_begun) = tokio::sync::oneshot::channel();
            let load = tokio::spawn(async move {
                let load = move || async move {
                    began.send(()).unwrap();
                    go.notified().await;
                    Ok::<_, std::io::Error>(1)
                };
                *loading.get_or_set("user:1", load).await.unwrap()
            });
            has_begun.await.unwrap();
            right.delete_by_pattern(pattern).await.unwrap();
            told.notify_one();
            assert_eq!(load.await.unwrap(), 1, "its own caller gets it");
            assert_eq!(right.get("user:1").await, None, "and nobody else");
            assert_eq!(left.get("user:1").await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_load_that_ends_while_a_pattern_delete_walks_outlasts_it() {
    let server = RedisServer::start();
    // So that the walk takes a step for each of so many names.
    let store = RedisStore::at(server.url()).use_index(false).scan_count(1).batch_size(1);
    let store = store.build().unwrap();
    let mut loads = Vec::new();
    for i in 0..300 {
        let key = format!("user:{i}");
        loads.push((lease(&store, &key).await, key));
    }
    let walk = tokio::spawn({
        let store = store.clone();
        async move { store.delete_matching("user:*").await }
    });
    // One load after the other ends, for as long as the walk takes.
    for (lease, key) in loads {
        let _ = store.publish(&key, &lease, b"old".to_vec(), ms(60_000)).await.unwrap();
        if !walk.is_finished() {
            sleep(ms(1)).await;
        }
    }
    walk.await.unwrap().unwrap();
    assert_eq!(store.size().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_left() {
    let server = RedisServer::start();
    let other = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    let port = other.port().to_string();
    let reader = RedisStore::at(server.url()).build().unwrap();
    reader.get("k").await.unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut server.connect()).unwrap();
    soon("who only reads leaves it too", async || reader.get("k").await.is_err()).await;
    answers_in_time(&cache, 3).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut server.connect()).unwrap();
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_the_contract() {
    let cluster = Cluster::start();
    check_store(&RedisStore::cluster(cluster.urls()).build().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_delete_that_some_master_did_not_hear_of_is_an_error() {
    let mut cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    store.delete_matching("*").await.unwrap();
    cluster.kill(1);
    let mut other = cluster.node(0).connect();
    let mut nodes = || redis::cmd("CLUSTER").arg("NODES").query::<String>(&mut other).unwrap();
    wait_for("the others' notice", Duration::from_secs(20), || {
        nodes().contains("master,fail ").then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < ms(1_500) {
        store.delete_matching("*").await.unwrap_err();
        sleep(ms(50)).await;
    }
    cluster.restart(1);
    soon("it is done", async || store.delete_matching("*").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_while_loads_run_loses_neither_values_nor_fences() {
    let cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    let slot = cluster.slot_of("cache:k");
    let owner = (0..3).find(|index| {
        let asked: Result<Option<String>, _> =
            redis::cmd("GET").arg("cache:k").query(&mut cluster.node(*index).connect());
        asked.is_ok()
    });
    let from = owner.expect("somebody has the slot");
    let to = (from + 1) % 3;
    let (fenced, good) = (lease(&store, "k").await, lease(&store, "{cache:k}").await);
    store.delete("k").await.unwrap();
    cluster.begin_move(slot, from, to);
    assert!(!store.publish("k", &fenced, b"1".to_vec(), ms(60_000)).await.unwrap_or(false));
    cluster.finish_move(slot, from, to);
    soon("the slot is served", async || store.get("k").await.is_ok()).await;
    assert!(!store.publish("k", &fenced, b"1".to_vec(), ms(60_000)).await.unwrap());
    assert!(store.publish("{cache:k}", &good, b"1".to_vec(), ms(60_000)).await.unwrap());
    let newer = lease(&store, "k").await;
    assert!(store.publish("k", &newer, b"2".to_vec(), ms(60_000)).await.unwrap());
    store.delete_matching("*").await.unwrap();
    assert_eq!(store.size().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinel_is_followed_and_nothing_deleted_comes_back() {
    let sentinel = Sentinel::start();
    let store = || RedisStore::sentinel([sentinel.url()], format!("redis://{}/", Sentinel::MASTER));
    check_store(&store().build().unwrap()).await;
    let store_of_cache = store().build().unwrap();
    let cache = over(store_of_cache.clone());
    load(&cache, "k", 1).await;
    let old = lease(&store().build().unwrap(), "k").await;
    let first = store_of_cache.connection_generation();
    let promoted = timeout(Duration::from_secs(20), async {
        sentinel.failover();
        sentinel.wait_for_promotion();
    });
    promoted.await.unwrap();
    let begun = Instant::now();
    while store_of_cache.connection_generation() == first || cache.get("new").await.is_none() {
        assert_eq!(load(&cache, "new", 2).await, 2);
        assert!(begun.elapsed() < Duration::from_secs(10), "the new master is not used");
        sleep(ms(50)).await;
    }
    assert_eq!(cache.get("k").await, None, "nobody knows what the old master had still deleted");
    let after = store().build().unwrap();
    assert!(!after.publish("k", &old, b"1".to_vec(), ms(60_000)).await.unwrap());
}
