//! Versioned keys on a bus: messages carry the generation of a key, so that instances find each
//! other's values in L2, and no generation that a message carries does harm.

use lazy_layers_cache::{
    EventBusOptions, L1Options, L2Options, WireCodec,
    testing::{BusLink, SharedBus, SharedStore, TokioClock},
};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{Cache, ms, on_tokio_time};

/// An instance whose L1 entries expire at once, so that its values come from L2.
fn instance(store: &SharedStore, link: &BusLink) -> Cache {
    on_tokio_time()
        .l1(L1Options::default().ttl(ms(1)))
        .l2(store.clone(), WireCodec::new())
        .l2_options(L2Options::default().versioning(true))
        .name("test")
        .event_bus(link.clone(), WireCodec::new())
        .event_bus_options(EventBusOptions::default().accept_unnamed(true))
        .broadcast_set(false)
        .build()
        .unwrap()
}

async fn world() -> (SharedBus, SharedStore, Cache, Cache, BusLink) {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let (one, other) = (bus.link(), bus.link());
    let (left, right) = (instance(&store, &one), instance(&store, &other));
    for cache in [&left, &right] {
        cache.ready().await.unwrap();
    }
    sleep(ms(3_200)).await;
    (bus, store, left, right, one)
}

async fn delivered() {
    sleep(ms(20)).await;
}

async fn found(cache: &Cache) -> Option<u32> {
    delivered().await;
    cache.get("k").await.as_deref().copied()
}

/// Encodes a message as the TypeScript package does.
fn message(id: &str, kind: &str, keys: &[&str], generation: u64) -> Vec<u8> {
    let message = json!({
        "id": id, "type": kind, "source": "node", "ts": 1_700_000_000_123_u64,
        "generation": generation, "keys": keys, "pattern": "k", "value": 1,
    });
    [&b"HC1M"[..], &rmp_serde::to_vec_named(&message).unwrap()].concat()
}

/// The generations under which the store has a value of the key.
fn versions(store: &SharedStore) -> Vec<u64> {
    (0..100).filter(|version| store.peek(&format!("k::v{version}")).is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_value_set_after_many_deletes_is_found_by_peers() {
    let (_bus, store, left, right, _) = world().await;
    for _ in 0..20 {
        left.delete("k").await.unwrap();
    }
    left.set("k", 7u32).await.unwrap();
    assert_eq!(versions(&store), [20]);
    assert_eq!(found(&right).await, Some(7));
    right.delete("k").await.unwrap();
    right.set("k", 8u32).await.unwrap();
    assert_eq!((versions(&store), found(&left).await), (vec![21], Some(8)));
}

#[tokio::test(start_paused = true)]
async fn a_value_at_a_high_generation_stays_though_new_peers_have_just_started() {
    let (bus, store, left, _right, _) = world().await;
    for _ in 0..20 {
        left.delete("k").await.unwrap();
    }
    let new: Vec<Cache> = (0..3).map(|_| instance(&store, &bus.link())).collect();
    for cache in &new {
        cache.ready().await.unwrap();
    }
    sleep(ms(3_200)).await;
    left.set("k", 7u32).await.unwrap();
    for cache in &new {
        assert_eq!(found(cache).await, Some(7));
    }
    assert_eq!(versions(&store), [20]);
}

#[tokio::test(start_paused = true)]
async fn deletes_of_several_keys_that_waited_for_the_bus_carry_their_generations() {
    let (_bus, store, left, right, link) = world().await;
    link.cut();
    for _ in 0..20 {
        left.delete("j").await.unwrap();
        left.delete("k").await.unwrap();
    }
    link.restore();
    sleep(ms(5_000)).await;
    // The generation is far from the one known here, so a value under it may be older.
    left.set("k", 7u32).await.unwrap();
    assert_eq!((versions(&store), found(&right).await), (vec![20], Some(7)));
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_a_new_instance_at_generation_zero_removes_values_at_high_generations() {
    let (bus, store, left, right, _) = world().await;
    for _ in 0..20 {
        left.delete("k").await.unwrap();
    }
    left.set("k", 7u32).await.unwrap();
    assert_eq!(found(&right).await, Some(7));
    let new = instance(&store, &bus.link());
    new.ready().await.unwrap();
    new.delete("k").await.unwrap();
    delivered().await;
    assert_eq!((found(&left).await, found(&right).await), (None, None));
    // The peers have sent it their generation.
    new.set("k", 8u32).await.unwrap();
    assert_eq!((found(&left).await, found(&right).await), (Some(8), Some(8)));
    assert_eq!(versions(&store), [20]);
}

#[tokio::test(start_paused = true)]
async fn a_late_generation_restores_no_deleted_value() {
    let (bus, store, left, _right, _) = world().await;
    // A peer at generation 20 wrote the value before the delete here, which is at generation 0.
    store.insert_raw("k::v20", *b"HC1M\x07", ms(60_000));
    left.delete("k").await.unwrap();
    bus.inject(&message("late", "del", &["k"], 20));
    assert_eq!((found(&left).await, versions(&store)), (None, vec![]));
    left.set("k", 8u32).await.unwrap();
    assert_eq!((found(&left).await, versions(&store)), (Some(8), vec![20]));
}

#[tokio::test(start_paused = true)]
async fn generations_of_a_typescript_instance_raise_the_known_ones_and_never_lower_them() {
    let (bus, store, left, right, _) = world().await;
    for (id, kind, generation, expected) in
        [("a", "del", 5, 5), ("b", "set", 6, 6), ("c", "del", 2, 6), ("d", "pattern", 9, 6)]
    {
        bus.inject(&message(id, kind, &["k"], generation));
        delivered().await;
        for cache in [&left, &right] {
            cache.set("k", 7u32).await.unwrap();
            assert_eq!(versions(&store), [expected], "{id}");
        }
    }
    // With several keys, the generation belongs to none of them.
    bus.inject(&message("e", "del", &["k", "j"], 9));
    delivered().await;
    left.set("k", 8u32).await.unwrap();
    assert_eq!(versions(&store), [6]);
}

#[tokio::test(start_paused = true)]
async fn no_generation_makes_a_key_unusable() {
    let (bus, _store, left, right, _) = world().await;
    bus.inject(&message("a", "del", &["k"], u64::MAX));
    delivered().await;
    for value in 1..10 {
        left.set("k", value).await.unwrap();
        assert_eq!((found(&right).await, found(&left).await), (Some(value), Some(value)));
        right.delete("k").await.unwrap();
        assert_eq!((found(&right).await, found(&left).await), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_versioning_sends_and_adopts_no_generation() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let build = || {
        let builder = on_tokio_time().l2(store.clone(), WireCodec::new());
        let builder = builder.name("test").event_bus(bus.link(), WireCodec::new());
        builder.event_bus_options(EventBusOptions::default().accept_unnamed(true)).build().unwrap()
    };
    let (plain, versioned): (Cache, Cache) = (build(), instance(&store, &bus.link()));
    plain.ready().await.unwrap();
    versioned.ready().await.unwrap();
    for _ in 0..3 {
        plain.delete("k").await.unwrap();
    }
    versioned.delete("k").await.unwrap();
    delivered().await;
    versioned.set("k", 7u32).await.unwrap();
    plain.set("k", 8u32).await.unwrap();
    assert_eq!((versions(&store), store.peek("k").is_some()), (vec![1], true));
}
