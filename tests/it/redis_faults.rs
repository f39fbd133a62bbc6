//! Faults of Redis and of the network: crash, freeze, full memory, restart with deleted values,
//! failover. Reads keep answering, no deleted value is served again, and the cache recovers.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CircuitBreaker, L1Effect, L2Effect, L2Health, L2Timeouts, LazyLayersCache, Lease,
    LeaseResponse, RedisStore, RedisStoreBuilder, Store, WireCodec, testing::check_store,
};
use tokio::time::{sleep, timeout};

use crate::support::{
    Log, REFRESH,
    cluster::Cluster,
    fake_sentinel::FakeSentinel,
    ms,
    process::wait_for,
    proxy::{Mode, Proxy},
    publication,
    redis::RedisServer,
    sentinel::Sentinel,
};

type Cache = LazyLayersCache<String, u32>;

/// Time that a call may take beyond its deadline.
const GRACE: Duration = ms(100);
/// Limit for the recovery after a fault.
const SOON: Duration = Duration::from_secs(3);
/// Limit for steps that are slow on a busy machine only.
const PATIENCE: Duration = Duration::from_secs(20);
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
    let begin = REFRESH;
    match store.get_or_lease(key, begin).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => lease,
        begun => panic!("{begun:?}"),
    }
}

/// Polls until the condition holds, for at most [`SOON`]. Returns the time it took.
async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
        sleep(ms(20)).await;
    }
    begun.elapsed()
}

/// Waits until the cache stores loaded values in Redis.
async fn serves(cache: &Cache, key: &str) {
    soon(&format!("{key} is stored"), async || {
        load(cache, key, 1).await;
        cache.get(key).await.is_some()
    })
    .await;
}

/// Checks that every call ends in time, and that reads have an answer.
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
        let deleted = cache.delete(&*key).await;
        assert!(begun.elapsed() < WRITE + GRACE, "a delete took {:?}", begun.elapsed());
        deleted.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_starts_later_than_the_cache_is_used() {
    let mut server = RedisServer::start();
    let url = server.url();
    server.kill();
    let cache = cache(RedisStore::at(url));
    answers_in_time(&cache, 5).await;
    server.restart();
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_return_in_time_from_a_killed_redis_and_it_is_used_again_after_its_restart() {
    let mut server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    server.kill();
    answers_in_time(&cache, 10).await;
    assert_eq!(cache.delete("k").await.unwrap().l2, L2Effect::Pending);
    server.restart();
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_keeps_its_value_while_redis_is_frozen_and_the_old_one_is_deleted_afterwards() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let limits = L2Timeouts::default().read(READ).write(WRITE);
    let cache = Cache::builder().l2_timeouts(limits).l2(store, WireCodec::new()).build().unwrap();
    serves(&cache, "k").await;
    server.freeze();
    let report = cache.set("k", 2).await.unwrap();
    assert_eq!((report.l1, &report.l2), (L1Effect::Stored, &L2Effect::Pending));
    assert_eq!(cache.get("k").await.as_deref(), Some(&2));
    server.thaw();
    assert!(report.settled(SOON).await);
    let mut redis = server.connect();
    assert!(!redis::cmd("EXISTS").arg("cache:k").query::<bool>(&mut redis).unwrap());
    assert_eq!(cache.get("k").await.as_deref(), Some(&2), "L1 keeps it");
    assert_eq!(cache.set("k", 3).await.unwrap().l2, L2Effect::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_above_the_limit_open_no_circuit_and_replace_nothing_old() {
    type Texts = LazyLayersCache<String, String>;
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).max_payload_bytes(100).build().unwrap();
    let cache = Texts::builder().without_l1().l2(store, WireCodec::new()).build().unwrap();
    let large = || "x".repeat(200);
    soon("Redis is used", async || {
        cache.set("k", "small".to_owned()).await.unwrap();
        cache.get("k").await.is_some()
    })
    .await;
    let loads = (0..8).map(|key| {
        let (cache, key, value) = (cache.clone(), format!("large {key}"), large());
        tokio::spawn(async move {
            cache.get_or_set(&key, || async { Ok::<_, std::io::Error>(value) }).await.unwrap();
        })
    });
    for load in loads.collect::<Vec<_>>() {
        load.await.unwrap();
    }
    for _ in 0..8 {
        let report = cache.set("k", large()).await.unwrap();
        assert!(matches!(report.l2, L2Effect::NotStored(_)), "{report:?}");
    }
    assert_eq!(cache.get("k").await, None, "the old value is deleted");
    assert_eq!(cache.delete("other").await.unwrap().l2, L2Effect::Done);
    assert_eq!(cache.health().l2, Some(L2Health::Answering));
    assert_eq!((cache.stats().l2_refused, cache.stats().l2_errors), (16, 0));
    // A reserved name, and a key above the limit.
    for key in ["__index".to_owned(), "k".repeat((64 << 10) + 1)] {
        let report = cache.set(&key, "small".to_owned()).await.unwrap();
        assert!(matches!(report.l2, L2Effect::NotStored(_)), "{report:?}");
        assert!(matches!(cache.delete(&key).await.unwrap().l2, L2Effect::NotStored(_)));
    }
    assert_eq!(cache.health().l2, Some(L2Health::Answering));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_its_deadlines_and_then_the_circuit_opens() {
    let server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    server.freeze();
    answers_in_time(&cache, 4).await;
    // The circuit is open: no call waits for Redis.
    let begun = Instant::now();
    for round in 0..100 {
        assert_eq!(load(&cache, "k", round).await, round);
    }
    assert!(begun.elapsed() < ms(500), "100 loads took {:?}", begun.elapsed());
    let report = cache.delete("k").await.unwrap();
    assert_eq!(report.l2, L2Effect::Pending);
    sleep(Duration::from_secs(10)).await;
    server.thaw();
    assert!(report.settled(SOON).await);
    let mut redis = server.connect();
    soon("the pending invalidation reaches Redis", async || {
        !redis::cmd("EXISTS").arg("cache:k").query::<bool>(&mut redis).unwrap()
    })
    .await;
    serves(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_in_time_during_every_network_fault_and_the_cache_recovers() {
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
async fn a_redis_restarted_with_deleted_values_serves_none_of_them() {
    let mut server = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    load(&cache, "k", 1).await;
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.save();
    cache.delete("k").await.unwrap();
    server.kill();
    server.restart();
    // From the first reply on.
    soon("it answers", async || match store.get("k", false).await {
        Ok(found) => {
            assert_eq!(found, None, "the value was deleted");
            true
        }
        Err(_) => false,
    })
    .await;
    let late = store.publish("k", &old, publication(b"HC1M\x01", ms(60_000))).await;
    assert!(!late.unwrap(), "the load began before the delete");
    assert_eq!(cache.get("k").await, None);
    // Also in a cache that starts after the restart.
    let newcomer = self::cache(RedisStore::at(server.url()));
    assert_eq!(newcomer.get("k").await, None);
    serves(&cache, "k").await;
    assert!(newcomer.get("k").await.is_some(), "and no other cache removes it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_starts_after_the_restart_does_not_serve_deleted_values() {
    let mut server = RedisServer::start();
    let before = cache(RedisStore::at(server.url()));
    load(&before, "k", 1).await;
    server.save();
    before.delete("k").await.unwrap();
    drop(before);
    server.kill();
    server.restart();
    let after = cache(RedisStore::at(server.url()));
    let log = Log::of(&after);
    assert_eq!(after.get("k").await, None);
    assert_eq!(log.take(), ["l2:emptied", "miss"]);
    // The restart after which nothing has to be removed is no event, nor is a later call.
    load(&after, "k", 2).await;
    assert!(!log.take().contains(&"l2:emptied".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_may_be_old_are_not_served_until_they_are_removed() {
    let mut server = RedisServer::start_with_user("app", "secret", "~cache:* &* +@all");
    let before = RedisStore::at(server.url()).build().unwrap();
    let lease = lease(&before, "k").await;
    assert!(before.publish("k", &lease, publication(b"1", ms(60_000))).await.unwrap());
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
        after.get("k", false).await.unwrap_err();
    }
    may("+unlink");
    soon("it answers", async || after.get("k", false).await.is_ok_and(|found| found.is_none()))
        .await;
}

/// Returns a key in a slot of one of the three masters of a Cluster.
fn key_of(cluster: &Cluster, master: u16) -> String {
    let is_there = |key: &String| cluster.slot_of(&format!("cache:{key}")) / 5_462 == master;
    (0..).map(|number| number.to_string()).find(is_there).unwrap()
}

/// Restarts a node with a value that was deleted, and waits until the value is gone.
async fn restart_with_a_deleted_value(away: impl AsyncFn(&RedisStore)) {
    let mut cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    let key = key_of(&cluster, 1);
    let lease = lease(&store, &key).await;
    assert!(store.publish(&key, &lease, publication(b"1", ms(600_000))).await.unwrap());
    cluster.node(1).save();
    store.delete(&key).await.unwrap();
    cluster.kill(1);
    away(&store).await;
    cluster.restart(1);
    is_removed(&key, cluster.node(1), &store).await;
}

/// Waits until the node does not have the value any more, and the store answers.
async fn is_removed(key: &str, node: &RedisServer, store: &RedisStore) {
    let (name, mut node) = (format!("cache:{key}"), node.connect());
    let begun = Instant::now();
    while redis::cmd("EXISTS").arg(&name).query::<bool>(&mut node).unwrap() {
        assert!(begun.elapsed() < PATIENCE, "the value is not removed");
        // The client finds a new master when the others refer a call to it. For up to half a
        // second the value is served then.
        let _ = timeout(ms(100), store.get(key, false)).await;
        sleep(ms(20)).await;
    }
    soon("it answers", async || store.get(key, false).await.is_ok_and(|found| found.is_none()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_node_restarted_with_deleted_values_is_cleared() {
    restart_with_a_deleted_value(async |_| ()).await;
}

/// Meanwhile the store tries to connect again, with the other nodes only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_node_that_was_away_for_longer_is_cleared() {
    restart_with_a_deleted_value(async |store| {
        let (before, begun) = (store.connection_generation(), Instant::now());
        while store.connection_generation() == before && begun.elapsed() < ms(3_000) {
            // A failing call makes the store check its connection.
            let _ = timeout(ms(100), store.get("k", false)).await;
            sleep(ms(20)).await;
        }
    })
    .await;
}

/// Deletes a value that the replica of its master keeps. The master is down then, and node 3 is the
/// replica.
async fn delete_on_a_dying_master(cluster: &mut Cluster, store: &RedisStore) -> String {
    let key = key_of(cluster, 1);
    let lease = lease(store, &key).await;
    assert!(store.publish(&key, &lease, publication(b"1", ms(600_000))).await.unwrap());
    cluster.add_replica(1);
    cluster.node(3).freeze();
    let mut master = cluster.node(1).connect();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica").exec(&mut master).unwrap();
    store.delete(&key).await.unwrap();
    cluster.kill(1);
    cluster.node(3).thaw();
    key
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_is_cleared_over_a_cluster_connection_of_the_application() {
    let mut cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]);
    let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
    let connection = client.get_async_connection().await.unwrap();
    let store = RedisStore::over_cluster(connection).build().unwrap();
    let key = delete_on_a_dying_master(&mut cluster, &store).await;
    cluster.promote(3);
    is_removed(&key, cluster.node(3), &store).await;
}

/// The store connects to the other nodes alone before the replica is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_a_cluster_that_is_promoted_with_deleted_values_is_cleared() {
    let mut cluster = Cluster::start_with(&["--cluster-require-full-coverage", "no"]);
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    let key = delete_on_a_dying_master(&mut cluster, &store).await;
    // Another node stalls meanwhile, so that the store replaces its connection.
    let mut redis = cluster.node(2).connect();
    // A check asks for `INFO`, and one node for `CLUSTER NODES` behind it.
    let mut checkers = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut redis).unwrap();
        let is_check = |line: &&str| line.contains("cmd=info") || line.contains("cmd=cluster|node");
        let checks = list.lines().filter(is_check);
        checks.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let known = wait_for("a check", PATIENCE, || Some(checkers()).filter(|it| !it.is_empty()));
    cluster.node(0).freeze();
    wait_for("another connection", PATIENCE, || {
        checkers().iter().any(|it| !known.contains(it)).then_some(())
    });
    cluster.node(0).thaw();
    let other = key_of(&cluster, 2);
    soon("it is connected", async || store.get(&other, false).await.is_ok()).await;
    cluster.promote(3);
    is_removed(&key, cluster.node(3), &store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answering_while_its_run_id_is_checked_is_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let store = RedisStore::at(url).options({
        let mut options = lazy_layers_cache::RedisOptions::default();
        options.check_interval = ms(100);
        options
    });
    let store = store.build().unwrap();
    // Redis answers reads but delays writes, so that the check of its run id waits.
    let mut admin = server.connect();
    redis::cmd("CLIENT").arg("PAUSE").arg(60_000).arg("WRITE").exec(&mut admin).unwrap();
    let asking = tokio::spawn({
        let store = store.clone();
        async move { store.get("k", false).await }
    });
    wait_for("the check", SOON, || (server.calls("get") == 1).then_some(()));
    proxy.set(Mode::Blackhole);
    proxy.set_for_new(Mode::Pass);
    redis::cmd("CLIENT").arg("UNPAUSE").exec(&mut admin).unwrap();
    drop(timeout(SOON, asking).await.expect("the call ends"));
    soon("a new connection serves", async || store.get("k", false).await.is_ok()).await;
}

#[tokio::test]
async fn a_redis_restarted_empty_refuses_loads_that_began_before() {
    let mut server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.kill();
    server.restart();
    soon("it answers", async || store.get("k", false).await.is_ok()).await;
    assert!(!store.publish("k", &old, publication(b"1", ms(60_000))).await.unwrap());
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
    assert_eq!(
        cache.get("k").await,
        None,
        "neither the new value, for which there is no room, nor an old one"
    );
    server.config_set("maxmemory", "0");
    assert!(!store.publish("k", &old, publication(b"1", ms(60_000))).await.unwrap());
    assert_eq!(load(&cache, "k", 4).await, 4);
    assert_eq!(cache.get("k").await.as_deref(), Some(&4), "the circuit never opened");
}

#[tokio::test]
async fn a_write_that_a_full_redis_refuses_voids_the_leases_of_earlier_loads() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let old = lease(&store, "k").await;
    server.config_set("maxmemory", "1");
    assert_eq!(store.acquire_write_lease("k", ms(60_000)).await.unwrap(), None);
    server.config_set("maxmemory", "0");
    assert!(!store.publish("k", &old, publication(b"1", ms(60_000))).await.unwrap());
}

#[tokio::test]
async fn an_evicted_lease_refuses_and_an_evicted_index_hides_nothing() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).build().unwrap();
    let mut redis = server.connect();
    let lost = lease(&store, "k").await;
    redis::cmd("DEL").arg("cache:__lease:{cache:k}").exec(&mut redis).unwrap();
    assert!(!store.publish("k", &lost, publication(b"1", ms(60_000))).await.unwrap());
    let kept = lease(&store, "k").await;
    assert!(store.publish("k", &kept, publication(b"1", ms(60_000))).await.unwrap());
    let load = lease(&store, "other").await;
    server.config_set("maxmemory", "100mb");
    server.config_set("maxmemory-policy", "allkeys-lru");
    redis::cmd("DEL").arg("cache:__index").arg("cache:__sidecars").exec(&mut redis).unwrap();
    assert_eq!(store.size().await.unwrap(), 1);
    store.delete_matching("*").await.unwrap();
    assert_eq!(store.get("k", false).await.unwrap(), None);
    assert!(!store.publish("other", &load, publication(b"1", ms(60_000))).await.unwrap());
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
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
            let (resume, loading) = (std::sync::Arc::new(tokio::sync::Notify::new()), left.clone());
            let resumed = std::sync::Arc::clone(&resume);
            let (began, has_begun) = tokio::sync::oneshot::channel();
            let load = tokio::spawn(async move {
                let load = move || async move {
                    began.send(()).unwrap();
                    resumed.notified().await;
                    Ok::<_, std::io::Error>(1)
                };
                *loading.get_or_set("user:1", load).await.unwrap()
            });
            has_begun.await.unwrap();
            right.delete_by_pattern(pattern).await.unwrap();
            resume.notify_one();
            assert_eq!(load.await.unwrap(), 1, "the caller of the load gets the value");
            assert_eq!(right.get("user:1").await, None, "no other caller gets it");
            assert_eq!(left.get("user:1").await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_published_during_a_pattern_delete_outlasts_it() {
    let server = RedisServer::start();
    // So that the scan takes one step per name.
    let store = RedisStore::at(server.url()).use_index(false).scan_count(1).batch_size(1);
    let store = store.build().unwrap();
    let mut loads = Vec::new();
    for i in 0..300 {
        let key = format!("user:{i}");
        loads.push((lease(&store, &key).await, key));
    }
    let scan = tokio::spawn({
        let store = store.clone();
        async move { store.delete_matching("user:*").await }
    });
    // One load after the other publishes its value during the scan.
    for (lease, key) in loads {
        let _ = store.publish(&key, &lease, publication(b"old", ms(60_000))).await.unwrap();
        if !scan.is_finished() {
            sleep(ms(1)).await;
        }
    }
    scan.await.unwrap().unwrap();
    assert_eq!(store.size().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_became_a_replica_is_not_used() {
    let server = RedisServer::start();
    let other = RedisServer::start();
    let cache = cache(RedisStore::at(server.url()));
    serves(&cache, "k").await;
    let port = other.port().to_string();
    let reader = RedisStore::at(server.url()).build().unwrap();
    reader.get("k", false).await.unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut server.connect()).unwrap();
    soon("a store that only reads leaves the replica too", async || {
        reader.get("k", false).await.is_err()
    })
    .await;
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
async fn a_pattern_delete_fails_while_a_master_of_the_cluster_is_unreachable() {
    let mut cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    store.delete_matching("*").await.unwrap();
    cluster.kill(1);
    let mut other = cluster.node(0).connect();
    let mut nodes = || redis::cmd("CLUSTER").arg("NODES").query::<String>(&mut other).unwrap();
    wait_for("the other nodes to notice", Duration::from_secs(20), || {
        nodes().contains("master,fail ").then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < ms(1_500) {
        store.delete_matching("*").await.unwrap_err();
        sleep(ms(50)).await;
    }
    cluster.restart(1);
    soon("the delete succeeds", async || store.delete_matching("*").await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_while_loads_run_loses_neither_values_nor_fences() {
    let cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    let slot = cluster.slot_of("cache:k");
    let owner = (0..3).find(|index| {
        let reply: Result<Option<String>, _> =
            redis::cmd("GET").arg("cache:k").query(&mut cluster.node(*index).connect());
        reply.is_ok()
    });
    let from = owner.expect("a node has the slot");
    let to = (from + 1) % 3;
    let (fenced, good) = (lease(&store, "k").await, lease(&store, "{cache:k}").await);
    store.delete("k").await.unwrap();
    cluster.begin_move(slot, from, to);
    assert!(!store.publish("k", &fenced, publication(b"1", ms(60_000))).await.unwrap_or(false));
    cluster.finish_move(slot, from, to);
    soon("the slot is served", async || store.get("k", false).await.is_ok()).await;
    assert!(!store.publish("k", &fenced, publication(b"1", ms(60_000))).await.unwrap());
    assert!(store.publish("{cache:k}", &good, publication(b"1", ms(60_000))).await.unwrap());
    let newer = lease(&store, "k").await;
    assert!(store.publish("k", &newer, publication(b"2", ms(60_000))).await.unwrap());
    store.delete_matching("*").await.unwrap();
    assert_eq!(store.size().await.unwrap(), 0);
}

/// Two servers take turns as the master. Neither gets the deletes of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_returns_with_deleted_values_is_cleared_once() {
    let (a, b) = (RedisServer::start(), RedisServer::start());
    let sentinel = FakeSentinel::naming(a.port(), 1);
    let master = format!("redis://{}/", Sentinel::MASTER);
    let store = RedisStore::sentinel([sentinel.url()], master).build().unwrap();
    let write = async || {
        let lease = lease(&store, "k").await;
        assert!(store.publish("k", &lease, publication(b"1", ms(60_000))).await.unwrap());
    };
    let reconnects = async |before: u64| {
        soon("it connects", async || {
            store.get("other", false).await.is_ok() && store.connection_generation() > before
        })
        .await;
    };
    write().await;
    for (server, epoch) in [(&b, 2), (&a, 3), (&b, 4)] {
        let before = store.connection_generation();
        sentinel.name(server.port(), epoch);
        reconnects(before).await;
        assert_eq!(store.get("k", false).await.unwrap(), None, "it was deleted elsewhere");
        write().await;
        store.delete("k").await.unwrap();
        write().await;
    }
    let before = store.connection_generation();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut b.connect()).unwrap();
    reconnects(before).await;
    assert!(store.get("k", false).await.unwrap().is_some(), "the same server, cleared before");
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
    assert_eq!(cache.get("k").await, None, "the old master may have deleted it");
    let after = store().build().unwrap();
    assert!(!after.publish("k", &old, publication(b"1", ms(60_000))).await.unwrap());
}
