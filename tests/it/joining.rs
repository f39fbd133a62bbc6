//! What an instance keeps in L1 when a subscription begins: entries from before it are looked up
//! again, entries from after it stay.

use std::{sync::Arc, time::Duration};

use lazy_layers_cache::{
    CacheBuilder, Lease, Prober, Publication, Store, StoreFuture, Subscribed, Transport,
    TransportFuture, WireCodec,
    testing::{BusLink, ForwardStore, SharedBus, SharedStore, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Broken, Cache, ms, on_tokio_time};

/// A subscription begins after this time.
const SUBSCRIBING: Duration = ms(300);
/// A probe is sent after this time.
const PROBING: Duration = ms(600);

/// A link to the bus whose subscriptions begin late, and whose probes are sent late.
#[derive(Clone)]
struct Slow(BusLink);

struct SlowProber(Box<dyn Prober>);

impl Prober for SlowProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            sleep(PROBING).await;
            self.0.send(number).await
        })
    }
}

impl Transport for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async {
            sleep(SUBSCRIBING).await;
            let Subscribed { messages, prober, resumed } = self.0.subscribe().await?;
            Ok(Subscribed { messages, prober: Box::new(SlowProber(prober)), resumed })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}

fn on(transport: impl Transport) -> CacheBuilder<String, u32> {
    on_tokio_time().name("joining").ttl(ms(600_000)).event_bus(transport, WireCodec::new())
}

/// Loads a key for this long.
fn load(cache: &Cache, key: &'static str, lasts: Duration) -> tokio::task::JoinHandle<()> {
    let cache = cache.clone();
    tokio::spawn(async move {
        let load = move || async move {
            sleep(lasts).await;
            Ok::<_, Broken>(1u32)
        };
        cache.get_or_set(key, load).await.unwrap();
    })
}

/// Lets a subscription begin, and checks what it leaves in L1. `subscribe` starts it.
async fn check(cache: &Cache, other: &Cache, subscribe: impl AsyncFnOnce()) {
    let is_kept = |key: &str| cache.get_l1(key).is_some();
    subscribe().await;
    cache.set("set before", 1u32).await.unwrap();
    let loads =
        [load(cache, "loaded across", SUBSCRIBING + ms(200)), load(cache, "long", SUBSCRIBING * 4)];
    sleep(SUBSCRIBING + ms(50)).await;
    cache.set("set", 1u32).await.unwrap();
    cache.set("deleted", 1u32).await.unwrap();
    load(cache, "loaded", ms(50)).await.unwrap();
    other.delete("deleted").await.unwrap();
    cache.ready().await.unwrap();
    cache.set("set after", 1u32).await.unwrap();
    for load in loads {
        load.await.unwrap();
    }
    for _ in 0..80 {
        sleep(ms(50)).await;
        let kept = ["set", "loaded", "set after"].map(is_kept);
        assert_eq!(kept, [true; 3], "stored after the subscription began");
        let kept = ["set before", "loaded across", "long", "deleted"].map(is_kept);
        assert_eq!(kept, [false; 4], "from before the subscription began, or deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_begins_leaves_what_was_stored_since_and_nothing_from_before() {
    let bus = SharedBus::new(1);
    let other = on(bus.link()).build().unwrap();
    other.ready().await.unwrap();
    other.delete("x").await.unwrap();
    sleep(ms(5_000)).await;
    let link = bus.link();
    let cache = on(Slow(link.clone())).build().unwrap();
    check(&cache, &other, async || {}).await;
    sleep(ms(5_000)).await;
    for _ in 0..3 {
        check(&cache, &other, async || {
            link.cut();
            sleep(ms(10)).await;
            link.restore();
            // The first attempt waits for at most 50 ms.
            while cache.health().event_bus.unwrap().subscribed {
                sleep(ms(1)).await;
            }
        })
        .await;
        sleep(ms(5_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_before_the_first_probe_is_back_is_noticed() {
    for first_heard_late in [false, true] {
        let bus = SharedBus::new(1);
        let other = on(bus.link()).build().unwrap();
        other.ready().await.unwrap();
        let link = bus.link();
        let cache = on(Slow(link.clone())).build().unwrap();
        cache.set("x", 1u32).await.unwrap();
        sleep(SUBSCRIBING + ms(50)).await;
        cache.set("k", 1u32).await.unwrap();
        sleep(ms(50)).await;
        link.drop_incoming();
        other.delete("k").await.unwrap();
        sleep(if first_heard_late { PROBING + ms(700) } else { ms(50) }).await;
        link.restore();
        cache.ready().await.unwrap();
        sleep(ms(1_200)).await;
        assert_eq!(cache.get_l1("k"), None, "heard late: {first_heard_late}");
        cache.set("later", 1u32).await.unwrap();
        sleep(ms(5_000)).await;
        assert!(cache.get_l1("later").is_some());
    }
}

/// An L2 whose answers to writes arrive after the subscription began.
struct SlowAnswers(SharedStore);

impl ForwardStore for SlowAnswers {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let published = self.0.publish(key, lease, result).await;
            sleep(SUBSCRIBING * 2).await;
            published
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_l2_that_is_late_brings_no_value_across_the_beginning_of_a_subscription() {
    let (bus, store) = (SharedBus::new(1), SharedStore::new(TokioClock::new()));
    let other = on(bus.link()).l2(store.clone(), WireCodec::new()).build().unwrap();
    other.ready().await.unwrap();
    sleep(ms(5_000)).await;
    let l2 = SlowAnswers(store.clone());
    let cache = on(Slow(bus.link())).l2(l2, WireCodec::new()).build().unwrap();
    let loading = load(&cache, "loaded", ms(10));
    let setting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.set("set", 1u32).await.unwrap() }
    });
    sleep(ms(100)).await;
    // L2 has the values, and the subscription has not begun, so these messages are missed.
    for key in ["loaded", "set"] {
        assert!(store.peek(key).is_some());
        other.delete(key).await.unwrap();
    }
    loading.await.unwrap();
    setting.await.unwrap();
    cache.ready().await.unwrap();
    sleep(ms(10)).await;
    assert_eq!((cache.get_l1("loaded"), cache.get_l1("set")), (None, None));
}
