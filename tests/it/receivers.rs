//! The receivers of a change that its writer could not bring to L2 (`l2: false`), whatever their
//! options and their own way to L2, on every transport: none reads the old value from L2 once it
//! has the message, and the first that reaches L2 removes it there.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CacheBuilder, FailSafe, L1Options, L2Options, NegativeCache, Transport, WireCodec,
    testing::{Chaos, ChaosStore, SharedBus, SharedStore, TokioClock},
};
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::support::{
    Cache, Log,
    broker::{Broker, Kind},
    ms, on_tokio_time, settle,
    writes::{WRITES, Write},
};

const LONG: Duration = ms(3_600_000);
/// Longer than the pause between two retries, and the delay of a rebroadcast.
const RETRIED: Duration = ms(2_500);
const OLD: &[u8] = b"HC1M\x07";

const CUT: Chaos =
    Chaos { fails: 1.0, fails_afterwards: 0.0, hangs: 0.0, delays: 0.0, longest_delay: ms(0) };

/// Writes, and checks that the change has not reached L2.
async fn write_without_l2(write: Write, cache: &Cache) {
    assert!(!write.of(cache).await.is_complete(), "{write:?}: L2 has not got it");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Receiver {
    Usual,
    WithoutL1,
    ServesStale,
    RemembersMissing,
    Versioned,
}

const RECEIVERS: [Receiver; 5] = [
    Receiver::Usual,
    Receiver::WithoutL1,
    Receiver::ServesStale,
    Receiver::RemembersMissing,
    Receiver::Versioned,
];

impl Receiver {
    fn builder(self) -> CacheBuilder<String, u32> {
        let builder = on_tokio_time().ttl(LONG).l1(L1Options::default().ttl(ms(20)));
        match self {
            Self::Usual => builder,
            Self::WithoutL1 => builder.without_l1(),
            Self::ServesStale => builder.fail_safe(FailSafe::enabled().throttle(ms(1))),
            Self::RemembersMissing => builder.negative_cache(NegativeCache::enabled()),
            Self::Versioned => builder.l2_options(L2Options::default().versioning(true)),
        }
    }

    fn name(self) -> &'static str {
        if self == Self::Versioned { "k::v0" } else { "k" }
    }
}

struct World {
    bus: SharedBus,
    store: SharedStore,
}

impl World {
    fn new() -> Self {
        Self { bus: SharedBus::new(1), store: SharedStore::new(TokioClock::new()) }
    }

    /// An instance with a way of its own to L2.
    async fn instance(
        &self,
        builder: CacheBuilder<String, u32>,
    ) -> (Cache, ChaosStore<SharedStore>) {
        let way = ChaosStore::new(self.store.clone(), 1);
        let builder = builder.l2(way.clone(), WireCodec::new()).name("test");
        let cache = builder.event_bus(self.bus.link(), WireCodec::new()).build().unwrap();
        cache.ready().await.unwrap();
        (cache, way)
    }
}

/// Nothing that the instance does returns the old value.
async fn serves_nothing_old(cache: &Cache, cell: &str) {
    assert_ne!(cache.get_l1("k").as_deref(), Some(&7), "{cell}");
    assert_ne!(cache.get("k").await.as_deref(), Some(&7), "{cell}");
    let fails = || async { Err::<Option<u32>, _>("the origin is down") };
    let loaded = cache.get_or_set("k", fails).await.ok().flatten();
    assert_ne!(loaded.as_deref(), Some(&7), "{cell}, a failing load");
    let loaded = cache.get_or_set("other", || async { Ok::<_, &str>(1u32) }).await.unwrap();
    assert_eq!(*loaded, 1, "{cell}, another key");
}

async fn check(write: Write, receiver: Receiver, hears_peers: bool, is_cut_off_too: bool) {
    let cell = format!("{write:?}, {receiver:?}, {hears_peers}, {is_cut_off_too}");
    let world = World::new();
    let writer = receiver.builder().subscribe_to_events(hears_peers);
    let (writer, from_writer) = world.instance(writer).await;
    let (reader, from_reader) = world.instance(receiver.builder()).await;
    world.store.insert_raw(receiver.name(), OLD, LONG);
    assert_eq!(reader.get("k").await.as_deref(), Some(&7), "{cell}");
    from_writer.set(CUT);
    if is_cut_off_too {
        from_reader.set(CUT);
    }
    write_without_l2(write, &writer).await;
    settle().await;
    // Its process is killed before it has reached L2.
    drop(writer);
    for _ in 0..30 {
        serves_nothing_old(&reader, &cell).await;
        sleep(ms(100)).await;
    }
    let has_old = || world.store.peek(receiver.name()).as_deref() == Some(OLD);
    assert_eq!(has_old(), is_cut_off_too, "{cell}");
    // An instance without the message reads it there.
    let (late, _) = world.instance(receiver.builder()).await;
    let read = late.get("k").await.as_deref() == Some(&7);
    assert_eq!(read, is_cut_off_too, "{cell}");
    from_reader.set(Chaos::default());
    // Its reads have opened its circuit, which a new connection closes.
    world.store.reconnect();
    sleep(RETRIED).await;
    assert!(!has_old(), "{cell}");
    for cache in [&reader, &late] {
        serves_nothing_old(cache, &cell).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_receiver_serves_the_old_value_whatever_its_options() {
    for write in WRITES {
        for receiver in RECEIVERS {
            for hears_peers in [true, false] {
                for is_cut_off_too in [false, true] {
                    check(write, receiver, hears_peers, is_cut_off_too).await;
                }
            }
        }
    }
}

/// More changes than a receiver keeps pending: it takes them for one of all keys, and says so.
#[tokio::test(start_paused = true)]
async fn a_receiver_whose_pending_changes_overflow_reads_nothing_from_l2() {
    for is_pattern in [false, true] {
        let world = World::new();
        let (writer, from_writer) = world.instance(on_tokio_time().ttl(LONG)).await;
        let (reader, from_reader) = world.instance(on_tokio_time().ttl(LONG)).await;
        let log = Log::of(&reader);
        world.store.insert_raw("k", OLD, LONG);
        world.store.insert_raw("other", OLD, LONG);
        from_writer.set(CUT);
        from_reader.set(CUT);
        let many = if is_pattern { 101 } else { 10_001 };
        for number in 0..many {
            match is_pattern {
                true => drop(writer.delete_by_pattern(&format!("{number}:*")).await),
                false => drop(writer.delete(&*number.to_string()).await),
            }
            // A message each, as far as they do not fit into one: the outbox does not overflow.
            if number % 500 == 0 {
                settle().await;
            }
        }
        sleep(ms(1_000)).await;
        assert!(log.take().contains(&"l2:pending-overflow".to_owned()), "{is_pattern}");
        from_reader.set(Chaos { hangs: 1.0, ..Chaos::default() });
        let read = timeout(ms(5_000), reader.get("other")).await;
        assert_eq!(read, Ok(None), "{is_pattern}: L2 is not asked");
        drop(writer);
        from_reader.set(Chaos::default());
        sleep(ms(60_000)).await;
        assert_eq!((world.store.peek("k"), world.store.peek("other")), (None, None));
        reader.set("other", 9u32).await.unwrap();
        assert!(world.store.peek("other").is_some(), "{is_pattern}: L2 is used again");
    }
}

/// Over real brokers, with a store in this process.
async fn on(kind: Kind) {
    let broker = block_in_place(|| Broker::start(kind));
    let store = SharedStore::new(lazy_layers_cache::SystemClock);
    let instance = async |name: &str, store: ChaosStore<SharedStore>| -> Cache {
        let builder = Cache::builder().ttl(LONG).l2(store, WireCodec::new()).name("test");
        let transport = broker.transport(name);
        assert!(!transport.name().is_empty());
        let cache = builder.event_bus(transport, WireCodec::new()).build().unwrap();
        cache.ready().await.unwrap();
        cache
    };
    let way = || ChaosStore::new(store.clone(), 1);
    let from_reader = way();
    let reader = instance("reader", from_reader.clone()).await;
    for write in WRITES {
        let cell = format!("{kind:?}, {write:?}");
        let from_writer = way();
        let writer = instance(&format!("{write:?}"), from_writer.clone()).await;
        store.insert_raw("k", OLD, LONG);
        reader.delete("k").await.unwrap();
        store.insert_raw("k", OLD, LONG);
        assert_eq!(reader.get("k").await.as_deref(), Some(&7), "{cell}");
        from_writer.set(CUT);
        from_reader.set(CUT);
        write_without_l2(write, &writer).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while reader.get_l1("k").as_deref() == Some(&7) {
            assert!(Instant::now() < deadline, "{cell}: the message does not arrive");
            sleep(ms(2)).await;
        }
        drop(writer);
        from_reader.set(Chaos::default());
        // The circuit to L2 is open for a while, and no invalidation is lost.
        while store.peek("k").as_deref() == Some(OLD) {
            assert_ne!(reader.get("k").await.as_deref(), Some(&7), "{cell}");
            assert!(Instant::now() < deadline, "{cell}: L2 keeps the old value");
            sleep(ms(2)).await;
        }
        assert_ne!(reader.get("k").await.as_deref(), Some(&7), "{cell}");
    }
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis() {
    on(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats() {
    on(Kind::Nats).await;
    on(Kind::JetStream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_rabbitmq() {
    on(Kind::Transient).await;
    on(Kind::Durable).await;
}
