//! Deletes by pattern in Redis: they continue where they were, and no lease escapes them.

use std::time::Duration;

use lazy_layers_cache::{
    LeaseRequest, LeaseResponse, PatternCursor, RedisStore, RestartPolicy, Store,
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    REFRESH, cluster::Cluster, interrupter::Interrupter, ms, publication, redis::RedisServer,
};

async fn write(store: &RedisStore, key: &str) {
    let lease = store.acquire_write_lease(key, ms(5_000)).await.unwrap().unwrap();
    assert!(store.publish(key, &lease, publication(b"1", ms(600_000))).await.unwrap());
}

/// Drops the delete after a little more time in each call. Returns the number of calls.
async fn delete_in_parts(store: &RedisStore, pattern: &str, cursor: &PatternCursor) -> u32 {
    for calls in 1.. {
        let delete = store.delete_matching_from(pattern, false, cursor);
        if let Ok(done) = timeout(ms(10) + ms(1) * calls, delete).await {
            done.unwrap();
            return calls;
        }
    }
    unreachable!("it is done at some time");
}

/// With and without an index: without one, a step of one name visits one key.
#[tokio::test]
async fn a_delete_by_pattern_in_parts_visits_no_key_twice() {
    let server = RedisServer::start();
    for (use_index, scans) in [(true, "zscan"), (false, "scan")] {
        let store = RedisStore::at(server.url()).use_index(use_index).scan_count(1).batch_size(1);
        let store = store.build().unwrap();
        for number in 0..1_000 {
            write(&store, &format!("in:{number}")).await;
        }
        write(&store, "out").await;
        let before = server.calls(scans);
        let cursor = PatternCursor::new();
        let parts = delete_in_parts(&store, "in:*", &cursor).await;
        let steps = server.calls(scans) - before;
        assert!(parts > 3, "{parts} parts");
        // Three kinds of names, and a step at the end of each part.
        let names = if use_index { 1_001 } else { 3 * 1_001 };
        assert!(steps < names + 2 * u64::from(parts) + 200, "{steps} steps in {parts} parts");
        assert_eq!(store.size().await.unwrap(), 1);
        assert!(store.get("out", false).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_delete_by_pattern_in_a_cluster_continues_where_it_was() {
    let cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).scan_count(1).build().unwrap();
    for number in 0..200 {
        write(&store, &format!("in:{number}")).await;
    }
    write(&store, "out").await;
    let parts = delete_in_parts(&store, "in:*", &PatternCursor::new()).await;
    assert!(parts > 3, "{parts} parts");
    assert_eq!(store.size().await.unwrap(), 1);
}

/// The position is one of a server that is gone, whose order of keys was another one.
#[tokio::test]
async fn after_a_restart_a_delete_by_pattern_begins_anew() {
    let mut server = RedisServer::start();
    let at = |url: String| {
        let store = RedisStore::at(url).use_index(false).scan_count(1);
        store.after_restart(RestartPolicy::Keep).build().unwrap()
    };
    let store = at(server.url());
    for number in 0..300 {
        write(&store, &format!("in:{number}")).await;
    }
    server.save();
    let cursor = PatternCursor::new();
    let deleted = async || 300 - store.size().await.unwrap();
    while deleted().await < 100 {
        drop(timeout(ms(30), store.delete_matching_from("in:*", false, &cursor)).await);
    }
    server.kill();
    server.restart();
    let store = at(server.url());
    let begun = Instant::now();
    while store.size().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it is not used");
        sleep(ms(20)).await;
    }
    assert_eq!(store.size().await.unwrap(), 300, "the values are back");
    store.delete_matching_from("in:*", false, &cursor).await.unwrap();
    assert_eq!(store.size().await.unwrap(), 0);
}

/// A load adopts a lease while the sets of keys with a lease are scanned: its key comes into a set
/// that was scanned already, and the old set with the key expires before it is scanned.
#[tokio::test]
async fn a_lease_that_is_adopted_during_a_delete_by_pattern_is_deleted() {
    let server = RedisServer::start();
    let direct = RedisStore::at(server.url()).build().unwrap();
    let request = LeaseRequest { lease_for: ms(60_000), refresh: false, ..REFRESH };
    let mut redis = server.connect();
    // The set of the present 16 seconds must be scanned before another one.
    let begun = Instant::now();
    let (lease, set) = loop {
        let LeaseResponse::Load { lease: Some(lease), .. } =
            direct.get_or_lease("k", request).await.unwrap()
        else {
            panic!("there is no value")
        };
        let sets = (0..4).filter(|number: &usize| {
            let set = format!("cache:__leases:{number}");
            redis::cmd("SISMEMBER").arg(set).arg("k").query(&mut redis).unwrap()
        });
        if let Some(set) = sets.min().filter(|set| *set < 3) {
            break (lease, set);
        }
        direct.delete("k").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "the sets change every 16 s");
        sleep(ms(100)).await;
    };
    // The load has begun 16 seconds ago, and its lease must be extended to be adopted.
    let (set, old) = (format!("cache:__leases:{set}"), format!("cache:__leases:{}", set + 1));
    for command in [
        redis::cmd("RENAME").arg(&set).arg(&old),
        redis::cmd("PEXPIRE").arg(&old).arg(400),
        redis::cmd("PEXPIRE").arg("cache:__lease:{cache:k}").arg(500),
    ] {
        command.exec(&mut redis).unwrap();
    }
    let (url, expiring) = (server.url(), old.clone());
    let runtime = tokio::runtime::Handle::current();
    let proxy = Interrupter::to(&server, "SSCAN", move || {
        let adopting = direct.clone();
        runtime.block_on(async { adopting.get_or_lease("k", request).await.unwrap() });
        let mut redis = redis::Client::open(&*url).unwrap().get_connection().unwrap();
        while redis::cmd("EXISTS").arg(&expiring).query(&mut redis).unwrap() {
            std::thread::sleep(ms(10));
        }
    });
    let store = RedisStore::at(format!("redis://127.0.0.1:{}/", proxy.port)).build().unwrap();
    let before = old.chars().last().and_then(|digit| digit.to_digit(10)).unwrap();
    proxy.interrupt_after(before as usize);
    store.delete_matching("k*").await.unwrap();
    assert!(proxy.has_interrupted(), "before the old set was scanned");
    let published = store.publish("k", &lease, publication(b"old", ms(60_000))).await.unwrap();
    assert!(!published, "the load began before the delete");
}
