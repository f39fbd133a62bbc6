//! An instance that is cut off from L2 alone, and changes a key: no peer that receives its message
//! serves the old value from L2 afterwards, and the first instance that reaches L2 removes it,
//! whether the first one lives or not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    CacheBuilder, Event, HandlerGuard, L1Options, L2Effect, L2Options, RedisStore, RedisTransport,
    Store, WireCodec,
    testing::{BusLink, Chaos, ChaosStore, SharedBus, SharedStore, TokioClock},
};
use tokio::time::{sleep, timeout};

use crate::support::{
    Cache,
    faulty_store::{Fate, FaultyStore},
    ms, on_tokio_time,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    settle,
};

const LONG: Duration = ms(3_600_000);
/// Longer than the pause between two retries, and the delay of a rebroadcast.
const RETRIED: Duration = ms(2_000);
/// The value that each test makes old.
const OLD: &[u8] = b"HC1M\x07";

struct World {
    bus: SharedBus,
    store: SharedStore,
}

impl World {
    fn new() -> Self {
        Self { bus: SharedBus::new(1), store: SharedStore::new(TokioClock::new()) }
    }

    fn builder(&self, store: impl Store) -> CacheBuilder<String, u32> {
        let builder = on_tokio_time().ttl(LONG).l2(store, WireCodec::new());
        builder.name("test").event_bus(self.bus.link(), WireCodec::new())
    }

    async fn instance(&self, store: impl Store) -> Cache {
        let cache = self.builder(store).build().unwrap();
        cache.ready().await.unwrap();
        cache
    }

    /// An instance that can be cut off from L2 alone.
    async fn instance_to_cut(&self) -> (Cache, ChaosStore<SharedStore>) {
        let store = ChaosStore::new(self.store.clone(), 1);
        (self.instance(store.clone()).await, store)
    }

    /// An instance that reads L2 each time, and cannot remove anything from it.
    async fn instance_that_only_reads(&self) -> Cache {
        let fails: fn(&str) -> Fate = |_| Fate::Fails;
        let store = FaultyStore::to(&self.store);
        let store = FaultyStore { delete: fails, pattern: fails, ..store };
        let cache = self.builder(store).l1(L1Options::default().ttl(ms(1))).build().unwrap();
        cache.ready().await.unwrap();
        cache
    }

    fn insert_old(&self, key: &str) {
        self.store.insert_raw(key, OLD, LONG);
    }
}

const CUT: Chaos =
    Chaos { fails: 1.0, fails_afterwards: 0.0, hangs: 0.0, delays: 0.0, longest_delay: ms(0) };

/// Counts the invalidations that a cache receives.
fn count_received(cache: &Cache) -> (Arc<AtomicUsize>, HandlerGuard) {
    let received = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&received);
    let guard = cache.on(move |event| {
        if let Event::InvalidationReceived { .. } = event {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (received, guard)
}

/// A change of "k".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    Delete,
    Set,
    Pattern,
    Clear,
    /// A delete whose caller drops the future.
    Dropped,
}

impl Write {
    async fn of(self, cache: &Cache) {
        match self {
            Self::Delete => drop(cache.delete("k").await),
            Self::Set => drop(cache.set("k", 8u32).await),
            Self::Pattern => drop(cache.delete_by_pattern("[jk]").await),
            Self::Clear => drop(cache.clear().await),
            Self::Dropped => drop(timeout(ms(10), cache.delete("k")).await),
        }
    }
}

const WRITES: [Write; 5] =
    [Write::Delete, Write::Set, Write::Pattern, Write::Clear, Write::Dropped];

#[tokio::test(start_paused = true)]
async fn no_peer_reads_the_old_value_from_l2() {
    for write in WRITES {
        let world = World::new();
        let (writer, link) = world.instance_to_cut().await;
        let reader = world.instance_that_only_reads().await;
        world.insert_old("k");
        assert_eq!(reader.get("k").await.as_deref(), Some(&7));
        let hangs = write == Write::Dropped;
        link.set(if hangs { Chaos { fails: 0.0, hangs: 1.0, ..CUT } } else { CUT });
        write.of(&writer).await;
        settle().await;
        for _ in 0..20 {
            assert_ne!(reader.get("k").await.as_deref(), Some(&7), "{write:?}");
            let loaded = reader.get_or_set("k", async || Ok::<_, std::io::Error>(9u32)).await;
            assert_ne!(loaded.unwrap().as_ref(), &7, "{write:?}");
            sleep(ms(100)).await;
        }
        assert!(world.store.peek("k").is_some(), "{write:?}");
        link.set(Chaos::default());
        sleep(RETRIED).await;
        assert_ne!(world.store.peek("k").as_deref(), Some(OLD), "{write:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_removes_the_old_value_though_the_writer_is_killed() {
    for write in WRITES {
        let world = World::new();
        let (writer, link) = world.instance_to_cut().await;
        let _peer = world.instance(world.store.clone()).await;
        world.insert_old("k");
        world.insert_old("other");
        link.set(CUT);
        write.of(&writer).await;
        settle().await;
        drop(writer);
        sleep(ms(50)).await;
        assert_eq!(world.store.peek("k"), None, "{write:?}");
        assert_eq!(world.store.peek("other").is_none(), write == Write::Clear, "{write:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_began_later_forgets_the_old_value_though_the_writer_is_killed() {
    for write in WRITES {
        let world = World::new();
        let (writer, link) = world.instance_to_cut().await;
        let (_peer, peer_link) = world.instance_to_cut().await;
        world.insert_old("k");
        link.set(CUT);
        peer_link.set(CUT);
        write.of(&writer).await;
        settle().await;
        drop(writer);
        let late = world.instance(world.store.clone()).await;
        sleep(ms(10)).await;
        // It has received no message, and L2 still has the value.
        assert_eq!(late.get("k").await.as_deref(), Some(&7), "{write:?}");
        assert!(late.get_l1("k").is_some(), "{write:?}");
        peer_link.set(Chaos::default());
        sleep(RETRIED).await;
        assert_eq!(world.store.peek("k"), None, "{write:?}");
        assert_eq!((late.get_l1("k"), late.get("k").await), (None, None), "{write:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_began_later_forgets_the_old_value_once_the_writer_reaches_l2() {
    for write in WRITES {
        let world = World::new();
        let (writer, link) = world.instance_to_cut().await;
        world.insert_old("k");
        link.set(CUT);
        // No peer receives this.
        write.of(&writer).await;
        settle().await;
        let late = world.instance(world.store.clone()).await;
        sleep(ms(10)).await;
        assert_eq!(late.get("k").await.as_deref(), Some(&7), "{write:?}");
        assert!(late.get_l1("k").is_some(), "{write:?}");
        link.set(Chaos::default());
        sleep(RETRIED).await;
        assert_eq!((world.store.peek("k"), late.get_l1("k")), (None, None), "{write:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_peer_broadcasts_for_all_and_no_broadcast_leads_to_another() {
    let world = World::new();
    let (writer, link) = world.instance_to_cut().await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(world.instance(world.store.clone()).await);
    }
    let (received, _guard) = count_received(&peers[0]);
    link.set(CUT);
    for _ in 0..10 {
        writer.delete("k").await.unwrap();
        sleep(ms(1_000)).await;
    }
    sleep(ms(60_000)).await;
    let before = received.load(Ordering::SeqCst);
    // The delete, and the broadcast of a peer, unless that is the counting one.
    assert!((10..=30).contains(&before), "{before} messages");
    drop(writer);
    sleep(ms(60_000)).await;
    assert_eq!(received.load(Ordering::SeqCst), before);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_newer_than_the_change_stays_in_l1() {
    let world = World::new();
    let (writer, link) = world.instance_to_cut().await;
    let (reader, other) =
        (world.instance(world.store.clone()).await, world.instance(world.store.clone()).await);
    sleep(ms(3_200)).await;
    link.set(CUT);
    writer.delete("k").await.unwrap();
    settle().await;
    let load = async |cache: &Cache| {
        cache.get_or_set("k", async || Ok::<_, std::io::Error>(9u32)).await.unwrap()
    };
    load(&writer).await;
    settle().await;
    load(&reader).await;
    sleep(RETRIED).await;
    for cache in [&writer, &reader, &other] {
        assert_eq!(cache.get_l1("k").as_deref(), Some(&9), "a peer has broadcast the delete again");
    }
    // The writer broadcasts it too, once its own retry has succeeded.
    link.set(Chaos::default());
    sleep(RETRIED).await;
    assert_eq!(reader.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_set_reaches_the_peers_and_stays_there_while_l2_loses_the_old_one() {
    let world = World::new();
    let (writer, link) = world.instance_to_cut().await;
    let (reader, other) =
        (world.instance(world.store.clone()).await, world.instance(world.store.clone()).await);
    sleep(ms(3_200)).await;
    world.insert_old("k");
    link.set(CUT);
    let report = writer.set("k", 8u32).await.unwrap();
    assert_eq!(report.l2, L2Effect::Pending);
    sleep(RETRIED).await;
    assert_eq!(world.store.peek("k"), None);
    for cache in [&writer, &reader, &other] {
        assert_eq!(cache.get_l1("k").as_deref(), Some(&8));
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_l2_leaves_its_changes_to_its_peers() {
    for write in WRITES {
        let world = World::new();
        let builder =
            on_tokio_time().ttl(LONG).name("test").event_bus(world.bus.link(), WireCodec::new());
        let writer = builder.build().unwrap();
        let peer = world.instance(world.store.clone()).await;
        writer.ready().await.unwrap();
        sleep(ms(10)).await;
        world.insert_old("k");
        assert_eq!(peer.get("k").await.as_deref(), Some(&7));
        write.of(&writer).await;
        sleep(ms(50)).await;
        assert_eq!(world.store.peek("k"), None, "{write:?}");
        assert_ne!(peer.get("k").await.as_deref(), Some(&7), "{write:?}");
        sleep(RETRIED).await;
        let kept = (write == Write::Set).then_some(8);
        assert_eq!(writer.get_l1("k").as_deref().copied(), kept, "{write:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_of_many_keys_while_the_bus_is_down_too_reaches_l2_by_the_peers() {
    let world = World::new();
    let link_to_bus = world.bus.link();
    let link = ChaosStore::new(world.store.clone(), 1);
    let writer: Cache = on_tokio_time()
        .l2(link.clone(), WireCodec::new())
        .name("test")
        .event_bus(link_to_bus.clone(), WireCodec::new())
        .build()
        .unwrap();
    writer.ready().await.unwrap();
    let reader = world.instance(world.store.clone()).await;
    link.set(CUT);
    link_to_bus.cut();
    for number in 0..100 {
        let key = number.to_string();
        world.insert_old(&key);
        if number % 2 == 0 {
            writer.delete(&*key).await.unwrap();
        }
    }
    link_to_bus.restore();
    sleep(ms(10_000)).await;
    for number in 0..100 {
        let key = number.to_string();
        let expected = (number % 2 == 1).then_some(7);
        assert_eq!(reader.get(&*key).await.as_deref().copied(), expected, "{number}");
    }
}

/// The generations under which the store has a value of the key.
fn versions(store: &SharedStore) -> Vec<u64> {
    (0..100).filter(|version| store.peek(&format!("k::v{version}")).is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_peer_removes_the_value_under_the_names_of_the_writer_and_of_itself() {
    for (deletes_of_peer, deletes_of_writer) in [(0, 0), (20, 3)] {
        let world = World::new();
        let versioned = async |store: ChaosStore<SharedStore>, link: BusLink| -> Cache {
            let builder = on_tokio_time().l1(L1Options::default().ttl(ms(1)));
            let builder = builder.l2_options(L2Options::default().versioning(true));
            let builder =
                builder.l2(store, WireCodec::new()).name("test").event_bus(link, WireCodec::new());
            let cache = builder.build().unwrap();
            cache.ready().await.unwrap();
            cache
        };
        let store = || ChaosStore::new(world.store.clone(), 1);
        let peer = versioned(store(), world.bus.link()).await;
        for _ in 0..deletes_of_peer {
            peer.delete("k").await.unwrap();
        }
        let (link, deaf) = (store(), world.bus.link());
        let writer = versioned(link.clone(), deaf.clone()).await;
        // So that it does not learn the generation of the peer.
        deaf.drop_incoming();
        for _ in 0..deletes_of_writer {
            writer.delete("k").await.unwrap();
        }
        sleep(ms(2_000)).await;
        for version in [deletes_of_peer, deletes_of_writer] {
            world.store.insert_raw(&format!("k::v{version}"), OLD, LONG);
        }
        link.set(CUT);
        writer.delete("k").await.unwrap();
        settle().await;
        drop(writer);
        sleep(ms(50)).await;
        assert_eq!(peer.get("k").await, None);
        assert_eq!(versions(&world.store), [0u64; 0], "{deletes_of_peer} {deletes_of_writer}");
    }
}

/// An instance over a real Redis, reached at `port`, with another connection to it as the bus.
async fn real(redis: &RedisServer, port: u16) -> Cache {
    let store = RedisStore::at(format!("redis://127.0.0.1:{port}/")).build().unwrap();
    let transport = RedisTransport::at(redis.url()).build().unwrap();
    let builder = Cache::builder().ttl(LONG).l2(store, WireCodec::new());
    let cache = builder.name("test").event_bus(transport, WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    cache
}

#[tokio::test]
async fn with_real_servers_no_peer_serves_the_old_value() {
    for (mode, is_killed) in [(Mode::Refuse, true), (Mode::Blackhole, true), (Mode::Reset, false)] {
        let redis = RedisServer::start();
        let (proxy, slow) = (Proxy::to(redis.port()), Proxy::to(redis.port()));
        let writer = real(&redis, proxy.port()).await;
        let peers = [real(&redis, slow.port()).await, real(&redis, redis.port()).await];
        writer.set("k", 7u32).await.unwrap();
        let get = async |of: &Cache| of.get("k").await.as_deref().copied();
        assert_eq!((get(&peers[0]).await, get(&peers[1]).await), (Some(7), Some(7)));
        proxy.set(mode);
        slow.set(Mode::Delay(ms(200)));
        writer.delete("k").await.unwrap();
        let deadline = Instant::now() + ms(5_000);
        while peers.iter().any(|peer| peer.get_l1("k").is_some()) {
            assert!(Instant::now() < deadline, "{mode:?}: the message does not arrive");
            sleep(ms(1)).await;
        }
        if is_killed {
            drop(writer);
        }
        for _ in 0..20 {
            assert_eq!((get(&peers[0]).await, get(&peers[1]).await), (None, None), "{mode:?}");
            sleep(ms(20)).await;
        }
        proxy.set(Mode::Pass);
    }
}
