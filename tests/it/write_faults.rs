//! Every write under every fault of L2 and of the bus: it returns in time, its report names the
//! rest, no instance that has the message serves the old value, and the report settles once the
//! fault is over. And writes during which the cache is closed.

use std::time::Duration;

use lazy_layers_cache::{
    BusEffect, CacheBuilder, EventBusOptions, L2Effect, L2Options, L2Timeouts, WireCodec,
    WriteReport,
    testing::{BusFaults, BusLink, Chaos, ChaosStore, SharedBus, SharedStore, TokioClock},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    Cache, Log,
    faulty_store::{Fate, FaultyStore},
    ms, on_tokio_time,
    writes::{WRITES, Write},
};

const LONG: Duration = ms(3_600_000);
const OLD: &[u8] = b"HC1M\x07";
/// Longer than a write may take: two calls of L2 and one of the bus, of a second each.
const WRITTEN: Duration = ms(3_000);
/// Longer than it takes to notice that the faults are over.
const SETTLED: Duration = ms(60_000);

#[derive(Debug, Clone, Copy, PartialEq)]
enum L2Fault {
    None,
    Fails,
    Hangs,
    /// The write happens, and the writer does not learn it.
    FailsAfterwards,
    CircuitOpen,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum BusFault {
    None,
    /// The writer does not know yet that it is cut off.
    Cut,
    CircuitOpen,
    Frozen,
    /// The broker refuses every message, which the writer knows.
    Refuses,
}

const WELL: Chaos =
    Chaos { fails: 0.0, fails_afterwards: 0.0, hangs: 0.0, delays: 0.0, longest_delay: ms(0) };

/// A writer whose ways to L2 and to the bus may fail, and a peer whose ways do not.
struct World {
    bus: SharedBus,
    link: BusLink,
    store: SharedStore,
    way: ChaosStore<SharedStore>,
    writer: Cache,
    peer: Cache,
}

impl World {
    async fn new(confirms: bool, is_versioned: bool) -> Self {
        let (bus, store) = (SharedBus::new(1), SharedStore::new(TokioClock::new()));
        let (link, way) = (bus.link(), ChaosStore::new(store.clone(), 1));
        let builder = || {
            let second = L2Timeouts::default().read(ms(1_000)).write(ms(1_000)).pattern(ms(1_000));
            let events = EventBusOptions::default().confirm_deletes(confirms);
            on_tokio_time()
                .ttl(LONG)
                .l2_timeouts(second)
                .l2_options(L2Options::default().versioning(is_versioned))
                .event_bus_options(events)
                .name("test")
        };
        let finish = |builder: CacheBuilder<String, u32>, link| {
            builder.event_bus(link, WireCodec::new()).build().unwrap()
        };
        let writer = finish(builder().l2(way.clone(), WireCodec::new()), link.clone());
        let peer = finish(builder().l2(store.clone(), WireCodec::new()), bus.link());
        writer.ready().await.unwrap();
        peer.ready().await.unwrap();
        sleep(ms(3_200)).await;
        Self { bus, link, store, way, writer, peer }
    }

    async fn begin(&self, in_l2: L2Fault, on_bus: BusFault) {
        self.way.set(match in_l2 {
            L2Fault::None => WELL,
            L2Fault::Fails | L2Fault::CircuitOpen => Chaos { fails: 1.0, ..WELL },
            L2Fault::Hangs => Chaos { hangs: 1.0, ..WELL },
            L2Fault::FailsAfterwards => Chaos { fails_afterwards: 1.0, ..WELL },
        });
        if in_l2 == L2Fault::CircuitOpen {
            for key in ["a", "b", "c"] {
                self.writer.delete(key).await.unwrap();
            }
        }
        match on_bus {
            BusFault::None => {}
            BusFault::Cut | BusFault::CircuitOpen => self.link.cut(),
            BusFault::Frozen => self.link.freeze(),
            BusFault::Refuses => {
                let faults = BusFaults { max_message_bytes: Some(1), ..BusFaults::default() };
                self.bus.set_faults(faults);
            }
        }
        if matches!(on_bus, BusFault::CircuitOpen | BusFault::Refuses) {
            self.writer.delete("a").await.unwrap();
            sleep(ms(5_000)).await;
        }
    }

    fn end(&self) {
        self.way.set(WELL);
        self.link.restore();
        self.bus.set_faults(BusFaults::default());
    }

    /// What one instance serves of "k", from L1 or from L2.
    async fn served(&self, cache: &Cache) -> Option<u32> {
        timeout(WRITTEN, cache.get("k")).await.expect("a read ends").as_deref().copied()
    }
}

async fn check(write: Write, in_l2: L2Fault, on_bus: BusFault, confirms: bool, versioned: bool) {
    let cell = format!("{write:?}, {in_l2:?}, {on_bus:?}, {confirms}, {versioned}");
    let world = World::new(confirms, versioned).await;
    world.store.insert_raw(if versioned { "k::v0" } else { "k" }, OLD, LONG);
    assert_eq!(world.served(&world.writer).await, Some(7), "{cell}");
    assert_eq!(world.served(&world.peer).await, Some(7), "{cell}");
    world.begin(in_l2, on_bus).await;
    let asked = Instant::now();
    let report = timeout(WRITTEN, write.of(&world.writer)).await.expect(&cell);
    assert!(asked.elapsed() <= WRITTEN, "{cell}");
    assert_ne!(world.served(&world.writer).await, Some(7), "{cell}");
    let l2 = if in_l2 == L2Fault::None { L2Effect::Done } else { L2Effect::Pending };
    let bus = match (confirms, on_bus) {
        (false, _) => BusEffect::Queued,
        (true, BusFault::None) => BusEffect::Confirmed,
        (true, _) => BusEffect::Unconfirmed,
    };
    assert_eq!((&report.l2, report.bus), (&l2, bus), "{cell}");
    let is_known = matches!(on_bus, BusFault::CircuitOpen | BusFault::Refuses);
    let is_complete = in_l2 == L2Fault::None && !is_known && bus != BusEffect::Unconfirmed;
    assert_eq!(report.is_complete(), is_complete, "{cell}");
    let asked = Instant::now();
    let is_well = in_l2 == L2Fault::None && on_bus == BusFault::None;
    assert_eq!(report.settled(ms(70)).await, is_well, "{cell}");
    assert!(asked.elapsed() <= ms(71), "{cell}");
    if on_bus == BusFault::None {
        // The peer has the message, and serves the old value from nowhere.
        for _ in 0..5 {
            assert_ne!(world.served(&world.peer).await, Some(7), "{cell}");
            sleep(ms(50)).await;
        }
    }
    world.end();
    assert!(report.settled(SETTLED).await, "{cell}");
    sleep(ms(5)).await;
    for cache in [&world.writer, &world.peer] {
        assert_ne!(world.served(cache).await, Some(7), "{cell}");
    }
    assert!(write.of(&world.writer).await.settled(ms(100)).await, "{cell}");
}

const L2_FAULTS: [L2Fault; 5] =
    [L2Fault::None, L2Fault::Fails, L2Fault::Hangs, L2Fault::FailsAfterwards, L2Fault::CircuitOpen];

#[tokio::test(start_paused = true)]
async fn each_write_reports_each_fault_and_settles_once_it_is_over() {
    let on_bus =
        [BusFault::None, BusFault::Cut, BusFault::CircuitOpen, BusFault::Frozen, BusFault::Refuses];
    for write in WRITES {
        for in_l2 in L2_FAULTS {
            for on_bus in on_bus {
                for confirms in [false, true] {
                    check(write, in_l2, on_bus, confirms, false).await;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn versioned_names_change_none_of_that() {
    for write in WRITES {
        for in_l2 in L2_FAULTS {
            check(write, in_l2, BusFault::None, false, true).await;
        }
    }
}

/// Caches over a store whose writes arrive late.
struct Slow {
    bus: SharedBus,
    store: SharedStore,
}

impl Slow {
    async fn cache(&self, slow: fn(&str) -> Fate, close_timeout: Duration) -> Cache {
        let way = FaultyStore::to(&self.store);
        let way = FaultyStore { delete: slow, pattern: slow, acquire_write_lease: slow, ..way };
        let limits = L2Timeouts::default().write(ms(10_000));
        let builder = on_tokio_time().ttl(LONG).l2_timeouts(limits).name("test");
        let builder = builder.close_timeout(close_timeout);
        let builder = builder.event_bus(self.bus.link(), WireCodec::new());
        let cache = builder.l2(way, WireCodec::new()).build().unwrap();
        cache.ready().await.unwrap();
        cache
    }
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_writes_that_run() {
    for write in WRITES {
        let world = Slow { bus: SharedBus::new(1), store: SharedStore::new(TokioClock::new()) };
        let slow: fn(&str) -> Fate = |_| Fate::ArrivesAfter(300);
        let (cache, peer) =
            (world.cache(slow, ms(5_000)).await, world.cache(slow, ms(5_000)).await);
        sleep(ms(3_200)).await;
        world.store.insert_raw("k", OLD, LONG);
        assert_eq!(peer.get("k").await.as_deref(), Some(&7));
        let writing = tokio::spawn({
            let cache = cache.clone();
            async move { timeout(LONG, write_if_open(write, &cache)).await.unwrap() }
        });
        sleep(ms(10)).await;
        let closed = Instant::now();
        cache.close().await;
        assert!(closed.elapsed() < ms(1_500), "{write:?}: {:?}", closed.elapsed());
        let written = writing.await.unwrap();
        sleep(ms(5)).await;
        assert_ne!(peer.get_l1("k").as_deref(), Some(&7), "{write:?}");
        assert_ne!(world.store.peek("k").as_deref(), Some(OLD), "{write:?}");
        if let Some(report) = written {
            assert!(report.is_complete(), "{write:?}: {report:?}");
            assert!(report.settled(ms(0)).await, "{write:?}: {report:?}");
        }
    }
}

/// A write that outlasts `close_timeout` does not say that all is done.
#[tokio::test(start_paused = true)]
async fn a_write_that_outlasts_the_close_does_not_claim_to_be_complete() {
    for write in WRITES {
        let world = Slow { bus: SharedBus::new(1), store: SharedStore::new(TokioClock::new()) };
        let cache = world.cache(|_| Fate::ArrivesAfter(5_000), ms(50)).await;
        let log = Log::of(&cache);
        let writing = tokio::spawn({
            let cache = cache.clone();
            async move { timeout(LONG, write_if_open(write, &cache)).await.unwrap() }
        });
        sleep(ms(10)).await;
        cache.close().await;
        let written = writing.await.unwrap();
        assert!(written.is_none_or(|report| !report.is_complete()), "{write:?}");
        assert!(log.take().contains(&"close:lost".to_owned()), "{write:?}");
    }
}

/// `None`: the cache was closed before the write had ended.
async fn write_if_open(write: Write, cache: &Cache) -> Option<WriteReport> {
    match write {
        Write::Delete => cache.delete("k").await.ok(),
        Write::Set => cache.set("k", 8u32).await.ok(),
        Write::Pattern => cache.delete_by_pattern("[jk]").await.ok(),
        Write::Clear => cache.clear().await.ok(),
    }
}
