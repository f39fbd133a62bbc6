//! The report of a `set` or a delete: each effect on L1, L2 and the bus, and the wait for the rest.

use std::time::Duration;

use lazy_layers_cache::{
    BoxError, BusEffect, CacheBuilder, Codec, EventBusOptions, L1Effect, L2Effect, WireCodec,
    WriteReport,
    testing::{BusLink, SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Cache, Gate, Log, Origin,
    faulty_store::{Fate, FaultyStore},
    ms, on_tokio_time, settle,
};

/// Encodes numbers as text, all but one.
struct Text;

const UNENCODABLE: u32 = 666;

impl Codec<u32> for Text {
    fn encode(&self, value: &u32) -> Result<Vec<u8>, BoxError> {
        if *value == UNENCODABLE { Err("no".into()) } else { Ok(value.to_string().into()) }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, BoxError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

/// The kind of an effect on L2.
#[derive(Debug, Clone, Copy, PartialEq)]
enum InL2 {
    None,
    Done,
    NotStored,
    Pending,
}

impl InL2 {
    fn of(effect: &L2Effect) -> Self {
        match effect {
            L2Effect::None => Self::None,
            L2Effect::Done => Self::Done,
            L2Effect::NotStored(_) => Self::NotStored,
            L2Effect::Pending => Self::Pending,
            other => panic!("{other:?}"),
        }
    }
}

/// A cache whose next write has the given effects, if the store and the bus stay as they are.
struct World {
    cache: Cache,
    store: SharedStore,
    link: BusLink,
}

impl World {
    async fn of(l1: L1Effect, l2: InL2, bus: BusEffect) -> Self {
        let (store, link) = (SharedStore::new(TokioClock::new()), SharedBus::new(1).link());
        let mut builder = on_tokio_time().ttl(ms(600_000));
        if l1 == L1Effect::None {
            builder = builder.without_l1();
        }
        if l2 != InL2::None {
            let slow: fn(&str) -> Fate = |_| Fate::ArrivesAfter(20);
            let faulty = FaultyStore::to(&store);
            builder =
                builder.l2(FaultyStore { delete: slow, acquire_write_lease: slow, ..faulty }, Text);
        }
        if bus != BusEffect::None {
            let confirms = bus != BusEffect::Queued;
            let options = EventBusOptions::default().confirm_deletes(confirms);
            builder = builder
                .name("test")
                .event_bus(link.clone(), WireCodec::new())
                .event_bus_options(options);
        }
        let cache = builder.build().unwrap();
        cache.ready().await.unwrap();
        store.insert_raw("k", "1", ms(600_000));
        if l2 == InL2::Pending {
            store.set_fault(StoreFault::Fails);
        }
        if bus == BusEffect::Unconfirmed {
            link.freeze();
        }
        Self { cache, store, link }
    }

    async fn write(&self, l1: L1Effect, l2: InL2) -> WriteReport {
        let value = if l2 == InL2::NotStored { UNENCODABLE } else { 2 };
        match l1 {
            L1Effect::Removed if l2 == InL2::NotStored => {
                self.cache.delete(&*"k".repeat((64 << 10) + 1)).await.unwrap()
            }
            L1Effect::Removed => self.cache.delete("k").await.unwrap(),
            L1Effect::Superseded => {
                let delete = async {
                    sleep(ms(10)).await;
                    self.cache.delete("k").await.unwrap();
                };
                tokio::join!(self.cache.set("k", value), delete).0.unwrap()
            }
            _ => self.cache.set("k", value).await.unwrap(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_combination_of_effects_is_reported_and_settles_once_the_fault_is_over() {
    use BusEffect::{Confirmed, Queued, Unconfirmed};
    let all_l1 = [L1Effect::None, L1Effect::Stored, L1Effect::Removed, L1Effect::Superseded];
    for l1 in all_l1 {
        for l2 in [InL2::None, InL2::Done, InL2::NotStored, InL2::Pending] {
            // Without L2 a `set` takes one step, so nothing comes between.
            if (l1, l2) == (L1Effect::Superseded, InL2::None) {
                continue;
            }
            for bus in [BusEffect::None, Queued, Confirmed, Unconfirmed] {
                let world = World::of(l1, l2, bus).await;
                let report = world.write(l1, l2).await;
                let cell = (report.l1, InL2::of(&report.l2), report.bus);
                assert_eq!(cell, (l1, l2, bus), "{report:?}");
                let kept = u64::from(l1 == L1Effect::Stored);
                assert_eq!(world.cache.stats().l1_entries, kept, "{report:?}");
                let is_complete = l2 != InL2::Pending && bus != Unconfirmed;
                assert_eq!(report.is_complete(), is_complete, "{report:?}");
                if !is_complete {
                    assert!(!report.settled(ms(5)).await, "{report:?}");
                }
                world.store.set_fault(StoreFault::None);
                world.link.restore();
                assert!(report.settled(ms(60_000)).await, "{report:?}");
                let is_gone = l2 == InL2::None || world.store.peek("k").as_deref() != Some(b"1");
                let is_long = (l1, l2) == (L1Effect::Removed, InL2::NotStored);
                assert!(is_gone || is_long, "{report:?}: L2 has the old value");
            }
        }
    }
}

const LONG: Duration = ms(3_600_000);

fn over(store: &SharedStore) -> CacheBuilder<String, u32> {
    on_tokio_time().ttl(LONG).l2(store.clone(), Text)
}

fn on(builder: CacheBuilder<String, u32>, link: &BusLink) -> Cache {
    builder.name("test").event_bus(link.clone(), WireCodec::new()).build().unwrap()
}

/// Two instances over one store and one bus, which have received each other's beacons.
async fn pair() -> (SharedStore, Cache, Cache) {
    let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
    let (left, right) = (on(over(&store), &bus.link()), on(over(&store), &bus.link()));
    left.ready().await.unwrap();
    right.ready().await.unwrap();
    sleep(ms(3_200)).await;
    (store, left, right)
}

#[tokio::test(start_paused = true)]
async fn a_queued_message_is_not_complete_while_the_circuit_of_the_bus_is_open() {
    let link = SharedBus::new(1).link();
    let cache = on(on_tokio_time(), &link);
    cache.ready().await.unwrap();
    link.cut();
    assert!(cache.delete("k").await.unwrap().is_complete(), "the failure is not known yet");
    sleep(ms(5_000)).await;
    let report = cache.delete("k").await.unwrap();
    assert_eq!((report.bus, report.is_complete()), (BusEffect::Queued, false));
    link.restore();
    assert!(report.settled(ms(10_000)).await);
    assert!(cache.delete("k").await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_set_keeps_its_value_while_l2_does_not_answer_and_no_old_value_is_read_from_l2() {
    for fault in [StoreFault::Fails, StoreFault::Hangs, StoreFault::HangsAfterwards] {
        let (store, left, right) = pair().await;
        store.insert_raw("k", "1", LONG);
        store.set_fault(fault);
        let report = left.set("k", 2).ttl(ms(10_000)).await.unwrap();
        assert_eq!((report.l1, &report.l2), (L1Effect::Stored, &L2Effect::Pending), "{fault:?}");
        assert_eq!(left.get("k").await.as_deref(), Some(&2), "{fault:?}");
        // The value has expired in L1: the old value in L2 is not read.
        sleep(ms(11_000)).await;
        store.insert_raw("k", "1", LONG);
        assert_eq!(left.get("k").await, None, "{fault:?}");
        // A peer's delete removes the value of a later `set`.
        left.set("k", 3).await.unwrap();
        right.delete("k").await.unwrap();
        sleep(ms(5)).await;
        assert_eq!(left.get_l1("k"), None, "{fault:?}");
        store.set_fault(StoreFault::None);
        store.reconnect();
        assert!(report.settled(ms(5_000)).await, "{fault:?}");
        assert_eq!(store.peek("k"), None, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_a_peer_deletes_before_l2_has_failed_keeps_nothing() {
    let (store, left, right) = pair().await;
    store.set_fault(StoreFault::Hangs);
    let delete = async {
        sleep(ms(10)).await;
        drop(timeout(ms(10), right.delete("k")).await);
    };
    let (report, ()) = tokio::join!(left.set("k", 2), delete);
    assert_eq!(report.unwrap().l1, L1Effect::Superseded);
    assert_eq!(left.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_l2_refuses_is_no_failure_of_l2_and_deletes_the_old_one() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(&store).build().unwrap();
    let (log, origin) = (Log::of(&cache), Origin::default());
    store.insert_raw("k", "1", LONG);
    for _ in 0..5 {
        let report = cache.set("k", UNENCODABLE).await.unwrap();
        assert!(matches!(report.l2, L2Effect::NotStored(_)) && report.is_complete());
        let load = || async { Ok::<_, std::io::Error>(UNENCODABLE) };
        cache.get_or_set("other", load).refresh().await.unwrap();
    }
    assert_eq!(store.peek("k"), None, "the old value is deleted");
    let events = log.take();
    assert_eq!(events.iter().filter(|event| *event == "l2:refused").count(), 10);
    assert!(!events.contains(&"l2:error".to_owned()));
    assert_eq!((cache.stats().l2_refused, cache.stats().l2_errors), (10, 0));
    cache.get_or_set("good", origin.load(Gate::Ok)).await.unwrap();
    assert!(store.peek("good").is_some(), "the circuit is closed");
    // If L2 does not answer either, the old value may still be there.
    store.set_fault(StoreFault::Fails);
    assert_eq!(cache.set("k", UNENCODABLE).await.unwrap().l2, L2Effect::Pending);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_its_own_invalidation_and_no_longer_than_its_limit() {
    let store = SharedStore::new(TokioClock::new());
    let is_bad: fn(&str) -> Fate =
        |key| if key.starts_with("bad") { Fate::Fails } else { Fate::ArrivesAfter(0) };
    let faulty = FaultyStore { delete: is_bad, ..FaultyStore::to(&store) };
    let cache = on_tokio_time().ttl(LONG).l2(faulty, Text).build().unwrap();
    store.set_fault(StoreFault::Fails);
    let bad = cache.delete("bad").await.unwrap();
    let good = cache.delete("good").await.unwrap();
    store.set_fault(StoreFault::None);
    assert!(good.settled(ms(10_000)).await);
    let asked = Instant::now();
    assert!(!bad.settled(ms(10_000)).await);
    assert_eq!(asked.elapsed(), ms(10_000));
    assert!(good.settled(ms(0)).await, "it has arrived already");
}

#[tokio::test(start_paused = true)]
async fn a_caller_does_not_wait_for_a_cache_that_is_closed_or_dropped() {
    for is_closed in [false, true] {
        for l2_fails in [false, true] {
            let (store, link) = (SharedStore::new(TokioClock::new()), SharedBus::new(1).link());
            let cache = on(over(&store), &link);
            cache.ready().await.unwrap();
            if l2_fails {
                store.set_fault(StoreFault::Fails);
            }
            link.freeze();
            let report = cache.delete("k").await.unwrap();
            let waiting = tokio::spawn({
                let report = report.clone();
                async move { report.settled(LONG).await }
            });
            settle().await;
            let asked = Instant::now();
            if is_closed {
                cache.close().await;
            }
            drop(cache);
            assert!(!waiting.await.unwrap());
            assert!(!report.settled(LONG).await, "also if the caller asks later");
            assert!(asked.elapsed() < ms(20_000), "{:?}", asked.elapsed());
        }
    }
}

#[test]
fn without_a_runtime_a_caller_waits_for_nothing() {
    let cache = Cache::builder().build().unwrap();
    let report = at_once(async { cache.delete("k").await.unwrap() });
    assert!(at_once(report.settled(LONG)));
}

/// Polls a future that is ready at once.
fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_settled_delete_has_been_broadcast_again_after_it_reached_l2() {
    let (store, left, right) = pair().await;
    store.insert_raw("k", "1", LONG);
    store.set_fault(StoreFault::Fails);
    let before = right.stats().events_received;
    let report = left.delete("k").await.unwrap();
    store.set_fault(StoreFault::None);
    assert!(report.settled(ms(10_000)).await);
    sleep(ms(5)).await;
    assert!(right.stats().events_received >= before + 2);
    assert_eq!((right.get("k").await, store.peek("k")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn more_pending_deletes_than_fit_become_one_of_all_keys_with_an_event() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(&store).build().unwrap();
    let log = Log::of(&cache);
    let has_overflown = || log.take().contains(&"l2:pending-overflow".to_owned());
    store.insert_raw("other", "1", LONG);
    store.set_fault(StoreFault::Fails);
    let first = cache.delete("0").await.unwrap();
    for key in 1..10_000 {
        cache.delete(&key.to_string()).await.unwrap();
    }
    assert!(!has_overflown());
    let last = cache.delete("10000").await.unwrap();
    assert!(has_overflown());
    store.set_fault(StoreFault::None);
    store.reconnect();
    assert_eq!(cache.get("other").await, None, "L2 is not read");
    assert!(first.settled(ms(10_000)).await && last.settled(ms(0)).await);
    assert_eq!(store.peek("other"), None, "the namespace is cleared");
    // A clear is one of all keys by itself.
    store.set_fault(StoreFault::Fails);
    cache.clear().await.unwrap();
    assert!(!has_overflown());
}
