//! Versioned keys on a bus: instances tell each other how often a key was deleted, so that they
//! find each other's values, and that no count that anybody tells does harm.

use lazy_layers_cache::{
    L1Options, L2Options, WireCodec,
    testing::{BusLink, SharedBus, SharedStore, TokioClock},
};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{Cache, ms, on_tokio_time};

/// One whose memory is empty as soon as it is asked: what is found is in the shared level.
fn instance(store: &SharedStore, link: &BusLink) -> Cache {
    on_tokio_time()
        .l1(L1Options::default().ttl(ms(1)))
        .l2(store.clone(), WireCodec::new())
        .l2_options(L2Options::default().versioning(true))
        .event_bus(link.clone(), WireCodec::new())
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

async fn arrived() {
    sleep(ms(20)).await;
}

async fn found(cache: &Cache) -> Option<u32> {
    arrived().await;
    cache.get("k").await.as_deref().copied()
}

/// An event as the TypeScript package writes it.
fn told(id: &str, kind: &str, keys: &[&str], generation: u64) -> Vec<u8> {
    let event = json!({
        "id": id, "type": kind, "source": "node", "ts": 1_700_000_000_123_u64,
        "generation": generation, "keys": keys, "pattern": "k", "value": 1,
    });
    [&b"HC1M"[..], &rmp_serde::to_vec_named(&event).unwrap()].concat()
}

/// The names under which a store has a value of the key, as a number.
fn versions(store: &SharedStore) -> Vec<u64> {
    (0..100).filter(|version| store.peek(&format!("k::v{version}")).is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_written_after_many_deletes_is_found_by_the_others() {
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
async fn what_is_set_at_a_high_count_stays_though_others_have_just_started() {
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
async fn deletes_of_several_keys_that_waited_for_the_bus_are_told_with_their_counts() {
    let (_bus, store, left, right, link) = world().await;
    link.cut();
    for _ in 0..20 {
        left.delete("j").await.unwrap();
        left.delete("k").await.unwrap();
    }
    link.restore();
    sleep(ms(5_000)).await;
    // It was a long way to there: what was at its end may have been older than what is known here.
    left.set("k", 7u32).await.unwrap();
    assert_eq!((versions(&store), found(&right).await), (vec![20], Some(7)));
}

#[tokio::test(start_paused = true)]
async fn a_delete_by_one_who_counts_from_the_beginning_takes_what_others_have_far_from_there() {
    let (bus, store, left, right, _) = world().await;
    for _ in 0..20 {
        left.delete("k").await.unwrap();
    }
    left.set("k", 7u32).await.unwrap();
    assert_eq!(found(&right).await, Some(7));
    let new = instance(&store, &bus.link());
    new.ready().await.unwrap();
    new.delete("k").await.unwrap();
    arrived().await;
    assert_eq!((found(&left).await, found(&right).await), (None, None));
    // And they told it where they are.
    new.set("k", 8u32).await.unwrap();
    assert_eq!((found(&left).await, found(&right).await), (Some(8), Some(8)));
    assert_eq!(versions(&store), [20]);
}

#[tokio::test(start_paused = true)]
async fn a_count_that_comes_late_brings_back_nothing_that_was_deleted_here() {
    let (bus, store, left, _right, _) = world().await;
    // A value of one at count 20, from before the delete here, which takes it for one at 0.
    store.insert_raw("k::v20", *b"HC1M\x07", ms(60_000));
    left.delete("k").await.unwrap();
    bus.inject(&told("late", "del", &["k"], 20));
    assert_eq!((found(&left).await, versions(&store)), (None, vec![]));
    left.set("k", 8u32).await.unwrap();
    assert_eq!((found(&left).await, versions(&store)), (Some(8), vec![20]));
}

#[tokio::test(start_paused = true)]
async fn the_counts_of_a_typescript_instance_move_ours_and_only_up() {
    let (bus, store, left, right, _) = world().await;
    for (id, kind, generation, counted) in
        [("a", "del", 5, 5), ("b", "set", 6, 6), ("c", "del", 2, 6), ("d", "pattern", 9, 6)]
    {
        bus.inject(&told(id, kind, &["k"], generation));
        arrived().await;
        for cache in [&left, &right] {
            cache.set("k", 7u32).await.unwrap();
            assert_eq!(versions(&store), [counted], "{id}");
        }
    }
    // Whose of several keys it is, nobody says.
    bus.inject(&told("e", "del", &["k", "j"], 9));
    arrived().await;
    left.set("k", 8u32).await.unwrap();
    assert_eq!(versions(&store), [6]);
}

#[tokio::test(start_paused = true)]
async fn no_count_makes_a_key_useless() {
    let (bus, _store, left, right, _) = world().await;
    bus.inject(&told("a", "del", &["k"], u64::MAX));
    arrived().await;
    for value in 1..10 {
        left.set("k", value).await.unwrap();
        assert_eq!((found(&right).await, found(&left).await), (Some(value), Some(value)));
        right.delete("k").await.unwrap();
        assert_eq!((found(&right).await, found(&left).await), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_versions_tells_none_and_takes_none() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let build = || {
        let builder = on_tokio_time().l2(store.clone(), WireCodec::new());
        builder.event_bus(bus.link(), WireCodec::new()).build().unwrap()
    };
    let (plain, versioned): (Cache, Cache) = (build(), instance(&store, &bus.link()));
    plain.ready().await.unwrap();
    versioned.ready().await.unwrap();
    for _ in 0..3 {
        plain.delete("k").await.unwrap();
    }
    versioned.delete("k").await.unwrap();
    arrived().await;
    versioned.set("k", 7u32).await.unwrap();
    plain.set("k", 8u32).await.unwrap();
    assert_eq!((versions(&store), store.peek("k").is_some()), (vec![1], true));
}
