//! Recovery: once a fault of Redis has ended, L2 is used again within three seconds, whatever the
//! cooldown of the circuit breaker and whether or not the connection was replaced.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CircuitBreaker, L2Health, L2Timeouts, LazyLayersCache, RedisStore, RedisStoreBuilder, Store,
    WireCodec,
};
use tokio::time::sleep;

use crate::support::{
    cluster::Cluster, ms, process::wait_for, proxy::Mode, redis::RedisServer, sentinel::Sentinel,
};

type Cache = LazyLayersCache<String, u32>;

/// The promise.
const SOON: Duration = Duration::from_secs(3);

/// A cache whose circuit breaker alone would need a minute, and its store. Calls fail by errors of
/// Redis, not by timeouts.
fn cache(store: RedisStoreBuilder) -> (Cache, RedisStore) {
    cache_with(store, ms(5_000))
}

fn cache_with(store: RedisStoreBuilder, timeout: Duration) -> (Cache, RedisStore) {
    let store = store.build().unwrap();
    let cache = Cache::builder()
        .without_l1()
        .l2_timeouts(L2Timeouts::default().read(timeout).write(timeout))
        .l2_circuit_breaker(CircuitBreaker::default().cooldown(Duration::from_secs(60)))
        .l2(store.clone(), WireCodec::new())
        .build()
        .unwrap();
    (cache, store)
}

async fn load(cache: &Cache, key: &str) {
    cache.get_or_set(key, || async { Ok::<_, std::io::Error>(1) }).await.unwrap();
}

/// Waits until a loaded value is in Redis.
async fn is_used_soon(cache: &Cache, key: &str) {
    let begun = Instant::now();
    loop {
        load(cache, key).await;
        if cache.get(key).await.is_some() {
            println!("{key}: L2 is used again after {:?}", begun.elapsed());
            return;
        }
        assert!(begun.elapsed() < SOON, "{key}: L2 is not used again within {SOON:?}");
        sleep(ms(20)).await;
    }
}

/// Loads until the circuit is open.
async fn skips_l2(cache: &Cache, key: &str) {
    let begun = Instant::now();
    while cache.health().l2 != Some(L2Health::Skipped) {
        load(cache, key).await;
        assert!(begun.elapsed() < SOON, "the circuit stays closed");
        sleep(ms(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_errors_on_a_connection_that_stays() {
    let server = RedisServer::start_with_user("app", "secret", "~cache:* &* +@all");
    let may = |rule: &str| {
        let mut allow = redis::cmd("ACL");
        allow.arg("SETUSER").arg("app").arg(rule).exec(&mut server.connect()).unwrap();
    };
    let (cache, _) = cache(RedisStore::at(server.url()));
    is_used_soon(&cache, "before").await;
    may("-evalsha");
    skips_l2(&cache, "k").await;
    // The check of the connection sees no fault.
    sleep(ms(1_100)).await;
    skips_l2(&cache, "k").await;
    may("+evalsha");
    is_used_soon(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_keys_of_another_type_under_internal_names() {
    let server = RedisServer::start();
    let (cache, _) = cache(RedisStore::at(server.url()));
    is_used_soon(&cache, "before").await;
    let names = ["__index", "__epochs", "__epoch:{cache:k}", "__lock:k", "__run"];
    let mut redis = server.connect();
    let attacked = Instant::now();
    while attacked.elapsed() < ms(1_500) {
        for name in names.map(|name| format!("cache:{name}")) {
            redis::cmd("DEL").arg(&name).exec(&mut redis).unwrap();
            redis::cmd("RPUSH").arg(&name).arg("x").exec(&mut redis).unwrap();
        }
        load(&cache, "k").await;
        load(&cache, "other").await;
        let _ = cache.delete("other").await;
        sleep(ms(20)).await;
    }
    for name in names {
        redis::cmd("DEL").arg(format!("cache:{name}")).exec(&mut redis).unwrap();
    }
    is_used_soon(&cache, "k").await;
    is_used_soon(&cache, "other").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_slots_of_a_cluster_had_no_master() {
    let cluster = Cluster::start();
    let (cache, store) = cache(RedisStore::cluster(cluster.urls()));
    // A key in a slot of the second node, whose slots are 5,462 to 10,923.
    let mut keys = (0..).map(|number| number.to_string());
    let is_there =
        |key: &String| (5_462..10_924).contains(&cluster.slot_of(&format!("cache:{key}")));
    let key = keys.find(is_there).unwrap();
    is_used_soon(&cache, &key).await;
    let generation = store.connection_generation();
    let change = |change: &str| {
        let mut redis = cluster.node(1).connect();
        let slots: Vec<u16> = (5_462..10_924).collect();
        redis::cmd("CLUSTER").arg(change).arg(slots).exec(&mut redis).unwrap();
    };
    change("DELSLOTS");
    skips_l2(&cache, &key).await;
    sleep(ms(1_100)).await;
    assert_eq!(cache.health().l2, Some(L2Health::Skipped));
    assert_eq!(store.connection_generation(), generation, "it cannot work yet");
    change("ADDSLOTS");
    all_nodes_serve(&cluster);
    is_used_soon(&cache, &key).await;
}

/// Waits until no node of a Cluster knows of a fault.
fn all_nodes_serve(cluster: &Cluster) {
    for node in 0..3 {
        wait_for("the node to serve", ms(20_000), || {
            let mut redis = cluster.node(node).connect();
            let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut redis).unwrap();
            info.contains("cluster_state:ok").then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_a_freeze_of_a_server_and_of_a_cluster_node() {
    let server = RedisServer::start();
    let cluster = Cluster::start();
    let (single, _) = cache_with(RedisStore::at(server.url()), ms(200));
    let (sharded, _) = cache_with(RedisStore::cluster(cluster.urls()), ms(200));
    for frozen in [ms(700), ms(2_500)] {
        is_used_soon(&single, "k").await;
        is_used_soon(&sharded, "k").await;
        for key in ["k", "l", "m", "n"] {
            load(&sharded, key).await;
        }
        server.freeze();
        cluster.node(1).freeze();
        let begun = Instant::now();
        while begun.elapsed() < frozen {
            for key in ["k", "l", "m", "n"] {
                load(&single, key).await;
                load(&sharded, key).await;
            }
            sleep(ms(20)).await;
        }
        server.thaw();
        is_used_soon(&single, "k").await;
        cluster.node(1).thaw();
        all_nodes_serve(&cluster);
        for key in ["k", "l", "m", "n"] {
            is_used_soon(&sharded, key).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_sentinels_have_promoted_a_replica() {
    let mut sentinel = Sentinel::start();
    let master = format!("redis://{}/", Sentinel::MASTER);
    let (cache, _) = cache_with(RedisStore::sentinel([sentinel.url()], master), ms(200));
    is_used_soon(&cache, "k").await;
    sentinel.kill_master();
    skips_l2(&cache, "k").await;
    sentinel.wait_for_promotion();
    is_used_soon(&cache, "k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_is_used_again_soon_after_cuts_while_slots_of_a_cluster_moved() {
    let (cluster, proxies) = Cluster::start_behind_proxies();
    let urls = || proxies.iter().map(|it| format!("redis://127.0.0.1:{}/", it.port()));
    let keys: Vec<String> = (0..12).map(|key| key.to_string()).collect();
    let slots: Vec<u16> = keys.iter().map(|key| cluster.slot_of(&format!("cache:{key}"))).collect();
    // The node that has each slot.
    let mut owners: Vec<usize> = slots.iter().map(|slot| usize::from(slot / 5_462)).collect();
    let caches: Vec<Cache> =
        (0..3).map(|_| cache_with(RedisStore::cluster(urls()), ms(200)).0).collect();
    for (round, mode) in
        [Mode::Blackhole, Mode::Reset, Mode::Refuse, Mode::LoseReplies, Mode::Pause]
            .into_iter()
            .enumerate()
    {
        for cache in &caches {
            is_used_soon(cache, "before").await;
        }
        proxies[round % 3].set(mode);
        let begun = Instant::now();
        let mut at = 0;
        while begun.elapsed() < ms(1_500) {
            let to = (owners[at] + 1) % 3;
            cluster.move_slot(slots[at], owners[at], to);
            owners[at] = to;
            at = (at + 1) % slots.len();
            for cache in &caches {
                load(cache, &keys[at]).await;
                load(cache, &keys[(at + round) % keys.len()]).await;
            }
        }
        proxies[round % 3].set(Mode::Pass);
        all_nodes_serve(&cluster);
        for cache in &caches {
            for key in &keys {
                is_used_soon(cache, key).await;
            }
        }
    }
}
