//! What an instance keeps in L1 when a subscription begins: entries from before it are looked up
//! again, entries from after it stay.

use std::{sync::Arc, time::Duration};

use lazy_layers_cache::{
    CacheBuilder, Clock, Lease, Prober, Publication, Store, StoreFuture, Subscribed, Transport,
    TransportFuture, WireCodec,
    testing::{ForwardStore, SharedBus, SharedStore, TokioClock},
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::support::{Broken, Cache, ms, on_tokio_time};

/// A probe is sent after this time.
const PROBING: Duration = ms(600);

/// A transport whose subscriptions begin when the test says so, and whose probes are sent late.
#[derive(Clone)]
pub(crate) struct Gated {
    transport: Arc<dyn Transport>,
    /// How many subscriptions may begin.
    allowed: Arc<watch::Sender<u64>>,
    /// How many have begun.
    begun: Arc<watch::Sender<u64>>,
}

impl Gated {
    pub(crate) fn new(transport: impl Transport) -> Self {
        let (allowed, begun) = (Arc::default(), Arc::default());
        Self { transport: Arc::new(transport), allowed, begun }
    }

    /// Lets the next subscription begin, and returns some milliseconds later: an entry that is
    /// stored in the very millisecond counts as stored before.
    pub(crate) async fn begin(&self) {
        self.allowed.send_replace(*self.begun.borrow() + 1);
        self.after_the_next_has_begun(ms(5)).await;
    }

    /// Waits until the next subscription has begun, and then for this time.
    fn after_the_next_has_begun(&self, wait: Duration) -> impl Future<Output = ()> + use<> {
        let next = *self.begun.borrow() + 1;
        let mut begun = self.begun.subscribe();
        async move {
            begun.wait_for(|begun| *begun >= next).await.unwrap();
            sleep(wait).await;
        }
    }
}

struct SlowProber(Box<dyn Prober>);

impl Prober for SlowProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            sleep(PROBING).await;
            self.0.send(number).await
        })
    }
}

impl Transport for Gated {
    fn name(&self) -> &'static str {
        self.transport.name()
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.transport.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.transport.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async {
            let next = *self.begun.borrow() + 1;
            let is_allowed = |allowed: &u64| *allowed >= next;
            self.allowed.subscribe().wait_for(is_allowed).await?;
            let Subscribed { messages, prober, resumed } = self.transport.subscribe().await?;
            self.begun.send_replace(next);
            Ok(Subscribed { messages, prober: Box::new(SlowProber(prober)), resumed })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.transport.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.transport.disconnect()
    }
}

pub(crate) fn on(transport: impl Transport) -> CacheBuilder<String, u32> {
    on_tokio_time().name("joining").ttl(ms(600_000)).event_bus(transport, WireCodec::new())
}

/// Begins to load a key until `end`, and returns while the loader runs.
async fn load(
    cache: &Cache,
    key: &'static str,
    end: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let (begun, has_begun) = oneshot::channel();
    let load = move || async move {
        begun.send(()).unwrap();
        end.await;
        Ok::<_, Broken>(1u32)
    };
    let cache = cache.clone();
    let loading = tokio::spawn(async move {
        cache.get_or_set(key, load).await.unwrap();
    });
    has_begun.await.unwrap();
    loading
}

/// Lets a subscription of `cache` begin, which has none and resumes none, and checks what it leaves
/// in L1.
pub(crate) async fn check_beginning(cache: &Cache, link: &Gated, other: &Cache) {
    let is_kept = |key: &str| cache.get_l1(key).is_some();
    cache.set("set before", 1u32).await.unwrap();
    cache.set("deleted before", 1u32).await.unwrap();
    assert!(other.delete("deleted before").await.unwrap().settled(ms(10_000)).await);
    // Else the next message of `other` says that this one may have been missed.
    sleep(ms(100)).await;
    let after = |wait| link.after_the_next_has_begun(wait);
    let across = load(cache, "loaded across", after(ms(200))).await;
    let long = load(cache, "long", after(PROBING * 3 / 2)).await;
    link.begin().await;
    cache.set("set", 1u32).await.unwrap();
    cache.set("deleted", 1u32).await.unwrap();
    load(cache, "loaded", sleep(ms(50))).await.await.unwrap();
    other.delete("deleted").await.unwrap();
    cache.ready().await.unwrap();
    assert!(!is_kept("deleted before"), "deleted by a peer before the subscription began");
    cache.set("set after", 1u32).await.unwrap();
    load(cache, "loaded after", sleep(ms(50))).await.await.unwrap();
    across.await.unwrap();
    long.await.unwrap();
    for _ in 0..80 {
        sleep(ms(50)).await;
        let kept = ["set", "loaded", "set after", "loaded after"].map(is_kept);
        assert_eq!(kept, [true; 4], "stored after the subscription began");
        let kept =
            ["set before", "deleted before", "loaded across", "long", "deleted"].map(is_kept);
        assert_eq!(kept, [false; 5], "from before the subscription began, or deleted");
    }
}

/// Waits until a subscription has ended.
pub(crate) async fn ended(cache: &Cache) {
    while cache.health().event_bus.unwrap().subscribed {
        sleep(ms(1)).await;
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
    let gated = Gated::new(link.clone());
    let cache = on(gated.clone()).build().unwrap();
    for _ in 0..4 {
        check_beginning(&cache, &gated, &other).await;
        sleep(ms(5_000)).await;
        link.cut();
        ended(&cache).await;
        link.restore();
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_before_the_first_probe_is_back_is_noticed() {
    for first_heard_late in [false, true] {
        let bus = SharedBus::new(1);
        let other = on(bus.link()).build().unwrap();
        other.ready().await.unwrap();
        let link = bus.link();
        let gated = Gated::new(link.clone());
        let cache = on(gated.clone()).build().unwrap();
        cache.set("x", 1u32).await.unwrap();
        sleep(ms(300)).await;
        gated.begin().await;
        sleep(ms(50)).await;
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

/// A clock that moves in steps, as the system's does.
struct Steps(TokioClock);

impl Clock for Steps {
    fn now(&self) -> u64 {
        self.0.now() / 10 * 10
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_when_ready_returns_stays_also_if_the_clock_moves_in_steps() {
    for phase in 0..10 {
        let bus = SharedBus::new(1);
        let other = on(bus.link()).build().unwrap();
        other.ready().await.unwrap();
        let gated = Gated::new(bus.link());
        let clock = Steps(TokioClock::new());
        let cache = on(gated.clone()).clock(clock).build().unwrap();
        cache.set("before", 1u32).await.unwrap();
        sleep(ms(100 + phase)).await;
        other.delete("x").await.unwrap();
        gated.begin().await;
        // This message says that the one before may have been lost after the subscription began:
        // so the cache marks what it has stored until its first probe is back.
        other.delete("y").await.unwrap();
        cache.ready().await.unwrap();
        cache.set("k", 1u32).await.unwrap();
        assert!(cache.get_l1("k").is_some(), "phase {phase}");
        sleep(ms(5_000)).await;
        assert!(cache.get_l1("k").is_some(), "phase {phase}, later");
    }
}

/// The answer of L2 to a write arrives after this time.
const ANSWERING: Duration = ms(600);

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
            sleep(ANSWERING).await;
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
    let gated = Gated::new(bus.link());
    let cache = on(gated.clone()).l2(l2, WireCodec::new()).build().unwrap();
    let loading = load(&cache, "loaded", sleep(ms(10))).await;
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
    sleep(ms(200)).await;
    gated.begin().await;
    loading.await.unwrap();
    setting.await.unwrap();
    cache.ready().await.unwrap();
    sleep(ms(10)).await;
    assert_eq!((cache.get_l1("loaded"), cache.get_l1("set")), (None, None));
}
