//! A broker that refuses messages, and would refuse them again: too large, no permission, a policy.
//! Every invalidation reaches the peers all the same, or they notice.

use std::time::Duration;

use lazy_layers_cache::{
    BusEffect, EventBusOptions, LazyLayersCache, MessageRefused, Subscribed, Transport,
    TransportFuture, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Cache, Log, ms, on_tokio_time};

/// Within this time an instance notices lost messages and recovers: the trust timeout, and a
/// little more.
const NOTICED: Duration = ms(3_200);

fn on(transport: impl Transport) -> Cache {
    on_tokio_time()
        .ttl(ms(600_000))
        .name("test")
        .event_bus(transport, WireCodec::new())
        .build()
        .unwrap()
}

async fn settled(instances: &[&Cache]) {
    for cache in instances {
        cache.ready().await.unwrap();
    }
    sleep(NOTICED).await;
}

fn names(log: &Log, name: &str) -> usize {
    log.take().iter().filter(|event| *event == name).count()
}

#[tokio::test(start_paused = true)]
async fn many_deletes_that_are_too_large_together_are_split() {
    for limit in [64 << 10, 5_000, 400] {
        let bus = SharedBus::new(1);
        let link = bus.link();
        let (left, right) = (on(link.clone()), on(bus.link()));
        settled(&[&left, &right]).await;
        let keys: Vec<String> = (0..4_000).map(|key| format!("{key:060}")).collect();
        right.set("another", 0u32).await.unwrap();
        for key in &keys {
            right.set(key, 1u32).await.unwrap();
        }
        let max_message_bytes = Some(limit);
        bus.set_faults(BusFaults { max_message_bytes, ..BusFaults::default() });
        link.cut();
        for key in &keys {
            left.delete(key).await.unwrap();
        }
        let gaps = right.stats().bus_gaps;
        link.restore();
        sleep(ms(2_000)).await;
        assert_eq!(left.health().event_bus.unwrap().waiting, 0, "{limit} bytes");
        assert!(keys.iter().all(|key| right.get_l1(key).is_none()), "{limit} bytes");
        assert!(right.get_l1("another").is_some(), "nothing else was deleted");
        sleep(NOTICED).await;
        assert_eq!(right.stats().bus_gaps, gaps, "no number is missing");
        let stats = left.stats();
        assert!((1..200).contains(&stats.bus_refused), "{}", stats.bus_refused);
        assert_eq!(stats.bus_widened, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_large_is_not_sent_but_its_delete_is() {
    let bus = SharedBus::new(1);
    let build = || {
        let builder = LazyLayersCache::<String, String>::builder();
        let builder = builder.clock(TokioClock::new()).ttl(ms(600_000));
        builder.name("test").event_bus(bus.link(), WireCodec::new()).build().unwrap()
    };
    let (left, right) = (build(), build());
    for cache in [&left, &right] {
        cache.ready().await.unwrap();
    }
    sleep(NOTICED).await;
    right.set("k", "old".to_owned()).await.unwrap();
    sleep(ms(5)).await;
    let max_message_bytes = Some(1_000);
    bus.set_faults(BusFaults { max_message_bytes, ..BusFaults::default() });
    let long = "x".repeat(2_000);
    left.set("k", long.clone()).await.unwrap();
    let load = move || async move { Ok::<_, std::io::Error>(long) };
    left.get_or_set("loaded", load).await.unwrap();
    left.set("small", "y".to_owned()).await.unwrap();
    sleep(ms(50)).await;
    assert_eq!((right.get_l1("k"), right.get_l1("loaded")), (None, None));
    assert!(right.get_l1("small").is_some(), "later messages follow");
    assert_eq!((left.stats().bus_refused, left.stats().values_not_sent), (2, 2));
    let gaps = right.stats().bus_gaps;
    sleep(NOTICED).await;
    assert_eq!(right.stats().bus_gaps, gaps);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_may_be_published_peers_notice_the_silence() {
    let bus = SharedBus::new(1);
    let link = Limited { link: bus.link(), forbidden: b"" };
    let forbids = |forbids| BusFaults { refuses_all: forbids, ..BusFaults::default() };
    let (left, right) = (on(link), on(bus.link()));
    settled(&[&left, &right]).await;
    left.delete("another").await.unwrap();
    right.set("k", 1u32).await.unwrap();
    sleep(ms(50)).await;
    bus.set_faults(forbids(true));
    let log = Log::of(&left);
    assert_eq!(left.delete("k").await.unwrap().bus, BusEffect::Queued);
    sleep(ms(1_000)).await;
    assert!(left.health().event_bus.unwrap().publishing_refused);
    let events = log.take();
    for name in ["event-bus:publish-refused", "event-bus:widened"] {
        assert!(events.iter().any(|event| event == name), "{name}");
    }
    let report = left.delete("later").await.unwrap();
    assert!(!report.is_complete());
    assert_eq!(names(&log, "event-bus:publish-skipped"), 1);
    sleep(NOTICED).await;
    assert_eq!(right.get_l1("k"), None, "the peer notices");
    let before = left.stats().bus_refused;
    sleep(ms(10_000)).await;
    let tries = left.stats().bus_refused - before;
    assert!((5..30).contains(&tries), "{tries} tries in ten seconds");
    bus.set_faults(forbids(false));
    right.set("later", 2u32).await.unwrap();
    sleep(ms(1_100)).await;
    assert_eq!(right.get_l1("later"), None, "published as a pattern that covers more");
    let health = left.health().event_bus.unwrap();
    assert_eq!((health.publishing_refused, health.waiting), (false, 0));
    assert!(left.delete("later").await.unwrap().is_complete());
}

/// A broker that refuses messages with certain bytes in them, and says so in the cause of an error.
struct Limited {
    link: BusLink,
    forbidden: &'static [u8],
}

impl Transport for Limited {
    fn name(&self) -> &'static str {
        "limited"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let is_in = |text: &[u8]| message.windows(text.len()).any(|part| part == text);
            if !self.forbidden.is_empty() && is_in(self.forbidden) {
                let cause = MessageRefused::new("a policy of the broker");
                return Err(std::io::Error::other(cause).into());
            }
            self.link.publish(message).await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.link.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.link.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.link.disconnect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_policy_forbids_is_covered_by_its_beginning() {
    let bus = SharedBus::new(1);
    let left = on(Limited { link: bus.link(), forbidden: b"secret" });
    let right = on(bus.link());
    settled(&[&left, &right]).await;
    for key in ["a:secret", "b", "c:secret:c", "d"] {
        right.set(key, 1u32).await.unwrap();
    }
    sleep(ms(5)).await;
    let log = Log::of(&left);
    // In one message, because they are queued before the publisher runs.
    tokio::join!(
        async { left.delete("a:secret").await.unwrap() },
        async { left.delete("b").await.unwrap() },
        async { left.delete("c:secret:c").await.unwrap() },
    );
    left.delete_by_pattern("c:secret*").await.unwrap();
    left.set("a:secret", 2u32).await.unwrap();
    sleep(ms(50)).await;
    for key in ["a:secret", "b", "c:secret:c"] {
        assert_eq!(right.get_l1(key), None, "{key}");
    }
    assert!(right.get_l1("d").is_some());
    assert!(names(&log, "event-bus:widened") >= 3);
    assert_eq!(left.health().event_bus.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_overflows_says_so() {
    let bus = SharedBus::new(1);
    let link = bus.link();
    let few = EventBusOptions::default().outbox_max_entries(5);
    let builder = on_tokio_time().name("test").event_bus(link.clone(), WireCodec::new());
    let left = builder.event_bus_options(few).build().unwrap();
    settled(&[&left]).await;
    link.cut();
    let log = Log::of(&left);
    for key in 0..50 {
        left.delete(&key.to_string()).await.unwrap();
    }
    assert_eq!(left.stats().bus_widened, 1);
    assert_eq!(names(&log, "event-bus:widened"), 1);
}

#[tokio::test(start_paused = true)]
async fn invalidations_that_a_close_loses_are_reported() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let link = bus.link();
    let builder = on_tokio_time().name("test").event_bus(link.clone(), WireCodec::new());
    let cache = builder.l2(store.clone(), WireCodec::new()).build().unwrap();
    settled(&[&cache]).await;
    let log = Log::of(&cache);
    link.cut();
    store.set_fault(StoreFault::Fails);
    for key in ["a", "b", "c"] {
        cache.delete(key).await.unwrap();
    }
    cache.close().await;
    cache.close().await;
    assert_eq!(names(&log, "close:lost"), 1);
    assert_eq!(cache.stats().invalidations_lost, 6, "three for L2 and three for the bus");
}
