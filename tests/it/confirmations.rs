//! Deletes that wait for the bus (`confirm_deletes`), over real brokers: confirmed while it
//! answers; while it does not, each returns in time and says so, and settles once it is back. And
//! the steps of a bus that is skipped, which all have an event.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    BusEffect, EventBusOptions, WireCodec,
    testing::{SharedBus, SharedStore, TokioClock},
};
use tokio::{task::block_in_place, time::sleep};

use crate::support::{
    Cache, Gate, Log, Origin,
    broker::{Broker, Kind},
    ms, on_tokio_time,
};

const PUBLISH: Duration = ms(1_000);
/// Added to each limit, for machines with few cores and other work.
const SLACK: Duration = ms(2_000);
/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn instance(broker: &Broker, name: &str) -> Cache {
    let options = EventBusOptions::default().confirm_deletes(true).publish_timeout(PUBLISH);
    let builder = Cache::builder().ttl(ms(3_600_000)).name("test").event_bus_options(options);
    let cache = builder.event_bus(broker.transport(name), WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    cache
}

/// Waits until the bus confirms a delete: it may have to connect again.
async fn until_confirmed(cache: &Cache, cell: &str) {
    let since = Instant::now();
    while cache.delete("k").await.unwrap().bus != BusEffect::Confirmed {
        assert!(since.elapsed() < PATIENCE, "{cell}: no confirmation");
    }
}

async fn until_gone(cache: &Cache, cell: &str) {
    let since = Instant::now();
    while cache.get_l1("k").is_some() {
        assert!(since.elapsed() < PATIENCE, "{cell}: a peer has the old value");
        sleep(ms(2)).await;
    }
}

async fn over(kind: Kind) {
    let mut broker = block_in_place(|| Broker::start(kind));
    let (writer, peer) = (instance(&broker, "writer").await, instance(&broker, "peer").await);
    for fault in ["none", "frozen", "killed"] {
        let cell = format!("{kind:?}, {fault}");
        until_confirmed(&writer, &cell).await;
        peer.set("k", 1u32).await.unwrap();
        match fault {
            "frozen" => broker.freeze(),
            "killed" => block_in_place(|| broker.kill()),
            _ => {}
        }
        let asked = Instant::now();
        let report = writer.delete("k").await.unwrap();
        assert!(asked.elapsed() <= PUBLISH + SLACK, "{cell}: {:?}", asked.elapsed());
        assert_eq!(writer.get_l1("k"), None, "{cell}");
        let is_well = fault == "none";
        let expected = if is_well { BusEffect::Confirmed } else { BusEffect::Unconfirmed };
        assert_eq!((report.bus, report.is_complete()), (expected, is_well), "{cell}");
        assert_eq!(report.settled(ms(100)).await, is_well, "{cell}");
        match fault {
            "frozen" => broker.thaw(),
            "killed" => block_in_place(|| broker.restart()),
            _ => {}
        }
        assert!(report.settled(PATIENCE).await, "{cell}: it does not settle");
        until_gone(&peer, &cell).await;
    }
    writer.close().await;
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    over(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats() {
    over(Kind::Nats).await;
    over(Kind::JetStream).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_whose_value_the_bus_does_not_take_has_an_event() {
    let bus = SharedBus::new(1);
    let (link, store) = (bus.link(), SharedStore::new(TokioClock::new()));
    let builder = on_tokio_time().ttl(ms(3_600_000)).l2(store, WireCodec::new()).name("test");
    let cache = builder.event_bus(link.clone(), WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    sleep(ms(3_200)).await;
    let (log, origin) = (Log::of(&cache), Origin::default());
    link.cut();
    cache.delete("k").await.unwrap();
    // Each of its tries fails, until the circuit is open.
    sleep(ms(2_000)).await;
    log.take();
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    let events = log.take();
    let is_reported =
        |event: &String| event == "event-bus:publish-skipped" || event == "set:broadcast-skipped";
    assert!(events.iter().any(is_reported), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn without_broadcast_set_no_value_is_sent_and_loads_send_nothing() {
    let bus = SharedBus::new(1);
    let instance = || on_tokio_time().name("test").event_bus(bus.link(), WireCodec::new());
    let quiet = instance().broadcast_set(false).build().unwrap();
    let peer = instance().build().unwrap();
    for cache in [&quiet, &peer] {
        cache.ready().await.unwrap();
    }
    sleep(ms(3_200)).await;
    let (log, origin) = (Log::of(&quiet), Origin::default());
    let received = peer.stats().events_received;
    quiet.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    sleep(ms(5)).await;
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "set"]);
    assert_eq!((peer.get_l1("k"), peer.stats().events_received), (None, received));
    peer.set("k", 7u32).await.unwrap();
    sleep(ms(5)).await;
    quiet.set("k", 8u32).await.unwrap();
    sleep(ms(5)).await;
    assert_eq!((peer.get_l1("k"), quiet.stats().values_sent), (None, 0));
    assert_eq!(quiet.stats().values_not_sent, 0, "nothing was refused");
}

/// A `set` that a delete supersedes while L2 is written: neither of its events is emitted.
#[tokio::test(start_paused = true)]
async fn a_set_that_is_superseded_has_no_event_of_a_set() {
    use crate::support::faulty_store::{Fate, FaultyStore};
    let bus = SharedBus::new(1);
    let slow: fn(&str) -> Fate = |_| Fate::ArrivesAfter(20);
    let way = FaultyStore::to(&SharedStore::new(TokioClock::new()));
    let way = FaultyStore { acquire_write_lease: slow, ..way };
    let builder = on_tokio_time().l2(way, WireCodec::new()).name("test");
    let cache = builder.event_bus(bus.link(), WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    sleep(ms(3_200)).await;
    let log = Log::of(&cache);
    let delete = async {
        sleep(ms(10)).await;
        cache.delete("k").await.unwrap();
    };
    let (set, ()) = tokio::join!(cache.set("k", 1u32), delete);
    assert_eq!(set.unwrap().l1, lazy_layers_cache::L1Effect::Superseded);
    assert_eq!(log.take(), ["delete"]);
    assert_eq!(cache.stats().values_sent, 0);
}
