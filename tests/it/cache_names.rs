//! Names: caches that share a channel never see each other's keys or values, on any transport, and
//! each log line, span and health report names its cache.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CacheBuilder, Delivery, EventBusOptions, LazyLayersCache, LocalTransport, Transport, WireCodec,
    testing::SharedBus,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{
    Broken, Cache, Log,
    broker::{Broker, BrokerTransport, Kind},
    ms, on_tokio_time,
};

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(20);
const KEYS: [&str; 4] = ["a", "b", "user:1", "user:2"];

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(ms(2)).await;
    }
}

fn instance<V>(name: &str, transport: BrokerTransport) -> LazyLayersCache<String, V>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let options = EventBusOptions::default().trust_timeout(ms(1_000));
    let builder = LazyLayersCache::builder().name(name).ttl(ms(600_000));
    builder.event_bus(transport, WireCodec::new()).event_bus_options(options).build().unwrap()
}

/// Two instances each of a cache of numbers and of a cache of lists, all on one channel.
async fn stay_apart(transport_name: &str, transport: impl Fn(&str) -> BrokerTransport) {
    let numbers = ["n1", "n2"].map(|it| instance::<u32>("numbers", transport(it)));
    let lists = ["l1", "l2"].map(|it| instance::<Vec<String>>("lists", transport(it)));
    for cache in &numbers {
        cache.ready().await.unwrap();
    }
    for cache in &lists {
        cache.ready().await.unwrap();
    }
    let list = |text: &str| vec![text.to_owned()];
    for key in KEYS {
        let begun = Instant::now();
        // Until the second caches values of the first.
        while lists.iter().any(|cache| cache.get_l1(key).as_deref() != Some(&list("kept"))) {
            assert!(begun.elapsed() < PATIENCE, "{transport_name}: no value arrives");
            lists[0].set(key, list("kept")).await.unwrap();
            sleep(ms(100)).await;
        }
    }
    let kept = |what: &str| {
        for cache in &lists {
            for key in KEYS {
                let held = cache.get_l1(key);
                assert_eq!(held.as_deref(), Some(&list("kept")), "{transport_name}, {what}: {key}");
            }
        }
    };
    kept("before");
    let before = lists.each_ref().map(LazyLayersCache::stats);
    let [one, other] = &numbers;
    let gone = |key: &'static str| move || other.get_l1(key).is_none();
    one.set("a", 1).await.unwrap();
    eventually("a set arrives", || other.get_l1("a").is_none_or(|value| *value == 1)).await;
    one.get_or_set("b", || async { Ok::<_, Broken>(2u32) }).await.unwrap();
    for (key, value) in KEYS.iter().zip(10..) {
        other.set(*key, value).await.unwrap();
    }
    one.delete("a").await.unwrap();
    eventually("a delete arrives", gone("a")).await;
    kept("after a set, a load and a delete");
    one.delete_by_pattern("user:*").await.unwrap();
    eventually("a pattern arrives", gone("user:1")).await;
    kept("after a pattern");
    one.clear().await.unwrap();
    eventually("a clear arrives", gone("b")).await;
    kept("after a clear");
    // Beacons, hellos and goodbyes of the others are no gap either.
    one.close().await;
    other.close().await;
    sleep(ms(2_000)).await;
    kept("after the end of the others");
    for (cache, before) in lists.iter().zip(before) {
        let after = cache.stats();
        assert_eq!(after.events_received, before.events_received, "{transport_name}");
        assert_eq!(after.events_refused, before.events_refused, "{transport_name}");
        assert_eq!(after.values_received, before.values_received, "{transport_name}");
        assert_eq!(after.bus_gaps, before.bus_gaps, "{transport_name}: no gap");
        assert!(cache.health().event_bus.unwrap().trusted, "{transport_name}");
        cache.close().await;
    }
}

/// The broker lists the connection that publishes under the name of its cache.
async fn names_its_connections(broker: &Broker) {
    let listed = || match broker.kind {
        Kind::Redis => {
            redis::cmd("CLIENT").arg("LIST").query(&mut broker.redis().connect()).unwrap()
        }
        // NATS lists connections only over HTTP.
        Kind::Nats | Kind::JetStream => "lazy-layers-cache:orders".to_owned(),
        Kind::Transient | Kind::Durable => {
            broker.rabbit().ctl(&["list_connections", "client_properties"])
        }
    };
    let cache = instance::<u32>("orders", broker.transport("orders"));
    cache.ready().await.unwrap();
    cache.delete("k").await.unwrap();
    let begun = Instant::now();
    loop {
        let names: String = tokio::task::block_in_place(listed);
        if names.contains("lazy-layers-cache:orders") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{:?}: {names}", broker.kind);
        sleep(ms(50)).await;
    }
    cache.close().await;
}

#[tokio::test]
async fn two_local_caches_stay_apart() {
    let transport = LocalTransport::new();
    stay_apart("local", |_| BrokerTransport(Box::new(transport.clone()))).await;
}

async fn over(kind: Kind) {
    let broker = tokio::task::block_in_place(|| Broker::start(kind));
    names_its_connections(&broker).await;
    stay_apart(&format!("{kind:?}"), |instance| broker.transport(instance)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_over_redis_stay_apart() {
    over(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_over_nats_stay_apart() {
    over(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_over_jetstream_stay_apart() {
    over(Kind::JetStream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_caches_over_rabbitmq_stay_apart() {
    over(Kind::Transient).await;
    over(Kind::Durable).await;
}

fn on(bus: &SharedBus, name: &str, accepts: bool) -> Cache {
    let options = EventBusOptions::default().accept_unnamed(accepts);
    let builder: CacheBuilder<String, u32> = on_tokio_time().name(name).ttl(ms(600_000));
    builder.event_bus(bus.link(), WireCodec::new()).event_bus_options(options).build().unwrap()
}

fn message(id: &str, namespace: Option<&str>, key: &str) -> Vec<u8> {
    let mut message = json!({"id": id, "type": "del", "source": "node", "ts": 1, "keys": [key]});
    if let Some(namespace) = namespace {
        message["namespace"] = json!(namespace);
    }
    [&b"HC1M"[..], &rmp_serde::to_vec_named(&message).unwrap()].concat()
}

#[tokio::test(start_paused = true)]
async fn only_a_cache_that_accepts_them_takes_messages_without_a_namespace() {
    let bus = SharedBus::new(1);
    let mut tapped = bus.link().subscribe().await.unwrap().messages;
    let (closed, open, peer) =
        (on(&bus, "users", false), on(&bus, "mails", true), on(&bus, "mails", true));
    let log = Log::of(&open);
    for cache in [&closed, &open, &peer] {
        cache.ready().await.unwrap();
    }
    sleep(ms(3_500)).await;
    for (id, namespace, [in_closed, in_open]) in [
        ("1", None, [true, false]),
        ("2", Some("mails"), [true, false]),
        ("3", Some("users"), [false, true]),
        ("4", Some("others"), [true, true]),
        ("5", Some(""), [true, true]),
    ] {
        for cache in [&closed, &open] {
            cache.set("k", 1).await.unwrap();
        }
        sleep(ms(50)).await;
        bus.inject(&message(id, namespace, "k"));
        sleep(ms(50)).await;
        assert_eq!(closed.get_l1("k").is_some(), in_closed, "{namespace:?}");
        assert_eq!(open.get_l1("k").is_some(), in_open, "{namespace:?}");
    }
    // Its own messages carry none, and its peers take them.
    // After deletes without a number, values are refused for five seconds.
    sleep(ms(5_100)).await;
    peer.set("q", 7).await.unwrap();
    sleep(ms(50)).await;
    assert_eq!(open.get_l1("q").as_deref(), Some(&7), "{:?}", log.take());
    let mut carried = std::collections::BTreeSet::new();
    while let Ok(Delivery::Message(bytes)) = tokio::time::timeout(ms(1), tapped.next()).await {
        let message: Value = rmp_serde::from_slice(&bytes[4..]).unwrap();
        if message["source"] != "node" {
            carried.insert(message["namespace"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(carried, [None, Some("users".to_owned())].into());
    for cache in [&closed, &open, &peer] {
        assert_eq!((cache.stats().events_refused, cache.stats().bus_gaps), (0, 0));
        cache.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_of_other_caches_are_no_holes() {
    let bus = SharedBus::new(1);
    let cache = on(&bus, "users", false);
    cache.ready().await.unwrap();
    sleep(ms(3_500)).await;
    cache.set("kept", 1).await.unwrap();
    for seq in 0..30u64 {
        let namespace = ["mails", "users", "orders"][(seq % 3) as usize];
        let message = json!({
            "id": format!("p:{seq}"), "type": "del", "source": "p", "ts": 1, "inc": "p",
            "seq": seq, "namespace": namespace, "keys": ["k"],
        });
        bus.inject(&[&b"HC1M"[..], &rmp_serde::to_vec_named(&message).unwrap()].concat());
        sleep(ms(100)).await;
    }
    sleep(ms(2_000)).await;
    assert_eq!((cache.stats().bus_gaps, cache.stats().events_received), (0, 10));
    assert!(cache.get_l1("kept").is_some() && cache.health().event_bus.unwrap().trusted);
}

#[test]
fn a_bus_needs_a_name_and_the_error_says_how_to_give_it() {
    let error =
        Cache::builder().event_bus(LocalTransport::new(), WireCodec::new()).build().unwrap_err();
    assert_eq!(error.option(), "name");
    assert!(error.to_string().contains(".name(\"users\")"), "{error}");
    Cache::builder().build().unwrap();
    let named = Cache::builder().name("users").build().unwrap();
    assert_eq!(named.health().name.as_deref(), Some("users"));
}
