//! Many caches of one process: each name is one cache, what they share is shared, and one close
//! reaches all of them.

use std::sync::{Arc, Mutex};

use lazy_layers_cache::{
    BoxError, BuildError, BusEffect, CacheManager, CacheManagerBuilder, CacheOptions,
    CircuitBreaker, Codec, ErrorKind, EventBus, EventBusOptions, EventDedupe, L2Health,
    LazyLayersCache, LocalTransport, ManagerOptions, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::support::{
    Broken, Gate, Origin,
    log::{Lines, listen},
    ms, settle,
};

type Users = LazyLayersCache<u64, String>;

fn on_tokio_time() -> CacheManagerBuilder {
    CacheManager::builder().clock(TokioClock::new())
}

fn users(manager: &CacheManager) -> Result<Users, BuildError> {
    manager.cache::<u64, String>("users").build()
}

#[tokio::test(start_paused = true)]
async fn one_name_is_one_cache() {
    let manager = on_tokio_time().build().unwrap();
    let cache = users(&manager).unwrap();
    cache.set(&7, "Ada".to_owned()).await.unwrap();
    let same = users(&manager.clone()).unwrap();
    assert_eq!(same.get(&7).await.unwrap().as_str(), "Ada");
    let error = manager.cache::<str, String>("users").build().unwrap_err();
    assert_eq!(error.option(), "name");
    let text = error.to_string();
    for part in ["cache `users`", "u64 -> alloc::string::String", "str -> alloc::string::String"] {
        assert!(text.contains(part), "{text}");
    }
    for refused in [
        manager.cache::<u64, u32>("users").build().map(drop),
        manager.memory_cache::<u64, u32>("users").build().map(drop),
    ] {
        assert_eq!(refused.unwrap_err().option(), "name");
    }
    for wrong in ["", "a:b", "cache"] {
        let error = manager.cache::<u64, u32>(wrong).build().unwrap_err();
        assert_eq!(error.option(), "name");
        assert!(error.to_string().starts_with(&format!("cache `{wrong}`: name")), "{error}");
    }
    assert_eq!(manager.stats().keys().collect::<Vec<_>>(), ["users"]);
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_cache_that_is_closing_builds_a_new_one() {
    for is_dropped in [false, true] {
        let bus = SharedBus::new(1);
        let link = bus.link();
        let manager = on_tokio_time().event_bus(EventBus::new(link.clone())).build().unwrap();
        let old = users(&manager).unwrap();
        old.ready().await.unwrap();
        old.set(&7, "Ada".to_owned()).await.unwrap();
        // Its last message waits.
        link.cut();
        old.delete(&8).await.unwrap();
        let closing = tokio::spawn({
            let old = old.clone();
            async move { old.close().await }
        });
        if is_dropped {
            settle().await;
            closing.abort();
        }
        sleep(ms(10)).await;
        let new = users(&manager).expect("the name is free");
        assert_eq!((old.get_l1(&7), new.get_l1(&7)), (None, None));
        link.restore();
        new.ready().await.unwrap();
        new.set(&7, "Grace".to_owned()).await.unwrap();
        assert_eq!(new.get_l1(&7).unwrap().as_str(), "Grace");
        drop(old);
        manager.close().await;
    }
}

/// Else one caller gets a cache without L2 and event bus, or with values in another form, unseen.
#[tokio::test(start_paused = true)]
async fn one_name_is_one_kind_of_cache() {
    struct Text;
    impl Codec<String> for Text {
        fn encode(&self, value: &String) -> Result<Vec<u8>, BoxError> {
            Ok(value.clone().into_bytes())
        }

        fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
            Ok(String::from_utf8(bytes.to_vec())?)
        }
    }

    let manager = on_tokio_time().event_bus(LocalTransport::new()).build().unwrap();
    let memory = || manager.memory_cache::<u64, String>("users").build();
    let wire = || users(&manager);
    let text = || manager.cache_with_codec::<u64, String>("users", Text).build();
    type Build<'a> = &'a dyn Fn() -> Result<Users, BuildError>;
    let ways: [(Build<'_>, &str); 3] =
        [(&memory, "a memory cache"), (&wire, "codec::WireCodec"), (&text, "Text")];
    for (first, (build, name)) in ways.iter().enumerate() {
        let cache = build().unwrap();
        assert!(build().is_ok(), "{name} again is the same cache");
        for (_, (other, other_name)) in ways.iter().enumerate().filter(|(at, _)| *at != first) {
            let refused = other().unwrap_err();
            assert_eq!(refused.option(), "name");
            let text = refused.to_string();
            let (has, asked) = text.split_once(" already, not of ").expect(&text);
            assert!(has.contains(name) && asked.contains(other_name), "{text}");
        }
        drop(cache);
    }
}

#[test]
fn threads_that_ask_at_once_get_one_cache() {
    for _ in 0..50 {
        let manager = CacheManager::builder().build().unwrap();
        let barrier = std::sync::Barrier::new(4);
        let caches: Vec<Users> = std::thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                users(&manager).unwrap()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            caches[0].set(&1, "x".to_owned()).await.unwrap();
            for cache in &caches {
                assert!(cache.get_l1(&1).is_some());
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_cache_ends_and_its_name_builds_a_new_one() {
    let manager = on_tokio_time().build().unwrap();
    let value = Arc::new("Ada".to_owned());
    let cache = users(&manager).unwrap();
    cache.set(&7, Arc::clone(&value)).await.unwrap();
    assert_eq!(Arc::strong_count(&value), 2);
    drop(cache);
    assert_eq!(Arc::strong_count(&value), 1, "the manager keeps nothing of it");
    assert!(manager.health().caches.is_empty() && manager.stats().is_empty());
    assert!(users(&manager).unwrap().get(&7).await.is_none());
    // The types of a dropped cache bind nobody.
    let other = manager.cache::<u64, u32>("users").build().unwrap();
    other.close().await;
    assert!(manager.health().caches["users"].closed && manager.health().is_healthy());
    users(&manager).unwrap().set(&7, "new".to_owned()).await.unwrap();
    manager.ready().await.unwrap();
}

/// Else the shared bus of a manager looks down for ever, because one cache does not listen.
#[tokio::test(start_paused = true)]
async fn a_cache_that_does_not_subscribe_says_nothing_about_the_subscription_of_the_others() {
    let shared = |manager: &CacheManager| {
        let bus = manager.health().shared.event_bus.unwrap();
        (bus.subscribes, bus.subscribed, bus.is_healthy())
    };
    let build = |manager: &CacheManager, name, subscribes: bool| {
        let cache = manager.cache::<u64, String>(name).subscribe_to_events(subscribes);
        cache.build().unwrap()
    };
    // The order of the names is the order of the sum.
    for mute in ["a", "z"] {
        let manager = on_tokio_time().event_bus(LocalTransport::new()).build().unwrap();
        let _mute = build(&manager, mute, false);
        assert_eq!(shared(&manager), (false, false, true));
        let _users = build(&manager, "users", true);
        assert_eq!(shared(&manager), (true, false, false), "not subscribed yet");
        manager.ready().await.unwrap();
        assert_eq!(shared(&manager), (true, true, true));
        let health = manager.health().caches[mute].event_bus.unwrap();
        assert!(!health.subscribes && !health.subscribed);
    }
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_the_last_messages_of_caches_that_were_dropped() {
    let bus = SharedBus::new(1);
    let manager = on_tokio_time().event_bus(EventBus::new(bus.link())).build().unwrap();
    let cache = users(&manager).unwrap();
    manager.ready().await.unwrap();
    let before = bus.published();
    // As a router of axum does with its state when `serve` returns.
    drop(cache);
    manager.close().await;
    assert_eq!(bus.published() - before, 1, "the goodbye");
}

#[tokio::test(start_paused = true)]
async fn caches_outlive_the_handles_of_their_manager() {
    let bus = SharedBus::new(1);
    let make = || {
        let manager = on_tokio_time().event_bus(bus.link()).build().unwrap();
        users(&manager).unwrap()
    };
    let (one, other) = (make(), make());
    one.ready().await.unwrap();
    other.ready().await.unwrap();
    other.set(&7, "Ada".to_owned()).await.unwrap();
    one.delete(&7).await.unwrap();
    sleep(ms(100)).await;
    assert!(other.get(&7).await.is_none());
    one.close().await;
    other.close().await;
}

#[tokio::test(start_paused = true)]
async fn caches_of_two_processes_meet_by_name_and_share_the_instance_id() {
    let bus = SharedBus::new(1);
    let store = SharedStore::new(TokioClock::new());
    let process = |id: &str| {
        let store = store.clone();
        let own = move |name: &str| {
            if name == "users" { store.clone() } else { SharedStore::new(TokioClock::new()) }
        };
        on_tokio_time().event_bus(bus.link()).l2(own).instance_id(id).build().unwrap()
    };
    let (a, b) = (process("host-a"), process("host-b"));
    let sources = Arc::new(Mutex::new(Vec::new()));
    let (users_a, users_b) = (users(&a).unwrap(), users(&b).unwrap());
    let mails_a = a.cache::<u64, String>("mails").build().unwrap();
    let mails_b = b.cache::<u64, String>("mails").build().unwrap();
    let _guards = [&users_b, &mails_b].map(|cache| {
        let sources = Arc::clone(&sources);
        cache.on(move |event| {
            if let lazy_layers_cache::Event::SetReceived { source, .. } = event {
                sources.lock().unwrap().push((*source).to_owned());
            }
        })
    });
    a.ready().await.unwrap();
    b.ready().await.unwrap();
    sleep(ms(3_000)).await;
    users_a.set(&7, "Ada".to_owned()).await.unwrap();
    mails_a.set(&7, "a mail".to_owned()).await.unwrap();
    sleep(ms(1_000)).await;
    assert_eq!(users_b.get(&7).await.unwrap().as_str(), "Ada");
    assert_eq!(mails_b.get_l1(&7).unwrap().as_str(), "a mail");
    assert_eq!(*sources.lock().unwrap(), ["host-a", "host-a"]);
    users_a.delete(&7).await.unwrap();
    sleep(ms(1_000)).await;
    assert!(users_b.get(&7).await.is_none());
    assert!(mails_b.get_l1(&7).is_some(), "the other name is not touched");
    sleep(ms(20_000)).await;
    for manager in [&a, &b] {
        assert!(manager.health().is_healthy(), "{:?}", manager.health());
        assert!(manager.stats().values().all(|stats| stats.bus_gaps == 0));
    }
    assert_eq!(
        (a.health().instance_id, b.health().instance_id),
        ("host-a".into(), "host-b".into())
    );
    a.close().await;
    b.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_caches_share_is_refused_on_a_builder() {
    let bus = EventBusOptions::default().trust_timeout(ms(1_000)).publish_timeout(ms(2_000));
    let defaults = CacheOptions::default().event_bus(bus);
    let manager = on_tokio_time()
        .options(defaults)
        .event_bus(EventBus::new(LocalTransport::new()))
        .build()
        .unwrap();
    let asked = || manager.cache::<u64, String>("users");
    let group = EventBusOptions::default;
    for (option, builder) in [
        ("event_bus.trust_timeout", asked().event_bus_options(group().trust_timeout(ms(2_000)))),
        ("event_bus.publish_timeout", asked().event_bus_options(group().publish_timeout(ms(9)))),
        ("event_dedupe", asked().event_dedupe(EventDedupe::default().max_entries(1))),
        (
            "l2_circuit_breaker",
            asked().l2_circuit_breaker(CircuitBreaker::default().cooldown(ms(1))),
        ),
        (
            "event_bus_circuit_breaker",
            asked().event_bus_circuit_breaker(CircuitBreaker::default().failure_threshold(1)),
        ),
        ("instance_id", asked().instance_id("other")),
        ("clock", asked().clock(TokioClock::new())),
        ("event_bus", asked().event_bus(LocalTransport::new(), WireCodec::new())),
        ("name", asked().name("other")),
        ("ttl", asked().ttl(ms(0))),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(&format!("cache `users`: {option} ")), "{text}");
        assert!(text.contains("; "), "{text}");
    }
    // A group that is replaced for its other options takes those of the manager.
    let cache = asked().event_bus_options(group().confirm_deletes(true)).build().unwrap();
    assert_eq!(cache.guarantees().max_staleness, Some(ms(1_000)));
    assert_eq!(cache.delete(&1).await.unwrap().bus, BusEffect::Confirmed);
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn at_most_one_cache_accepts_messages_without_a_namespace() {
    let manager = on_tokio_time().event_bus(LocalTransport::new()).build().unwrap();
    let build = |name: &str| {
        let unnamed = EventBusOptions::default().accept_unnamed(true);
        manager.cache::<u64, u32>(name).event_bus_options(unnamed).build()
    };
    let first = build("first").unwrap();
    let error = build("second").unwrap_err();
    assert_eq!(error.option(), "event_bus.accept_unnamed");
    let text = error.to_string();
    assert!(text.contains("`second`") && text.contains("`first`"), "{text}");
    build("first").unwrap();
    drop(first);
    build("second").unwrap();
    // Without a bus the option does nothing.
    let unnamed = EventBusOptions::default().accept_unnamed(true);
    let memory = manager.memory_cache::<u64, u32>("third");
    memory.event_bus_options(unnamed).build().unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_caches_have_one_circuit_of_l2() {
    let stores = Arc::new(Mutex::new(Vec::new()));
    let of_name = Arc::clone(&stores);
    let l2 = move |_: &str| {
        let store = SharedStore::new(TokioClock::new());
        of_name.lock().unwrap().push(store.clone());
        store
    };
    let manager = on_tokio_time().l2(l2).build().unwrap();
    let caches: Vec<Users> = (0..50)
        .map(|number| manager.cache::<u64, String>(&format!("cache-{number}")).build().unwrap())
        .collect();
    let own = SharedStore::new(TokioClock::new());
    let apart = manager.cache::<u64, String>("apart").l2(own, WireCodec::new()).build().unwrap();
    for store in &*stores.lock().unwrap() {
        store.set_fault(StoreFault::Hangs);
    }
    let begun = Instant::now();
    for cache in &caches {
        cache.get_or_set(&1, || async { Ok::<_, Broken>("loaded".to_owned()) }).await.unwrap();
    }
    // Three reads reach the timeout of 500 ms: one circuit's worth of waiting for all caches.
    assert!(begun.elapsed() <= ms(3 * 500 + 3 * 1_000), "{:?}", begun.elapsed());
    assert_eq!(manager.health().shared.l2, Some(L2Health::Skipped));
    assert!(!manager.health().is_healthy());
    assert_eq!(apart.health().l2, Some(L2Health::Answering), "it has a store of its own");
    for store in &*stores.lock().unwrap() {
        store.set_fault(StoreFault::None);
    }
    sleep(ms(30_000)).await;
    caches[7].get(&2).await;
    assert_eq!(manager.health().shared.l2, Some(L2Health::Answering), "one probe is for all");
    for cache in &caches {
        assert_eq!(cache.health().l2, Some(L2Health::Answering));
    }
    manager.close().await;
}

#[tokio::test(start_paused = true)]
async fn close_reaches_all_caches_within_one_deadline() {
    let options = CacheOptions::default().close_timeout(ms(2_000));
    let own = options.clone().close_timeout(ms(60_000));
    let options = ManagerOptions::new(options).cache("slow", own);
    let store = SharedStore::new(TokioClock::new());
    let of_name = store.clone();
    let manager = on_tokio_time()
        .options(options)
        .l2(
            move |name| {
                if name == "lossy" { of_name.clone() } else { SharedStore::new(TokioClock::new()) }
            },
        )
        .event_bus(LocalTransport::new())
        .build()
        .unwrap();
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let caches =
        ["slow", "slower", "lossy"].map(|name| manager.cache::<String, u32>(name).build().unwrap());
    manager.ready().await.unwrap();
    let origin = Origin::default();
    let stuck: Vec<_> = caches[..2]
        .iter()
        .map(|cache| {
            let (cache, load) = (cache.clone(), origin.load(Gate::Never));
            tokio::spawn(async move { cache.get_or_set("k", load).await.map(drop) })
        })
        .collect();
    settle().await;
    store.set_fault(StoreFault::Fails);
    caches[2].delete("k").await.unwrap();
    let lost = Arc::new(Mutex::new(0));
    let _guard = caches[2].on({
        let lost = Arc::clone(&lost);
        move |event| {
            if let lazy_layers_cache::Event::CloseLost { l2, .. } = event {
                *lost.lock().unwrap() += l2;
            }
        }
    });
    let begun = Instant::now();
    let closing = tokio::spawn({
        let manager = manager.clone();
        async move { manager.close().await }
    });
    settle().await;
    assert!(manager.health().closed && caches.iter().all(|cache| cache.health().closed));
    tokio::join!(manager.close(), async { closing.await.unwrap() });
    let took = begun.elapsed();
    assert!((ms(2_000)..=ms(4_100)).contains(&took), "{took:?}");
    for stuck in stuck {
        assert_eq!(stuck.await.unwrap().unwrap_err().kind(), ErrorKind::Abandoned);
    }
    assert_eq!((*lost.lock().unwrap(), manager.stats()["lossy"].invalidations_lost), (1, 1));
    assert_eq!(manager.stats()["slow"].invalidations_lost, 0);
    assert_eq!(tasks(), before, "no task is left");
    manager.close().await;
    assert_eq!(begun.elapsed(), took, "a second close has nothing to wait for");
    assert_eq!(*lost.lock().unwrap(), 1);
    assert_eq!(manager.ready().await.unwrap_err().kind(), ErrorKind::Closed);
    for name in ["slow", "new"] {
        let error = manager.cache::<String, u32>(name).build().unwrap_err();
        assert!(error.to_string().starts_with(&format!("cache `{name}`: manager is closed")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_section_without_a_cache_is_one_warning_with_the_nearest_name() {
    let warnings = Lines::default();
    let _default = listen(warnings.clone());
    let options = || {
        ManagerOptions::default()
            .cache("usres", CacheOptions::default())
            .cache("orders", CacheOptions::default())
    };
    let manager = on_tokio_time().options(options()).build().unwrap();
    let users = users(&manager).unwrap();
    let orders = manager.cache::<u64, u32>("orders").build().unwrap();
    assert!(warnings.take().is_empty());
    manager.ready().await.unwrap();
    assert_eq!(
        warnings.take(),
        ["WARN no cache was asked for under the name of the section [caches.usres], so its \
          options have no effect, did you mean `users`?"]
    );
    manager.ready().await.unwrap();
    manager.close().await;
    drop((manager, users, orders));
    assert!(warnings.take().is_empty());
    // Never ready: at the close, or at the end.
    let manager = on_tokio_time().options(options()).build().unwrap();
    manager.close().await;
    assert_eq!(warnings.take().len(), 2);
    let manager = on_tokio_time().options(options()).build().unwrap();
    let cache = manager.cache::<u64, u32>("orders").build().unwrap();
    drop(manager);
    assert_eq!(warnings.take().len(), 1);
    drop(cache);
}

#[tokio::test(start_paused = true)]
async fn options_of_a_second_builder_are_ignored_with_a_warning() {
    let warnings = Lines::default();
    let _default = listen(warnings.clone());
    let manager = on_tokio_time().build().unwrap();
    let cache = manager.cache::<u64, u32>("a").ttl(ms(1_000)).build().unwrap();
    manager.cache::<u64, u32>("a").ttl(ms(1_000)).build().unwrap();
    assert!(warnings.take().is_empty());
    let same = manager.cache::<u64, u32>("a").ttl(ms(9_000)).build().unwrap();
    assert_eq!(warnings.take().len(), 1);
    same.set(&1, 1).await.unwrap();
    sleep(ms(1_000)).await;
    assert!(cache.get(&1).await.is_none());
    // Neither is its store.
    let store = SharedStore::new(TokioClock::new());
    let own = || {
        let asked = manager.cache::<u64, u32>("b");
        asked.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let cache = manager.cache::<u64, u32>("b").build().unwrap();
    assert!(own().health().l2.is_none());
    assert_eq!(warnings.take().len(), 1);
    drop(cache);
    let cache = own();
    assert!(own().health().l2.is_some());
    assert!(warnings.take().is_empty());
    drop(cache);
}
