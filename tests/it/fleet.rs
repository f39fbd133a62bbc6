//! Instances on one simulated bus, under paused time: which messages they send and apply, which
//! entries of L1 they trust, and how they behave while the bus is down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    BusEffect, CacheBuilder, CircuitBreaker, ErrorKind, EventBus, EventBusOptions, FailSafe,
    Source, Subscribed, Transport, TransportFuture, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::{advance, sleep};

use crate::support::{Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// Within this time an instance notices lost messages and recovers: the trust timeout, and a
/// little more.
const NOTICED: Duration = ms(3_200);
/// Longer than the interval of the gap check.
const CHECKED: Duration = ms(150);

fn on(link: &BusLink) -> CacheBuilder<String, u32> {
    on_tokio_time().ttl(ms(600_000)).name("test").event_bus(link.clone(), WireCodec::new())
}

/// Waits until each instance is subscribed and has received the beacons of the others.
async fn settled(instances: &[&Cache]) {
    for cache in instances {
        cache.ready().await.unwrap();
    }
    sleep(NOTICED).await;
}

/// Two instances, and the link of the second one to the bus.
async fn world() -> (SharedBus, Cache, Cache, BusLink, Origin) {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let (left, right) = (on(&one).build().unwrap(), on(&other).build().unwrap());
    settled(&[&left, &right]).await;
    (bus, left, right, other, Origin::default())
}

async fn load(cache: &Cache, origin: &Origin) -> u32 {
    *cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().unwrap()
}

async fn arrived() {
    sleep(ms(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_of_a_peer_has_the_stale_window_that_the_peer_gave_it() {
    let bus = SharedBus::new(1);
    let instance = |fail_safe| {
        let builder = on(&bus.link()).ttl(ms(500)).fail_safe(fail_safe);
        builder.build().unwrap()
    };
    let peer = instance(FailSafe::enabled().stale_ttl(ms(60_000)));
    let reader = instance(FailSafe::enabled().stale_ttl(ms(60_000)));
    let without = instance(FailSafe::default());
    settled(&[&peer, &reader, &without]).await;
    let origin = Origin::default();
    for (key, window, is_stale) in [("price", None, true), ("permission", Some(0), false)] {
        let request = peer.get_or_set(key, origin.load(Gate::Ok));
        match window {
            Some(window) => request.stale_for(ms(window)).await.unwrap(),
            None => request.await.unwrap(),
        };
        arrived().await;
        for cache in [&reader, &without] {
            assert!(cache.get_l1(key).is_some(), "{key} was primed");
        }
        sleep(ms(600)).await;
        let served = reader.get_or_set(key, origin.load(Gate::Err)).await;
        assert_eq!(served.is_ok(), is_stale, "{key}");
        assert!(without.get_or_set(key, origin.load(Gate::Err)).await.is_err(), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_one_instance_loaded_is_in_l1_of_the_other() {
    let (_bus, left, right, _, origin) = world().await;
    let (sent, received) = (Log::of(&left), Log::of(&right));
    assert_eq!(load(&left, &origin).await, 1);
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&1));
    assert_eq!(load(&right, &origin).await, 1);
    assert_eq!(origin.loads(), 1);
    assert_eq!(sent.take(), ["miss", "loader:start", "loader:success", "set", "set:broadcast"]);
    assert_eq!(received.take(), ["set:received", "hit", "hit"]);
    assert_eq!((left.stats().values_sent, right.stats().values_received), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn values_of_a_codec_that_writes_json_are_sent_to_peers() {
    let bus = SharedBus::new(1);
    let build = |codec: WireCodec| {
        let builder =
            on_tokio_time().ttl(ms(600_000)).l2(SharedStore::new(TokioClock::new()), codec);
        builder.name("test").event_bus(bus.link(), codec).build().unwrap()
    };
    let (json, packed) = (build(WireCodec::new().json()), build(WireCodec::new()));
    settled(&[&json, &packed]).await;
    let origin = Origin::default();
    load(&json, &origin).await;
    arrived().await;
    assert_eq!(packed.get_l1("k").as_deref(), Some(&1));
    packed.set("k", 2u32).await.unwrap();
    arrived().await;
    assert_eq!(json.get_l1("k").as_deref(), Some(&2));
    json.set("k", 3u32).await.unwrap();
    arrived().await;
    assert_eq!(packed.get_l1("k").as_deref(), Some(&3));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_sent_while_little_is_known_of_the_peers_has_an_event() {
    let bus = SharedBus::new(1);
    let cache = on(&bus.link()).build().unwrap();
    let log = Log::of(&cache);
    let origin = Origin::default();
    load(&cache, &origin).await;
    assert!(log.take().contains(&"set:broadcast-skipped".to_owned()));
    assert_eq!((cache.stats().values_sent, cache.stats().values_not_sent), (0, 1));
    settled(&[&cache]).await;
    sleep(NOTICED).await;
    cache.delete("k").await.unwrap();
    load(&cache, &origin).await;
    assert!(log.take().contains(&"set:broadcast".to_owned()));
    assert_eq!((cache.stats().values_sent, cache.stats().values_not_sent), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn deletes_patterns_and_clears_reach_every_instance() {
    let (_bus, left, right, _, origin) = world().await;
    for delete in 0..3 {
        load(&left, &origin).await;
        arrived().await;
        assert!(right.get_l1("k").is_some());
        let log = Log::of(&right);
        match delete {
            0 => left.delete("k").await.unwrap(),
            1 => left.delete_by_pattern("[jk]*").await.unwrap(),
            _ => left.clear().await.unwrap(),
        };
        arrived().await;
        assert_eq!(right.get_l1("k"), None);
        assert_eq!(log.take(), ["invalidation:received"]);
        // So that the value of the next round is not older than this delete.
        sleep(NOTICED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_set_replaces_the_values_of_the_peers() {
    let (_bus, left, right, _, _) = world().await;
    right.set("k", 1u32).await.unwrap();
    arrived().await;
    assert_eq!(left.get_l1("k").as_deref(), Some(&1));
    left.set("k", 2u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&2));
    // With `broadcast_set(false)`, a `set` is broadcast as a delete.
    let (_bus, left, right, link, _) = world().await;
    let quiet = on(&link).broadcast_set(false).build().unwrap();
    settled(&[&quiet]).await;
    left.set("k", 1u32).await.unwrap();
    arrived().await;
    quiet.set("k", 2u32).await.unwrap();
    arrived().await;
    assert_eq!((left.get_l1("k"), right.get_l1("k")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_size_limit_is_broadcast_as_a_delete() {
    let bus = SharedBus::new(1);
    let left = on(&bus.link()).broadcast_set_max_bytes(2).build().unwrap();
    let right = on(&bus.link()).build().unwrap();
    settled(&[&left, &right]).await;
    let log = Log::of(&left);
    left.set("k", 7u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&7));
    left.set("k", 70_000u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(log.take(), ["set", "set:broadcast", "set", "set:broadcast-skipped"]);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_older_than_a_delete_is_refused_however_late_it_comes() {
    for late in [10, 400, 20_000] {
        let (bus, left, right, _, origin) = world().await;
        let log = Log::of(&right);
        bus.delay_next(ms(late));
        load(&left, &origin).await;
        settle().await;
        right.delete("k").await.unwrap();
        sleep(ms(late) + NOTICED).await;
        assert_eq!(right.get_l1("k"), None, "after {late} ms");
        assert!(log.take().contains(&"invalidation:stale".to_owned()));
        // The same, if a third instance deletes the key.
        let third = on(&bus.link()).build().unwrap();
        settled(&[&third]).await;
        bus.delay_next(ms(late));
        left.get_or_set("q", origin.load(Gate::Ok)).await.unwrap();
        settle().await;
        bus.delay_next(ms(0));
        third.delete("q").await.unwrap();
        sleep(ms(late) + NOTICED).await;
        assert_eq!(right.get_l1("q"), None, "after {late} ms");
        assert_eq!(third.get_l1("q"), None, "after {late} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_a_peer_fences_a_load_in_flight() {
    let (_bus, left, right, _, origin) = world().await;
    let slow = tokio::spawn({
        let (cache, load) = (right.clone(), origin.load(Gate::Slow));
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    settle().await;
    left.delete("k").await.unwrap();
    arrived().await;
    assert_eq!(slow.await.unwrap().as_deref(), Some(&1));
    arrived().await;
    assert_eq!((right.get_l1("k"), left.get_l1("k")), (None, None));
    assert_eq!(right.stats().superseded, 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_arrives_twice_is_applied_once() {
    let (bus, left, right, _, _) = world().await;
    bus.set_faults(BusFaults { duplicates: 1.0, ..BusFaults::default() });
    left.set("k", 1u32).await.unwrap();
    arrived().await;
    assert_eq!(right.stats().events_duplicate, 1);
    assert_eq!(right.stats().values_received, 1);
}

#[tokio::test(start_paused = true)]
async fn lost_deletes_are_noticed_and_l1_is_looked_up_in_l2_again() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let link = bus.link();
    let build = |link: &BusLink| on(link).l2(store.clone(), WireCodec::new()).build().unwrap();
    let (left, right, origin) = (build(&bus.link()), build(&link), Origin::default());
    settled(&[&left, &right]).await;
    load(&left, &origin).await;
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&1));
    link.drop_incoming();
    left.set("k", 100u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&1), "the loss is not noticed yet");
    sleep(NOTICED).await;
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(load(&right, &origin).await, 100, "from L2");
    assert_eq!(origin.loads(), 1, "the loader is not called again");
    assert!(right.stats().bus_gaps >= 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_bus_is_down_entries_are_looked_up_in_l2_once_per_trust_timeout() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let link = bus.link();
    let right = on(&link).l2(store.clone(), WireCodec::new()).build().unwrap();
    let origin = Origin::default();
    settled(&[&right]).await;
    load(&right, &origin).await;
    sleep(ms(60_000)).await;
    assert!(right.get_l1("k").is_some(), "trusted while the bus is up");
    link.cut();
    arrived().await;
    assert!(!right.health().event_bus.unwrap().trusted);
    let before = store.operations();
    for _ in 0..100 {
        assert_eq!(load(&right, &origin).await, 1);
        sleep(ms(100)).await;
    }
    let asked = store.operations() - before;
    assert!((3..=5).contains(&asked), "in ten seconds L2 is read every three, not {asked} times");
    assert_eq!(origin.loads(), 1);
    link.restore();
    sleep(ms(1_500)).await;
    assert!(right.health().event_bus.unwrap().trusted);
    load(&right, &origin).await;
    sleep(ms(60_000)).await;
    assert!(right.get_l1("k").is_some());
}

#[tokio::test(start_paused = true)]
async fn while_the_bus_is_down_invalidations_are_queued_and_sent_when_it_is_back() {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let breaker = CircuitBreaker::default().cooldown(ms(3_600_000));
    let left = on(&one).event_bus_circuit_breaker(breaker).build().unwrap();
    let right = on(&other).build().unwrap();
    settled(&[&left, &right]).await;
    let keys: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for key in &keys {
        right.set(key, 1u32).await.unwrap();
    }
    arrived().await;
    one.cut();
    let log = Log::of(&left);
    for key in keys.iter().chain(&keys) {
        left.delete(key).await.unwrap();
    }
    arrived().await;
    assert_eq!(right.get_l1("7").as_deref(), Some(&1));
    sleep(ms(20_000)).await;
    let health = left.health().event_bus.unwrap();
    assert!(health.publishing_skipped && !health.subscribed);
    assert!(log.take().contains(&"event-bus:publish-error".to_owned()));
    // Its peers notice that it is silent.
    assert_eq!(right.get_l1("7"), None);
    let before = bus.published();
    one.restore();
    sleep(ms(1_100)).await;
    assert!(keys.iter().all(|key| right.get_l1(key).is_none()));
    let sent = bus.published() - before;
    assert!(sent < 10, "{sent} messages for two hundred deletes");
    assert_eq!(left.health().event_bus.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_becomes_a_delete_of_all_keys() {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let few = EventBusOptions::default().outbox_max_entries(10);
    let left = on(&one).event_bus_options(few).build().unwrap();
    let right = on(&other).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("another", 1u32).await.unwrap();
    one.cut();
    for number in 0..1_000 {
        left.delete(&number.to_string()).await.unwrap();
    }
    assert!(left.health().event_bus.unwrap().waiting <= 10);
    one.restore();
    sleep(ms(1_100)).await;
    assert_eq!(right.get_l1("another"), None);
}

#[tokio::test(start_paused = true)]
async fn a_delete_can_wait_for_the_bus_and_says_whether_the_bus_has_confirmed_it() {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let confirmed = EventBusOptions::default().confirm_deletes(true).publish_timeout(ms(200));
    let left = on(&one).event_bus_options(confirmed).build().unwrap();
    let right = on(&other).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    assert_eq!(left.delete("k").await.unwrap().bus, BusEffect::Confirmed);
    right.set("k", 2u32).await.unwrap();
    arrived().await;
    one.freeze();
    let asked = tokio::time::Instant::now();
    assert_eq!(left.delete("k").await.unwrap().bus, BusEffect::Unconfirmed);
    assert_eq!(asked.elapsed(), ms(200));
    assert_eq!(left.get_l1("k"), None);
    one.restore();
    sleep(NOTICED).await;
    assert_eq!(right.get_l1("k"), None, "the queued delete is sent when the bus is back");
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_caller_drops_the_future_is_broadcast() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let left = on(&bus.link()).l2(store.clone(), WireCodec::new()).build().unwrap();
    let right = on(&bus.link()).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    arrived().await;
    store.set_fault(StoreFault::Hangs);
    {
        let delete = left.delete("k");
        tokio::select! {
            biased;
            _ = delete => panic!("L2 hangs"),
            () = settle() => {}
        }
    }
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_decoded_makes_l1_untrusted() {
    let (bus, left, right, _, origin) = world().await;
    load(&left, &origin).await;
    arrived().await;
    let log = Log::of(&right);
    bus.inject(b"HC1M\x93\x01");
    sleep(CHECKED).await;
    assert_eq!(log.take(), ["invalidation:refused", "event-bus:gap"]);
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(right.stats().events_refused, 1);
    // Messages of another cache are ignored.
    let stranger = on(&bus.link()).name("theirs").build().unwrap();
    settled(&[&stranger]).await;
    load(&right, &origin).await;
    let gaps = right.stats().bus_gaps;
    stranger.delete("k").await.unwrap();
    stranger.clear().await.unwrap();
    arrived().await;
    assert!(right.get_l1("k").is_some());
    assert_eq!(right.stats().bus_gaps, gaps);
}

#[tokio::test(start_paused = true)]
async fn with_fail_safe_an_untrusted_entry_is_served_when_the_loader_fails() {
    for may_serve in [false, true] {
        let bus = SharedBus::new(1);
        let link = bus.link();
        let fail_safe = if may_serve { FailSafe::enabled() } else { FailSafe::default() };
        let cache = on(&link).fail_safe(fail_safe).build().unwrap();
        settled(&[&cache]).await;
        let origin = Origin::default();
        load(&cache, &origin).await;
        bus.inject(b"nonsense");
        sleep(CHECKED).await;
        let answer = cache.get_or_set("k", origin.load(Gate::Err)).outcome().await;
        if may_serve {
            let outcome = answer.unwrap();
            assert_eq!((outcome.value.as_deref(), outcome.source), (Some(&1), Source::L1));
            assert!(outcome.stale.is_some());
        } else {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Loader);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_loaded_before_a_subscription_is_untrusted_after_it() {
    let (_bus, left, right, link, origin) = world().await;
    link.cut();
    let slow = tokio::spawn({
        let (cache, load) = (right.clone(), origin.load(Gate::Slow));
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    settle().await;
    left.delete("k").await.unwrap();
    link.restore();
    sleep(SLOW / 2).await;
    assert!(right.health().event_bus.unwrap().subscribed);
    slow.await.unwrap();
    assert_eq!(right.get_l1("k"), None);
}

/// A link to the bus whose subscriptions begin late.
struct SlowToSubscribe(BusLink);

impl Transport for SlowToSubscribe {
    fn name(&self) -> &'static str {
        "slow to subscribe"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(event)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async {
            sleep(SLOW).await;
            self.0.subscribe().await
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_loaded_while_a_subscription_begins_is_untrusted_after_it() {
    let bus = SharedBus::new(1);
    let left = on(&bus.link()).build().unwrap();
    let slow = SlowToSubscribe(bus.link());
    let right = on_tokio_time()
        .ttl(ms(600_000))
        .name("test")
        .event_bus(slow, WireCodec::new())
        .build()
        .unwrap();
    settled(&[&left]).await;
    let origin = Origin::default();
    load(&right, &origin).await;
    sleep(SLOW / 2).await;
    load(&right, &origin).await;
    left.delete("k").await.unwrap();
    assert!(right.get_l1("k").is_some(), "the subscription has not begun");
    right.ready().await.unwrap();
    assert_eq!(right.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_subscribe_trusts_l1() {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let left = on(&one).subscribe_to_events(false).build().unwrap();
    let right = on(&other).build().unwrap();
    left.ready().await.unwrap();
    settled(&[&right]).await;
    left.set("k", 1u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&1));
    right.delete("k").await.unwrap();
    advance(ms(60_000)).await;
    assert_eq!(left.get_l1("k").as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn close_publishes_the_outbox_and_leaves_no_task() {
    let (bus, left, right, _, origin) = world().await;
    load(&right, &origin).await;
    arrived().await;
    left.delete("k").await.unwrap();
    left.close().await;
    left.close().await;
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
    let gaps = right.stats().bus_gaps;
    sleep(ms(60_000)).await;
    assert_eq!(right.stats().bus_gaps, gaps, "the last beacon promised no further message");
    assert_eq!(left.ready().await.unwrap_err().kind(), ErrorKind::Closed);
    right.close().await;
    drop(bus);
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_publishes_its_outbox_and_says_goodbye() {
    let (_bus, left, right, _, origin) = world().await;
    load(&right, &origin).await;
    arrived().await;
    left.delete("k").await.unwrap();
    drop(left);
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
    let gaps = right.stats().bus_gaps;
    sleep(ms(60_000)).await;
    assert_eq!(right.stats().bus_gaps, gaps, "the last beacon promised no further message");
}

#[test]
fn a_cache_that_is_dropped_outside_its_runtime_publishes_its_outbox() {
    let bus = SharedBus::new(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let build =
        || Cache::builder().name("test").event_bus(bus.link(), WireCodec::new()).build().unwrap();
    let (left, right) = (build(), build());
    runtime.block_on(async {
        left.ready().await.unwrap();
        right.ready().await.unwrap();
        sleep(NOTICED).await;
        right.set("k", 1u32).await.unwrap();
    });
    let mut delete = Box::pin(left.delete("k"));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(delete.as_mut().poll(context).is_ready(), "nothing to wait for");
    drop(delete);
    drop(left);
    runtime.block_on(async {
        while right.get_l1("k").is_some() {
            sleep(ms(1)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_while_the_bus_is_down_reports_what_is_lost() {
    let (_bus, left, right, link, _) = world().await;
    let log = Log::of(&right);
    link.cut();
    right.delete("k").await.unwrap();
    drop((left, right));
    sleep(ms(5_000)).await;
    assert!(log.take().contains(&"close:lost".to_owned()));
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

/// Counts how often it is disconnected.
struct Counted(BusLink, Arc<AtomicUsize>);

impl Transport for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        self.0.publish(event)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.0.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.disconnect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_cache_of_a_bus_disconnects_it_whether_others_were_closed_or_dropped() {
    let bus = SharedBus::new(1);
    for others_are_used in [false, true] {
        let disconnects = Arc::new(AtomicUsize::new(0));
        let shared = EventBus::new(Counted(bus.link(), Arc::clone(&disconnects)));
        let build = || {
            let builder = on_tokio_time().name("test").event_bus(shared.clone(), WireCodec::new());
            builder.build().unwrap()
        };
        let (dropped, closed, last) = (build(), build(), build());
        if others_are_used {
            settled(&[&dropped, &closed]).await;
        }
        last.ready().await.unwrap();
        drop(dropped);
        closed.close().await;
        closed.close().await;
        sleep(ms(2_000)).await;
        assert_eq!(disconnects.load(Ordering::SeqCst), 0, "one cache uses it");
        last.close().await;
        assert_eq!(disconnects.load(Ordering::SeqCst), 1);
        drop((closed, last));
        sleep(ms(2_000)).await;
        assert_eq!(disconnects.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_the_bus_tasks() {
    let (_bus, left, right, _, origin) = world().await;
    load(&left, &origin).await;
    drop((left, right));
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[test]
fn a_cache_outlives_the_runtime_of_its_subscriber() {
    let bus = SharedBus::new(1);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let build = || {
        let bus = bus.link();
        Cache::builder().name("test").event_bus(bus, WireCodec::new()).build().unwrap()
    };
    let (left, right) = (build(), build());
    runtime().block_on(async {
        left.ready().await.unwrap();
        right.ready().await.unwrap();
    });
    assert!(!right.health().event_bus.unwrap().subscribed);
    runtime().block_on(async {
        right.set("k", 1u32).await.unwrap();
        left.ready().await.unwrap();
        right.ready().await.unwrap();
        right.set("k", 2u32).await.unwrap();
        left.delete("k").await.unwrap();
        while right.get_l1("k").is_some() {
            tokio::task::yield_now().await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn instances_that_share_a_source_name_receive_each_other() {
    let bus = SharedBus::new(1);
    let build = || on(&bus.link()).instance_id("the same").build().unwrap();
    let (left, right) = (build(), build());
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    left.delete("k").await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
}

/// A link to the bus that takes longer to connect than a publish may take.
struct Far(BusLink, AtomicBool);

impl Far {
    async fn connected(&self) {
        if !self.1.load(Ordering::SeqCst) {
            sleep(ms(1_500)).await;
            self.1.store(true, Ordering::SeqCst);
        }
    }
}

impl Transport for Far {
    fn name(&self) -> &'static str {
        "far"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            self.connected().await;
            self.0.publish(event).await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.0.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.connected().await;
            self.0.ping().await
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_connects_more_slowly_than_the_publish_timeout_is_reached() {
    let bus = SharedBus::new(1);
    let far = Far(bus.link(), AtomicBool::new(false));
    let left = on_tokio_time().name("test").event_bus(far, WireCodec::new()).build().unwrap();
    let right = on(&bus.link()).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    left.delete("k").await.unwrap();
    sleep(ms(8_000)).await;
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(left.health().event_bus.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_not_caught_up_broadcasts_no_loaded_value() {
    let (bus, left, right, _, origin) = world().await;
    // So that each instance knows the sequence number of the other.
    left.delete("another").await.unwrap();
    arrived().await;
    let link = bus.link();
    let new = on(&link).build().unwrap();
    new.ready().await.unwrap();
    let slow = tokio::spawn({
        let (cache, load) = (new.clone(), origin.load(Gate::Slow));
        async move { cache.get_or_set("k", load).await.unwrap() }
    });
    settle().await;
    // This delete is lost before `new` knows the sequence number of `left`; the next one only tells
    // that number.
    link.drop_incoming();
    left.delete("k").await.unwrap();
    arrived().await;
    link.restore();
    left.delete("another").await.unwrap();
    slow.await.unwrap();
    arrived().await;
    assert_eq!((right.get_l1("k"), left.get_l1("k")), (None, None));
    assert_eq!(new.stats().values_sent, 0);
    // Once it is caught up, which it reports as a gap, it broadcasts the values that it loads.
    sleep(2 * NOTICED).await;
    new.get_or_set("q", origin.load(Gate::Ok)).await.unwrap();
    arrived().await;
    assert!(right.get_l1("q").is_some());
}
