//! Changes by instances of the TypeScript package, which know nothing of sidecars: after their
//! message no instance serves an old stale copy or negative entry from L2. Paused time.

use lazy_layers_cache::{
    EventBusOptions, FailSafe, LazyLayersCache, NegativeCache, Store, WireCodec,
    testing::{BusLink, SharedBus, SharedStore, TokioClock},
};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{Broken, Cache, Gate, Origin, ms, on_tokio_time};

fn instance(store: &SharedStore, link: &BusLink) -> Cache {
    on_tokio_time()
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled())
        .negative_cache(NegativeCache::enabled().ttl(ms(60_000)))
        .l2(store.clone(), WireCodec::new())
        .name("test")
        .event_bus(link.clone(), WireCodec::new())
        .event_bus_options(EventBusOptions::default().accept_unnamed(true))
        .broadcast_set(false)
        .build()
        .unwrap()
}

/// Encodes a message as the TypeScript package does.
fn message(kind: &str, id: usize) -> Vec<u8> {
    let message = json!({
        "id": id.to_string(), "type": kind, "source": "node", "ts": 1_700_000_000_123_u64,
        "keys": ["k"], "pattern": "k*", "value": 5, "ttlMs": 60_000,
    });
    [&b"HC1M"[..], &rmp_serde::to_vec_named(&message).unwrap()].concat()
}

async fn world() -> (SharedBus, SharedStore, Cache, Cache) {
    let (bus, store) = (SharedBus::new(1), SharedStore::new(TokioClock::new()));
    let (one, other) = (instance(&store, &bus.link()), instance(&store, &bus.link()));
    for cache in [&one, &other] {
        LazyLayersCache::ready(cache).await.unwrap();
    }
    sleep(ms(3_200)).await;
    (bus, store, one, other)
}

#[tokio::test(start_paused = true)]
async fn no_stale_copy_is_served_after_a_change_that_nobody_saw_in_l2() {
    let (bus, store, one, other) = world().await;
    for (id, kind) in ["del", "set", "pattern"].into_iter().enumerate() {
        one.set("k", 1).await.unwrap();
        assert!(store.peek_copy("k").is_some());
        // The peer removes or replaces the value, and then sends the message.
        store.insert_raw("k", b"HC1M\x05".as_slice(), ms(1));
        sleep(ms(2)).await;
        bus.inject(&message(kind, id));
        sleep(ms(50)).await;
        assert_eq!(store.peek_copy("k"), None, "{kind}");
        // The ttl of the old value has passed: nobody can tell any more how it ended.
        sleep(ms(70_000)).await;
        let served = other.get_or_set("k", Origin::default().load(Gate::Err)).await;
        assert!(served.is_err(), "{kind}: {served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_negative_entry_is_served_after_a_peer_has_created_the_key() {
    let (bus, store, one, other) = world().await;
    let none = || async { Ok::<_, Broken>(None::<u32>) };
    for (id, kind) in ["del", "set", "pattern"].into_iter().enumerate() {
        assert_eq!(one.get_or_set("k", none).await.unwrap(), None);
        bus.inject(&message(kind, 10 + id));
        sleep(ms(50)).await;
        let origin = Origin::default();
        let served = other.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
        let expected = if kind == "set" { 5 } else { 1 };
        assert_eq!(served.as_deref(), Some(&expected), "{kind}");
        store.delete("k").await.unwrap();
        one.delete("k").await.unwrap();
        other.delete("k").await.unwrap();
        sleep(ms(6_000)).await;
    }
}
