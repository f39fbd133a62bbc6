//! Several caches on one bus session: one subscription and one publisher for all of them, and what
//! is a gap for one is one for all.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use lazy_layers_cache::{
    CacheBuilder, CacheManager, Event, EventBus, EventBusOptions, Subscribed, Transport,
    TransportFuture, WireCodec,
    testing::{BusFaults, BusLink, SharedBus, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Broken, Cache, Log, ms, on_tokio_time};

/// A link that counts, and can refuse to publish.
#[derive(Clone)]
struct Counted {
    link: BusLink,
    subscriptions: Arc<AtomicU64>,
    beacons: Arc<AtomicU64>,
    refuses: Arc<AtomicBool>,
}

impl Counted {
    fn new(bus: &SharedBus) -> Self {
        let (subscriptions, beacons, refuses) = Default::default();
        Self { link: bus.link(), subscriptions, beacons, refuses }
    }
}

impl Transport for Counted {
    fn name(&self) -> &'static str {
        self.link.name()
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Box::pin(async { Err("no messages now".into()) });
        }
        self.link.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.beacons.fetch_add(1, Ordering::Relaxed);
        self.link.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        self.link.subscribe()
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.link.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.link.disconnect()
    }
}

fn session(transport: impl Transport) -> CacheManager {
    CacheManager::builder()
        .clock(TokioClock::new())
        .event_bus(EventBus::new(transport))
        .build()
        .unwrap()
}

fn builder(session: &CacheManager, name: &str) -> CacheBuilder<String, u32> {
    session.cache(name).ttl(ms(600_000))
}

fn cache(session: &CacheManager, name: &str) -> Cache {
    builder(session, name).build().unwrap()
}

/// The caches `users` and `mails` on one session.
async fn pair(transport: impl Transport) -> (CacheManager, Cache, Cache) {
    let session = session(transport);
    let (users, mails) = (cache(&session, "users"), cache(&session, "mails"));
    users.ready().await.unwrap();
    mails.ready().await.unwrap();
    (session, users, mails)
}

async fn load(cache: &Cache, key: &str, value: u32) -> u32 {
    *cache.get_or_set(key, move || async move { Ok::<_, Broken>(value) }).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_the_cache_of_its_name_only() {
    let bus = SharedBus::new(1);
    let (_one, users, mails) = pair(bus.link()).await;
    let (_two, their_users, their_mails) = pair(bus.link()).await;
    sleep(ms(4_000)).await;
    for (key, value) in [("a", 1), ("b", 2)] {
        load(&their_users, key, value).await;
        load(&their_mails, key, 10 * value).await;
    }
    sleep(ms(10)).await;
    let primed =
        |cache: &Cache| (cache.get_l1("a").as_deref().copied(), cache.stats().values_received);
    assert_eq!(primed(&users), (Some(1), 2), "primed by the peer");
    assert_eq!(primed(&mails), (Some(10), 2));
    users.delete("a").await.unwrap();
    sleep(ms(10)).await;
    assert_eq!(their_users.get_l1("a"), None);
    assert_eq!(their_mails.get_l1("a").as_deref(), Some(&10));
    mails.clear().await.unwrap();
    sleep(ms(10)).await;
    assert_eq!(their_mails.get_l1("b"), None);
    assert_eq!(their_users.get_l1("b").as_deref(), Some(&2));
    for cache in [&users, &mails, &their_users, &their_mails] {
        assert_eq!(cache.stats().bus_gaps, 0);
        cache.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_caches_subscribe_once_and_are_as_quiet_as_one() {
    let mut counts = HashMap::new();
    for number in [1, 50] {
        let bus = SharedBus::new(1);
        let transport = Counted::new(&bus);
        let session = session(transport.clone());
        let caches: Vec<Cache> =
            (0..number).map(|number| cache(&session, &format!("cache{number}"))).collect();
        for cache in &caches {
            cache.ready().await.unwrap();
        }
        sleep(ms(10_000)).await;
        let begun = (transport.beacons.load(Ordering::Relaxed), bus.published());
        sleep(ms(60_000)).await;
        let beacons = transport.beacons.load(Ordering::Relaxed) - begun.0;
        let subscriptions = transport.subscriptions.load(Ordering::Relaxed);
        counts.insert(number, (subscriptions, beacons, bus.published() - begun.1));
        for cache in caches {
            cache.close().await;
        }
    }
    assert_eq!(counts[&1], counts[&50]);
    assert_eq!(counts[&1].0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_one_for_all_caches() {
    let bus = SharedBus::new(1);
    let (_session, users, mails) = pair(bus.link()).await;
    let peer = session(bus.link());
    let other = cache(&peer, "users");
    other.ready().await.unwrap();
    sleep(ms(4_000)).await;
    let logs = [Log::of(&users), Log::of(&mails)];
    load(&users, "k", 1).await;
    load(&mails, "k", 1).await;
    sleep(ms(5)).await;
    logs.iter().for_each(|log| drop(log.take()));
    bus.set_faults(BusFaults { loses: 1.0, ..BusFaults::default() });
    other.delete("other").await.unwrap();
    sleep(ms(1)).await;
    bus.set_faults(BusFaults::default());
    sleep(ms(2_500)).await;
    for (cache, log) in [&users, &mails].into_iter().zip(&logs) {
        assert_eq!(cache.stats().bus_gaps, 1);
        assert_eq!(log.take(), ["event-bus:gap"]);
        assert_eq!(cache.get_l1("k"), None, "untrusted");
        assert!(cache.health().event_bus.unwrap().trusted);
    }
}

/// The peer has one of the caches. It must find the loss of the first message for it, although it
/// has seen only messages and beacons of an instance with other caches.
#[tokio::test(start_paused = true)]
async fn a_peer_with_one_of_the_caches_finds_the_loss_of_its_first_message() {
    let bus = SharedBus::new(1);
    let (_session, users, mails) = pair(bus.link()).await;
    let alone =
        on_tokio_time().name("users").ttl(ms(600_000)).event_bus(bus.link(), WireCodec::new());
    let alone = alone.build().unwrap();
    alone.ready().await.unwrap();
    mails.delete("a").await.unwrap();
    sleep(ms(4_000)).await;
    load(&alone, "k", 1).await;
    sleep(ms(5)).await;
    bus.set_faults(BusFaults { loses: 1.0, ..BusFaults::default() });
    users.delete("k").await.unwrap();
    sleep(ms(1)).await;
    bus.set_faults(BusFaults::default());
    sleep(ms(3_000)).await;
    assert_eq!((alone.stats().bus_gaps, alone.get_l1("k")), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_cache_joins_a_running_session_and_is_trusted_at_once() {
    let bus = SharedBus::new(1);
    let (session, users, _mails) = pair(bus.link()).await;
    let (_peer, their_users, _) = pair(bus.link()).await;
    load(&users, "k", 1).await;
    sleep(ms(4_000)).await;
    let late = cache(&session, "late");
    late.ready().await.unwrap();
    assert!(late.health().event_bus.unwrap().trusted);
    load(&late, "k", 2).await;
    their_users.delete("other").await.unwrap();
    sleep(ms(1_500)).await;
    assert_eq!((late.get_l1("k").as_deref(), users.get_l1("k").as_deref()), (Some(&2), Some(&1)));
    let alone = on_tokio_time().name("late").event_bus(bus.link(), WireCodec::new());
    alone.build().unwrap().delete("k").await.unwrap();
    sleep(ms(10)).await;
    assert_eq!((late.get_l1("k"), users.get_l1("k").as_deref()), (None, Some(&1)));
    assert_eq!(users.stats().bus_gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_closed_or_dropped_leaves_the_others_alone() {
    let bus = SharedBus::new(1);
    let (session, users, mails) = pair(bus.link()).await;
    let (_peer, their_users, their_mails) = pair(bus.link()).await;
    sleep(ms(4_000)).await;
    for cache in [&their_users, &their_mails, &users] {
        load(cache, "k", 1).await;
    }
    sleep(ms(5)).await;
    bus.set_faults(BusFaults { fails: 1.0, ..BusFaults::default() });
    mails.delete("k").await.unwrap();
    drop(mails);
    sleep(ms(200)).await;
    bus.set_faults(BusFaults::default());
    sleep(ms(800)).await;
    assert_eq!(their_mails.get_l1("k"), None, "the outbox was published");
    // Its name is free.
    let mails = cache(&session, "mails");
    load(&mails, "k", 2).await;
    mails.close().await;
    sleep(ms(10_000)).await;
    assert_eq!(users.get_l1("k").as_deref(), Some(&1));
    assert_eq!(their_users.get_l1("k").as_deref(), Some(&1));
    users.delete("k").await.unwrap();
    sleep(ms(10)).await;
    assert_eq!(their_users.get_l1("k"), None);
    // The last one says goodbye: its silence is no gap.
    users.close().await;
    sleep(ms(10_000)).await;
    for cache in [their_users, their_mails] {
        assert_eq!(cache.stats().bus_gaps, 0);
    }
    // The session begins anew.
    let users = cache(&session, "users");
    users.ready().await.unwrap();
    assert!(users.health().event_bus.unwrap().trusted);
}

#[tokio::test(start_paused = true)]
async fn peers_find_a_gap_after_a_cache_was_closed_with_messages_unpublished() {
    let bus = SharedBus::new(1);
    let transport = Counted::new(&bus);
    let session = session(transport.clone());
    let users = cache(&session, "users");
    let mails = builder(&session, "mails").close_timeout(ms(100)).build().unwrap();
    let (_peer, their_users, their_mails) = pair(bus.link()).await;
    mails.ready().await.unwrap();
    sleep(ms(4_000)).await;
    load(&their_mails, "k", 1).await;
    load(&their_users, "k", 1).await;
    sleep(ms(5)).await;
    let lost = Arc::new(Mutex::new(0));
    let log = Arc::clone(&lost);
    let _events = mails.on(move |event| {
        if let Event::CloseLost { bus, .. } = event {
            *log.lock().unwrap() += bus;
        }
    });
    transport.refuses.store(true, Ordering::Relaxed);
    mails.delete("in flight").await.unwrap();
    sleep(ms(5)).await;
    mails.delete("k").await.unwrap();
    mails.close().await;
    assert_eq!(*lost.lock().unwrap(), 1, "not the one in flight");
    assert_eq!(their_mails.get_l1("k").as_deref(), Some(&1));
    transport.refuses.store(false, Ordering::Relaxed);
    sleep(ms(2_900)).await;
    assert_eq!((their_mails.get_l1("k"), their_mails.stats().bus_gaps), (None, 1));
    assert_eq!(their_users.stats().bus_gaps, 1);
    // The message in flight was published, because its number was used.
    assert_eq!(their_mails.stats().events_received, 1);
    users.delete("k").await.unwrap();
    sleep(ms(5)).await;
    assert_eq!(their_users.stats().events_received, 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_one_cache_of_a_session_accepts_unnamed_messages() {
    let bus = SharedBus::new(1);
    let session = session(bus.link());
    let unnamed = |name: &str| {
        builder(&session, name)
            .event_bus_options(EventBusOptions::default().accept_unnamed(true))
            .build()
    };
    let _first = unnamed("first").unwrap();
    assert!(unnamed("second").unwrap_err().to_string().contains("accept_unnamed"));
}

/// A cache that does not subscribe trusts its entries and receives no message, also beside one that
/// subscribes.
#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_subscribe_shares_the_publisher() {
    let bus = SharedBus::new(1);
    let (session, users, _mails) = pair(bus.link()).await;
    let silent = builder(&session, "silent").subscribe_to_events(false).build().unwrap();
    let alone =
        on_tokio_time().name("silent").ttl(ms(600_000)).event_bus(bus.link(), WireCodec::new());
    let alone = alone.build().unwrap();
    alone.ready().await.unwrap();
    sleep(ms(4_000)).await;
    load(&silent, "k", 1).await;
    load(&alone, "k", 1).await;
    sleep(ms(5)).await;
    alone.delete("k").await.unwrap();
    sleep(ms(5)).await;
    assert_eq!(silent.get_l1("k").as_deref(), Some(&1));
    load(&alone, "k", 1).await;
    silent.delete("k").await.unwrap();
    sleep(ms(5)).await;
    assert_eq!(alone.get_l1("k"), None);
    assert!(!silent.health().event_bus.unwrap().subscribed);
    assert!(users.health().event_bus.unwrap().subscribed);
}
