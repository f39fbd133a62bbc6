//! Instances that tell each other what has changed, on paused time: what they hear, what they
//! believe, and what they do while they hear nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    CacheBuilder, CircuitBreaker, ErrorKind, EventBusOptions, FailSafe, Source, Subscribed,
    Transport, TransportFuture, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::{advance, sleep};

use crate::support::{Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// What an instance needs to notice and to mend anything: the trust timeout, and a little more.
const NOTICED: Duration = ms(3_200);
/// Longer than between two checks whether anything was lost.
const CHECKED: Duration = ms(150);

fn on(link: &BusLink) -> CacheBuilder<String, u32> {
    on_tokio_time().ttl(ms(600_000)).event_bus(link.clone(), WireCodec::new())
}

/// Instances that have listened for long enough to know each other.
async fn settled(instances: &[&Cache]) {
    for cache in instances {
        cache.ready().await.unwrap();
    }
    sleep(NOTICED).await;
}

/// Two instances and the way of the second to the bus.
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
async fn a_value_that_one_instance_loaded_is_in_the_memory_of_the_other() {
    let (_bus, left, right, _, origin) = world().await;
    let (told, heard) = (Log::of(&left), Log::of(&right));
    assert_eq!(load(&left, &origin).await, 1);
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&1));
    assert_eq!(load(&right, &origin).await, 1);
    assert_eq!(origin.loads(), 1);
    assert_eq!(told.take(), ["miss", "loader:start", "loader:success", "set", "set:broadcast"]);
    assert_eq!(heard.take(), ["set:received", "hit", "hit"]);
    assert_eq!((left.stats().values_sent, right.stats().values_received), (1, 1));
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
        }
        arrived().await;
        assert_eq!(right.get_l1("k"), None);
        assert_eq!(log.take(), ["invalidation:received"]);
        // So that what follows is not taken for something of before.
        sleep(NOTICED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_was_set_replaces_what_the_others_hold() {
    let (_bus, left, right, _, _) = world().await;
    right.set("k", 1u32).await.unwrap();
    arrived().await;
    assert_eq!(left.get_l1("k").as_deref(), Some(&1));
    left.set("k", 2u32).await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k").as_deref(), Some(&2));
    // Where values are not told, that it was set is.
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
async fn values_beyond_their_bound_are_not_told_but_that_they_were_set_is() {
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
    assert_eq!(log.take(), ["set:broadcast", "set", "set:broadcast-skipped", "set"]);
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
        // And the same if a third deleted it.
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
async fn a_delete_from_elsewhere_fences_a_load_in_flight() {
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
async fn what_comes_twice_is_applied_once() {
    let (bus, left, right, _, _) = world().await;
    bus.set_faults(BusFaults { duplicates: 1.0, ..BusFaults::default() });
    left.set("k", 1u32).await.unwrap();
    arrived().await;
    assert_eq!(right.stats().events_duplicate, 1);
    assert_eq!(right.stats().values_received, 1);
}

#[tokio::test(start_paused = true)]
async fn lost_deletes_are_noticed_and_memory_is_looked_up_again() {
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
    assert_eq!(right.get_l1("k").as_deref(), Some(&1), "it cannot know yet");
    sleep(NOTICED).await;
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(load(&right, &origin).await, 100, "from the shared level");
    assert_eq!(origin.loads(), 1, "the origin is spared");
    assert!(right.stats().bus_gaps >= 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_bus_entries_are_believed_for_a_while_and_then_looked_up() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let link = bus.link();
    let right = on(&link).l2(store.clone(), WireCodec::new()).build().unwrap();
    let origin = Origin::default();
    settled(&[&right]).await;
    load(&right, &origin).await;
    sleep(ms(60_000)).await;
    assert!(right.get_l1("k").is_some(), "as long as there is a bus");
    link.cut();
    arrived().await;
    assert!(!right.health().event_bus.unwrap().trusted);
    let before = store.operations();
    for _ in 0..100 {
        assert_eq!(load(&right, &origin).await, 1);
        sleep(ms(100)).await;
    }
    let asked = store.operations() - before;
    assert!((3..=5).contains(&asked), "ten seconds: every three, not {asked} times");
    assert_eq!(origin.loads(), 1);
    link.restore();
    sleep(ms(1_500)).await;
    assert!(right.health().event_bus.unwrap().trusted);
    load(&right, &origin).await;
    sleep(ms(60_000)).await;
    assert!(right.get_l1("k").is_some());
}

#[tokio::test(start_paused = true)]
async fn while_the_bus_is_away_changes_wait_and_are_told_as_soon_as_it_is_back() {
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
    sleep(ms(20_000)).await;
    let health = left.health().event_bus.unwrap();
    assert!(health.publishing_skipped && !health.subscribed);
    assert!(log.take().contains(&"event-bus:publish-error".to_owned()));
    assert_eq!(right.get_l1("7").as_deref(), Some(&1));
    let before = bus.published();
    one.restore();
    sleep(ms(1_100)).await;
    assert!(keys.iter().all(|key| right.get_l1(key).is_none()));
    let told = bus.published() - before;
    assert!(told < 10, "{told} messages for two hundred deletes");
    assert_eq!(left.health().event_bus.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_overflow_becomes_everything() {
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
async fn a_delete_can_wait_for_the_bus_and_says_if_it_did_not_confirm() {
    let bus = SharedBus::new(1);
    let (one, other) = (bus.link(), bus.link());
    let confirmed = EventBusOptions::default().confirm_deletes(true).publish_timeout(ms(200));
    let left = on(&one).event_bus_options(confirmed).build().unwrap();
    let right = on(&other).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    left.delete("k").await.unwrap();
    right.set("k", 2u32).await.unwrap();
    arrived().await;
    one.freeze();
    let asked = tokio::time::Instant::now();
    let error = left.delete("k").await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Unconfirmed, Some("k")));
    assert_eq!(asked.elapsed(), ms(200));
    assert_eq!(left.get_l1("k"), None);
    one.restore();
    sleep(NOTICED).await;
    assert_eq!(right.get_l1("k"), None, "told all the same");
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_caller_goes_away_is_told_all_the_same() {
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
            _ = delete => panic!("the shared level hangs"),
            () = settle() => {}
        }
    }
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_event_make_memory_suspect() {
    let (bus, left, right, _, origin) = world().await;
    load(&left, &origin).await;
    arrived().await;
    let log = Log::of(&right);
    bus.inject(b"HC1M\x93\x01");
    sleep(CHECKED).await;
    assert_eq!(log.take(), ["invalidation:refused", "event-bus:gap"]);
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(right.stats().events_refused, 1);
    // Another namespace's are nobody's.
    let theirs = EventBusOptions::default().namespace("theirs");
    let stranger = on(&bus.link()).event_bus_options(theirs).build().unwrap();
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
async fn a_suspect_copy_may_serve_when_the_loader_fails_if_stale_copies_may() {
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
async fn what_was_loaded_before_a_subscription_began_is_not_believed_after_it() {
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

/// A way to the bus by which it takes a while until anything is listened to.
struct SlowToListen(BusLink);

impl Transport for SlowToListen {
    fn name(&self) -> &'static str {
        "slow to listen"
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
async fn what_was_loaded_while_a_subscription_began_is_not_believed_after_it() {
    let bus = SharedBus::new(1);
    let left = on(&bus.link()).build().unwrap();
    let slow = SlowToListen(bus.link());
    let right = on_tokio_time().ttl(ms(600_000)).event_bus(slow, WireCodec::new()).build().unwrap();
    settled(&[&left]).await;
    let origin = Origin::default();
    load(&right, &origin).await;
    sleep(SLOW / 2).await;
    load(&right, &origin).await;
    left.delete("k").await.unwrap();
    assert!(right.get_l1("k").is_some(), "nobody listens yet");
    right.ready().await.unwrap();
    assert_eq!(right.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn who_only_tells_believes_its_memory() {
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
async fn closing_tells_what_waits_and_leaves_no_task() {
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
    assert_eq!(right.stats().bus_gaps, gaps, "it said goodbye");
    assert_eq!(left.ready().await.unwrap_err().kind(), ErrorKind::Closed);
    right.close().await;
    drop(bus);
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_tasks_too() {
    let (_bus, left, right, _, origin) = world().await;
    load(&left, &origin).await;
    drop((left, right));
    settle().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[test]
fn a_cache_outlives_the_runtime_that_it_listened_on() {
    let bus = SharedBus::new(1);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let build = || {
        let bus = bus.link();
        Cache::builder().event_bus(bus, WireCodec::new()).build().unwrap()
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
async fn instances_that_share_a_name_still_hear_each_other() {
    let bus = SharedBus::new(1);
    let build = || on(&bus.link()).source("the same").build().unwrap();
    let (left, right) = (build(), build());
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    left.delete("k").await.unwrap();
    arrived().await;
    assert_eq!(right.get_l1("k"), None);
    let _ = Arc::new(());
}

/// A bus that is far away: to connect takes longer than a publish may.
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
async fn a_bus_that_takes_longer_to_connect_than_to_publish_is_reached_all_the_same() {
    let bus = SharedBus::new(1);
    let far = Far(bus.link(), AtomicBool::new(false));
    let left = on_tokio_time().event_bus(far, WireCodec::new()).build().unwrap();
    let right = on(&bus.link()).build().unwrap();
    settled(&[&left, &right]).await;
    right.set("k", 1u32).await.unwrap();
    left.delete("k").await.unwrap();
    sleep(ms(8_000)).await;
    assert_eq!(right.get_l1("k"), None);
    assert_eq!(left.health().event_bus.unwrap().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_of_one_who_cannot_know_yet_what_it_missed_is_not_told() {
    let (bus, left, right, _, origin) = world().await;
    // So that both know where the other is.
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
    // Lost before anything told it where the others are; what comes next only says that.
    link.drop_incoming();
    left.delete("k").await.unwrap();
    arrived().await;
    link.restore();
    left.delete("another").await.unwrap();
    slow.await.unwrap();
    arrived().await;
    assert_eq!((right.get_l1("k"), left.get_l1("k")), (None, None));
    assert_eq!(new.stats().values_sent, 0);
    // Once it can, it tells what it loads: after it has learned where all are, which is a gap.
    sleep(2 * NOTICED).await;
    new.get_or_set("q", origin.load(Gate::Ok)).await.unwrap();
    arrived().await;
    assert!(right.get_l1("q").is_some());
}
