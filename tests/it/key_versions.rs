//! Versioned keys in a real Redis: their names, and the effect of a delete, a set, a pattern and
//! `size`.

use std::sync::Arc;

use lazy_layers_cache::{
    L2Options, LazyLayersCache, RedisStore, Store, WireCodec, testing::check_store,
};
use redis::Connection;
use tokio::sync::Notify;

use crate::support::{REFRESH, ms, publication, redis::RedisServer};

type Cache = LazyLayersCache<String, u32>;

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::at(server.url()).build().unwrap()
}

/// Without L1, so that every read shows the contents of Redis.
fn instance(store: RedisStore) -> Cache {
    let builder = Cache::builder().without_l1().l2_options(L2Options::default().versioning(true));
    builder.l2(store, WireCodec::new()).build().unwrap()
}

fn is_there(redis: &mut Connection, name: &str) -> bool {
    redis::cmd("EXISTS").arg(name).query(redis).unwrap()
}

fn index(redis: &mut Connection) -> Vec<String> {
    redis::cmd("ZRANGE").arg("cache:__index").arg(0).arg(-1).query(redis).unwrap()
}

#[tokio::test]
async fn a_name_ends_with_the_number_of_deletes_of_its_key() {
    let server = RedisServer::start();
    let (cache, mut redis) = (instance(store(&server)), server.connect());
    cache.set("user:1", 7).await.unwrap();
    let bytes: Vec<u8> = redis::cmd("GET").arg("cache:user:1::v0").query(&mut redis).unwrap();
    assert_eq!(bytes, b"HC1M\x07");
    assert_eq!(index(&mut redis), ["cache:user:1::v0"]);
    cache.delete("user:1").await.unwrap();
    assert_eq!((index(&mut redis), cache.size().await), (vec![], 0));
    cache.set("user:1", 8).await.unwrap();
    assert_eq!(index(&mut redis), ["cache:user:1::v1"]);
    // A set does not change the version, and each key has its own.
    cache.set("user:1", 9).await.unwrap();
    cache.set("user:2", 1).await.unwrap();
    assert_eq!(index(&mut redis), ["cache:user:1::v1", "cache:user:2::v0"]);
    assert_eq!(cache.size().await, 2);
    let values = (cache.get("user:1").await, cache.get("user:2").await);
    assert_eq!((values.0.as_deref(), values.1.as_deref()), (Some(&9), Some(&1)));
}

#[tokio::test]
async fn two_versions_do_not_see_each_others_values() {
    let server = RedisServer::start();
    let (left, right) = (instance(store(&server)), instance(store(&server)));
    left.delete("k").await.unwrap();
    right.set("k", 1).await.unwrap();
    assert!(left.get("k").await.is_none());
    let load = || async { Ok::<_, std::io::Error>(2) };
    assert_eq!(*left.get_or_set("k", load).await.unwrap(), 2);
    let seen = (left.get("k").await, right.get("k").await);
    assert_eq!((seen.0.as_deref(), seen.1.as_deref()), (Some(&2), Some(&1)));
    assert_eq!(left.size().await, 2);
    // An instance with versioned keys and one without do not see each other's values either.
    let without = Cache::builder().l2(store(&server), WireCodec::new()).build().unwrap();
    assert!(without.get("k").await.is_none());
}

#[tokio::test]
async fn a_delete_or_set_by_an_instance_at_another_version_removes_the_old_value() {
    let server = RedisServer::start();
    for use_index in [true, false] {
        let store = || RedisStore::at(server.url()).use_index(use_index).build().unwrap();
        let (ahead, behind) = (instance(store()), instance(store()));
        ahead.delete("k").await.unwrap();
        ahead.delete("k").await.unwrap();
        for writer in [&ahead, &behind] {
            ahead.set("k", 1).await.unwrap();
            behind.delete("other").await.unwrap();
            let load = || async { Ok::<_, std::io::Error>(1) };
            ahead.get_or_set("k", load).await.unwrap();
            behind.get_or_set("k", load).await.unwrap();
            writer.set("k", 2).await.unwrap();
            for reader in [&ahead, &behind] {
                assert_ne!(reader.get("k").await.as_deref(), Some(&1));
            }
            ahead.get_or_set("k", load).await.unwrap();
            behind.get_or_set("k", load).await.unwrap();
            writer.delete("k").await.unwrap();
            assert!(ahead.get("k").await.is_none() && behind.get("k").await.is_none());
            assert_eq!(ahead.size().await, 0);
        }
    }
}

#[tokio::test]
async fn a_load_at_another_version_is_fenced() {
    let server = RedisServer::start();
    let (ahead, behind) = (instance(store(&server)), instance(store(&server)));
    ahead.delete("k").await.unwrap();
    for (slow, deletes) in [(&ahead, &behind), (&behind, &ahead), (&ahead, &ahead)] {
        let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, gate, cache) = (Arc::clone(&began), Arc::clone(&go), slow.clone());
        let load = tokio::spawn(async move {
            let load = move || async move {
                told.notify_one();
                gate.notified().await;
                Ok::<_, std::io::Error>(1)
            };
            *cache.get_or_set("k", load).await.unwrap()
        });
        began.notified().await;
        deletes.delete("k").await.unwrap();
        go.notify_one();
        assert_eq!(load.await.unwrap(), 1);
        assert!(ahead.get("k").await.is_none() && behind.get("k").await.is_none());
        assert_eq!(ahead.size().await, 0);
    }
}

#[tokio::test]
async fn a_pattern_matches_keys_at_all_versions() {
    let server = RedisServer::start();
    for use_index in [true, false] {
        let store = RedisStore::at(server.url()).use_index(use_index).build().unwrap();
        let (cache, mut redis) = (instance(store), server.connect());
        cache.delete("user:2").await.unwrap();
        for key in ["user:1", "user:2", "user:11", "product:1"] {
            cache.set(key, 1).await.unwrap();
        }
        cache.delete_by_pattern("user:?").await.unwrap();
        assert!(!is_there(&mut redis, "cache:user:1::v0") && cache.get("user:2").await.is_none());
        assert!(cache.get("user:11").await.is_some() && cache.get("product:1").await.is_some());
        cache.delete_by_pattern("product:1").await.unwrap();
        assert!(cache.get("product:1").await.is_none());
        assert_eq!(cache.size().await, 1);
        cache.clear().await.unwrap();
        assert_eq!(cache.size().await, 0);
    }
}

#[tokio::test]
async fn several_keys_are_deleted_in_one_round_trip() {
    let server = RedisServer::start();
    let store = store(&server);
    check_store(&store).await;
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    // Redis has cached the script from now on.
    store.delete_all(&keys).await.unwrap();
    let before = server.round_trips();
    let asking = server.round_trips() - before;
    store.delete_all(&keys).await.unwrap();
    store.delete_all(&[]).await.unwrap();
    // The supervisor of the connection may add some commands.
    assert!(server.round_trips() - before - 2 * asking <= 1 + 3);
    // The leases of the keys are void too.
    let request = lazy_layers_cache::LeaseRequest { lease_for: ms(9_000), ..REFRESH };
    let lazy_layers_cache::LeaseResponse::Load { lease: Some(lease), .. } =
        store.get_or_lease("k7", request).await.unwrap()
    else {
        panic!("the store must give a lease");
    };
    store.delete_all(&keys).await.unwrap();
    assert!(!store.publish("k7", &lease, publication(b"x", ms(9_000))).await.unwrap());
}
