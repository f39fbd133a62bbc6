//! `explain`: where a key is and what `get_or_set` would do now; each explanation is compared with
//! a `get_or_set` that follows, and changes nothing. Paused time.

use std::time::Duration;

use lazy_layers_cache::{
    CacheBuilder, CircuitBreaker, Codec, DistributedLock, ErrorKind, Explanation, FailSafe,
    KeyInL1, KeyInL2, L1Options, L2Options, L2Timeouts, LazyLayersCache, LeaseRequest,
    LeaseResponse, NegativeCache, NextStep, RedisStore, Source, StaleReason, Store, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use serde_json::{json, to_value};
use tokio::time::{Instant, sleep};

use crate::support::{
    Cache, Gate, Log, Origin, cluster::Cluster, ms, on_tokio_time, redis::RedisServer, settle,
};

const TTL: Duration = ms(1_000);
const STALE: Duration = ms(60_000);
const PAUSE: Duration = ms(400);

fn builder() -> CacheBuilder<String, u32> {
    let fail_safe = FailSafe::enabled().stale_ttl(STALE).throttle(PAUSE);
    on_tokio_time()
        .ttl(TTL)
        .fail_safe(fail_safe)
        .negative_cache(NegativeCache::enabled().ttl(ms(300)))
}

fn over(store: &SharedStore) -> CacheBuilder<String, u32> {
    builder().l2(store.clone(), WireCodec::new())
}

fn store() -> SharedStore {
    SharedStore::new(TokioClock::new())
}

fn encoded(value: Option<u32>) -> Vec<u8> {
    Codec::<Option<u32>>::encode(&WireCodec::new(), &value).unwrap()
}

/// Explains a key, and checks that this is no event and changes no counter.
async fn explain(cache: &Cache, key: &str) -> Explanation {
    let (log, stats) = (Log::of(cache), cache.stats());
    let explanation = cache.explain(key).await;
    assert_eq!((cache.stats(), log.take()), (stats, Vec::new()), "{explanation}");
    assert_eq!(explanation.key, key);
    explanation
}

/// Explains the key `k`, and checks the step against a `get_or_set` that follows.
async fn proved(cache: &Cache) -> Explanation {
    let explanation = explain(cache, "k").await;
    let origin = Origin::default();
    let outcome = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await;
    let expected = match explanation.next {
        NextStep::ServeL1 => (Source::L1, true, None),
        NextStep::ServeMissing => {
            let outcome = outcome.as_ref().unwrap();
            assert_ne!(outcome.source, Source::Loader, "{explanation}");
            (outcome.source, false, None)
        }
        NextStep::ServeStale => (Source::L1, true, Some(StaleReason::Throttled)),
        NextStep::ServeL2 => (Source::L2, true, None),
        NextStep::ReadL2 | NextStep::Load => (Source::Loader, true, None),
        NextStep::Refuse => {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Closed);
            return explanation;
        }
        other => panic!("{other:?} is not to be proved here"),
    };
    let outcome = outcome.unwrap();
    let found = (outcome.source, outcome.value.is_some(), outcome.stale);
    assert_eq!(found, expected, "{explanation}");
    explanation
}

async fn load(cache: &Cache, gate: Gate) {
    let _ = cache.get_or_set("k", Origin::default().load(gate)).await;
}

fn spawn_load(cache: &Cache, gate: Gate) {
    let (cache, load) = (cache.clone(), Origin::default().load(gate));
    tokio::spawn(async move { cache.get_or_set("k", load).await });
}

#[tokio::test(start_paused = true)]
async fn a_value_of_l1_is_fresh_then_stale_then_gone() {
    let cache = builder().build().unwrap();
    let nothing = explain(&cache, "k").await;
    assert_eq!((&nothing.l1, &nothing.l2), (&Some(KeyInL1::Absent), &None));
    assert!(nothing.l1_trusted && !nothing.has_fallback && nothing.loads.is_empty());
    assert_eq!(nothing.next, NextStep::Load);

    cache.set("k", 1).await.unwrap();
    sleep(ms(100)).await;
    let fresh = proved(&cache).await;
    let (age, fresh_for) = (ms(100), ms(900));
    let expected = KeyInL1::Fresh { age, fresh_for, stale_for: STALE, trusted: true };
    assert_eq!((fresh.l1, fresh.next), (Some(expected), NextStep::ServeL1));

    sleep(ms(1_400)).await;
    let stale = explain(&cache, "k").await;
    let (age, stale_for) = (ms(1_500), STALE - ms(500));
    let expected = KeyInL1::Stale { age, stale_for, paused_for: None };
    assert_eq!((stale.l1, stale.next), (Some(expected), NextStep::Load));
    assert!(stale.has_fallback);

    load(&cache, Gate::Err).await;
    sleep(ms(100)).await;
    let paused = proved(&cache).await;
    let (age, stale_for) = (ms(1_600), STALE - ms(600));
    let expected = KeyInL1::Stale { age, stale_for, paused_for: Some(PAUSE - ms(100)) };
    assert_eq!((paused.l1, paused.next), (Some(expected), NextStep::ServeStale));

    sleep(STALE).await;
    let gone = proved(&cache).await;
    assert_eq!((gone.l1, gone.next), (Some(KeyInL1::Absent), NextStep::Load));
}

#[tokio::test(start_paused = true)]
async fn a_negative_entry_of_l1_is_told_from_no_entry() {
    let cache = builder().build().unwrap();
    load(&cache, Gate::None).await;
    sleep(ms(100)).await;
    let negative = proved(&cache).await;
    let expected = KeyInL1::Missing { fresh_for: ms(200), trusted: true };
    assert_eq!((negative.l1, negative.next), (Some(expected), NextStep::ServeMissing));
    sleep(ms(200)).await;
    assert_eq!(proved(&cache).await.next, NextStep::Load);
}

#[tokio::test(start_paused = true)]
async fn loads_in_flight_are_listed_and_joined_unless_the_key_was_changed_since() {
    let cache = builder().build().unwrap();
    for _ in 0..3 {
        spawn_load(&cache, Gate::Never);
    }
    sleep(ms(50)).await;
    let listed = |explanation: &Explanation| -> Vec<_> {
        explanation.loads.iter().map(|load| (load.age, load.followers)).collect()
    };
    let one = explain(&cache, "k").await;
    assert_eq!((listed(&one), one.next), (vec![(ms(50), 2)], NextStep::JoinLoad));

    cache.delete("k").await.unwrap();
    let detached = explain(&cache, "k").await;
    assert_eq!((listed(&detached), detached.next), (vec![(ms(50), 2)], NextStep::Load));

    spawn_load(&cache, Gate::Never);
    sleep(ms(10)).await;
    let two = explain(&cache, "k").await;
    assert_eq!((listed(&two), two.next), (vec![(ms(60), 2), (ms(10), 0)], NextStep::JoinLoad));

    cache.delete("k").await.unwrap();
    spawn_load(&cache, Gate::Never);
    settle().await;
    let full = explain(&cache, "k").await;
    assert_eq!((listed(&full).len(), full.waiting, full.next), (2, 1, NextStep::WaitForNext));

    cache.set("k", 1).await.unwrap();
    let set = explain(&cache, "k").await;
    assert_eq!((set.loads.len(), set.next), (2, NextStep::ServeL1));
    assert_eq!(explain(&cache, "other").await.loads, []);
    // Both loads have exceeded `inflight.ttl`: they do not count any more.
    cache.delete("k").await.unwrap();
    sleep(ms(5_100)).await;
    assert_ne!(explain(&cache, "k").await.next, NextStep::WaitForNext);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_nobody_may_join_is_not_joined() {
    use lazy_layers_cache::Coalescing;
    for coalescing in [Coalescing::disabled(), Coalescing::default().max_followers(0)] {
        let cache = builder().inflight(coalescing).build().unwrap();
        spawn_load(&cache, Gate::Never);
        settle().await;
        assert_eq!(proved(&cache).await.next, NextStep::Load);
    }
}

#[tokio::test(start_paused = true)]
async fn l2_is_read_without_a_lease() {
    let store = store();
    let (cache, peer) = (over(&store).build().unwrap(), over(&store).build().unwrap());
    let absent = explain(&cache, "k").await;
    assert_eq!((absent.l2, absent.next), (Some(KeyInL2::Absent), NextStep::ReadL2));
    assert_eq!(store.operations(), 2, "the value, and what is beside it");

    peer.set("k", 1).await.unwrap();
    sleep(ms(100)).await;
    let entries = cache.stats().l1_entries;
    let fresh = explain(&cache, "k").await;
    let expected = KeyInL2::Fresh { fresh_for: Some(ms(900)) };
    assert_eq!((&fresh.l1, &fresh.l2), (&Some(KeyInL1::Absent), &Some(expected)));
    assert_eq!(cache.stats().l1_entries, entries, "no promotion");
    assert_eq!(proved(&cache).await.next, NextStep::ServeL2);
    assert_eq!(proved(&cache).await.next, NextStep::ServeL1);

    // Stores number their leases: the first one is given only now.
    let untouched = SharedStore::new(TokioClock::new());
    explain(&over(&untouched).build().unwrap(), "k").await;
    let request =
        LeaseRequest { lease_for: TTL, refresh: false, with_window: true, with_missing: true };
    match untouched.get_or_lease("k", request).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => assert_eq!(lease.token(), "1"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_negative_entry_of_l2_is_served_where_negative_entries_are_on() {
    for is_on in [true, false] {
        let store = store();
        let negative = NegativeCache::enabled().ttl(ms(300));
        let writer = over(&store).build().unwrap();
        load(&writer, Gate::None).await;
        sleep(ms(100)).await;
        let negative = if is_on { negative } else { NegativeCache::default() };
        let cache = over(&store).negative_cache(negative).build().unwrap();
        let explanation = proved(&cache).await;
        assert_eq!(explanation.l2, Some(KeyInL2::Missing { fresh_for: ms(200) }));
        let expected = if is_on { NextStep::ServeMissing } else { NextStep::ReadL2 };
        assert_eq!(explanation.next, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_of_l2_is_told_from_no_entry() {
    let store = store();
    let (cache, peer) = (over(&store).build().unwrap(), over(&store).build().unwrap());
    peer.set("k", 1).await.unwrap();
    sleep(ms(1_500)).await;
    let stale = explain(&cache, "k").await;
    let stale_for = STALE - ms(500);
    assert_eq!((stale.l2, stale.next), (Some(KeyInL2::Stale { stale_for }), NextStep::ReadL2));
    let served = cache.get_or_set("k", Origin::default().load(Gate::Err)).outcome().await.unwrap();
    assert_eq!((served.value.as_deref(), served.stale), (Some(&1), Some(StaleReason::LoaderError)));
    sleep(STALE).await;
    assert_eq!(explain(&cache, "k").await.l2, Some(KeyInL2::Absent));
}

#[tokio::test(start_paused = true)]
async fn the_owner_of_the_lock_and_the_lease_of_a_load_are_told() {
    for versioning in [false, true] {
        let store = store();
        let build = || {
            let options = L2Options::default().versioning(versioning);
            let lock = DistributedLock::enabled().ttl(ms(9_000));
            over(&store).l2_options(options).distributed_lock(lock).build().unwrap()
        };
        let (cache, peer) = (build(), build());
        let free = explain(&cache, "k").await;
        assert_eq!((&free.lock, &free.l2_lease, free.lock_is_own), (&None, &None, false));

        spawn_load(&peer, Gate::Never);
        sleep(ms(1_000)).await;
        let (own, other) = (explain(&peer, "k").await, explain(&cache, "k").await);
        assert_eq!((own.lock_is_own, other.lock_is_own), (true, false), "{own}\n{other}");
        assert_eq!((&own.lock, &own.l2_lease), (&other.lock, &other.l2_lease));
        let (lock, lease) = (other.lock.clone().unwrap(), other.l2_lease.clone().unwrap());
        assert_eq!((lock.owner.len(), lock.valid_for), (32, ms(8_000)));
        assert_eq!((lease.is_write, lease.valid_for), (false, ms(31_000)));
        let text = other.to_string();
        for line in [
            "L2 has the lease of a load, which an instance began, for 31s".to_owned(),
            format!("the lock is held by another instance, owner {:?}, for 8s", lock.owner),
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert!(own.to_string().contains("held by this instance"), "{own}");
        let json = to_value(&other).unwrap();
        assert_eq!(json["lock"], json!({ "owner": lock.owner, "valid_for": "8s" }));
        assert_eq!(json["l2_lease"], json!({ "is_write": false, "valid_for": "31s" }));
        peer.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_say_what_it_has_is_told() {
    use lazy_layers_cache::{Inspection, StoreFuture, testing::ForwardStore};
    struct Silent(SharedStore, bool);

    impl ForwardStore for Silent {
        fn inner(&self) -> std::sync::Arc<dyn Store> {
            std::sync::Arc::new(self.0.clone())
        }

        fn inspect<'a>(
            &'a self,
            _key: &'a str,
            _lock: &'a str,
        ) -> StoreFuture<'a, Option<Inspection>> {
            let fails = self.1;
            Box::pin(async move { if fails { Err("not now".into()) } else { Ok(None) } })
        }
    }

    for fails in [false, true] {
        let store = store();
        let silent = Silent(store.clone(), fails);
        let cache = builder().l2(silent, WireCodec::new()).build().unwrap();
        let unknown = proved(&cache).await;
        assert_eq!((unknown.l2, unknown.next), (Some(KeyInL2::NotFresh), NextStep::ReadL2));
        let fresh = explain(&cache, "k").await;
        assert!(matches!(fresh.l2, Some(KeyInL2::Fresh { .. })), "{fresh}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_value_are_told_and_left() {
    let store = store();
    let cache = over(&store).build().unwrap();
    store.insert_raw("k", encoded(None), STALE);
    let null = proved(&cache).await;
    assert_eq!((null.l2, null.next), (Some(KeyInL2::Null), NextStep::ServeMissing));

    let cache = over(&store).build().unwrap();
    store.insert_raw("k", "not from here", STALE);
    let unreadable = explain(&cache, "k").await;
    assert!(matches!(unreadable.l2, Some(KeyInL2::Unreadable { .. })), "{unreadable}");
    assert!(store.peek("k").is_some(), "explain removes nothing");
    assert_eq!(proved(&cache).await.next, NextStep::Load);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_l2_cannot_hold_is_in_l1_only() {
    let store = store();
    let cache = over(&store).l2_options(L2Options::default().max_key_bytes(3)).build().unwrap();
    let refused = explain(&cache, "long key").await;
    assert!(matches!(refused.l2, Some(KeyInL2::Refused { .. })), "{refused}");
    assert_eq!((refused.next, store.operations()), (NextStep::Load, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pending_delete_keeps_l2_from_being_read() {
    for by_pattern in [false, true] {
        let store = store();
        let cache = over(&store).build().unwrap();
        cache.set("k", 1).await.unwrap();
        store.set_fault(StoreFault::Fails);
        match by_pattern {
            true => cache.delete_by_pattern("k*").await.unwrap(),
            false => cache.delete("k").await.unwrap(),
        };
        let pending = explain(&cache, "k").await;
        assert_eq!((pending.l2, pending.next), (Some(KeyInL2::Pending), NextStep::Load));
        store.set_fault(StoreFault::None);
        sleep(ms(120_000)).await;
        assert_eq!(explain(&cache, "k").await.l2, Some(KeyInL2::Absent));
    }
}

#[tokio::test(start_paused = true)]
async fn an_l2_that_fails_or_hangs_is_told_within_its_deadline_and_does_not_open_the_circuit() {
    for fault in [StoreFault::Fails, StoreFault::Hangs, StoreFault::HangsAfterwards] {
        let store = store();
        let breaker = CircuitBreaker::default().failure_threshold(3).cooldown(ms(10_000));
        let timeouts = L2Timeouts::default().read(ms(70));
        let cache = over(&store).l2_circuit_breaker(breaker).l2_timeouts(timeouts);
        let cache = cache.build().unwrap();
        store.set_fault(fault);
        for _ in 0..10 {
            let began = Instant::now();
            let down = explain(&cache, "k").await;
            assert!(began.elapsed() <= ms(71), "{:?}", began.elapsed());
            assert!(matches!(down.l2, Some(KeyInL2::Unreachable { .. })), "{down}");
            assert_eq!(down.next, NextStep::ReadL2);
        }
        // Two failures, then a success that nobody sees, then the third failure.
        for _ in 0..2 {
            cache.get("k").await;
        }
        store.set_fault(StoreFault::None);
        assert_eq!(explain(&cache, "k").await.l2, Some(KeyInL2::Absent));
        store.set_fault(fault);
        cache.get("k").await;
        let operations = store.operations();
        let skipped = explain(&cache, "k").await;
        assert_eq!((skipped.l2, skipped.next), (Some(KeyInL2::Skipped), NextStep::Load));
        sleep(ms(10_000)).await;
        let due = explain(&cache, "k").await;
        assert_eq!((due.l2, due.next), (Some(KeyInL2::Skipped), NextStep::ReadL2));
        assert_eq!(store.operations(), operations, "the probe is left to a caller");
    }
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_entry_is_looked_up_in_l2_or_loaded_first() {
    for with_l2 in [false, true] {
        for with_fail_safe in [false, true] {
            let (store, link) = (store(), SharedBus::new(1).link());
            let mut builder = builder().name("users").ttl(STALE);
            if with_l2 {
                builder = builder.l2(store.clone(), WireCodec::new());
            }
            if !with_fail_safe {
                builder = builder.fail_safe(FailSafe::default());
            }
            let cache = builder.event_bus(link.clone(), WireCodec::new()).build().unwrap();
            cache.ready().await.unwrap();
            cache.set("k", 1).await.unwrap();
            let trusted = explain(&cache, "k").await;
            assert!(trusted.l1_trusted);
            assert_eq!(trusted.next, NextStep::ServeL1);
            link.freeze();
            sleep(ms(10_000)).await;
            let lapsed = explain(&cache, "k").await;
            assert!(matches!(lapsed.l1, Some(KeyInL1::Fresh { trusted: false, .. })), "{lapsed}");
            assert_eq!((lapsed.l1_trusted, lapsed.has_fallback), (false, with_fail_safe));
            let expected = if with_l2 { NextStep::ServeL2 } else { NextStep::Load };
            assert_eq!(proved(&cache).await.next, expected);
            assert_eq!(proved(&cache).await.next, NextStep::ServeL1, "for a trust_timeout");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_without_l1_and_a_closed_cache_are_explained() {
    let store = store();
    let cache = over(&store).without_l1().build().unwrap();
    assert_eq!(proved(&cache).await.next, NextStep::ReadL2);
    let explanation = proved(&cache).await;
    assert_eq!((explanation.l1, explanation.next), (None, NextStep::ServeL2));
    let neither = builder().without_l1().build().unwrap();
    let explanation = proved(&neither).await;
    assert_eq!((explanation.l1, explanation.l2), (None, None));
    assert_eq!(explanation.next, NextStep::Load);

    let cache = over(&store).build().unwrap();
    cache.set("k", 1).await.unwrap();
    cache.close().await;
    let operations = store.operations();
    let closed = proved(&cache).await;
    assert_eq!((closed.l1, closed.l2), (Some(KeyInL1::Absent), Some(KeyInL2::Closed)));
    assert_eq!((closed.next, store.operations()), (NextStep::Refuse, operations));
}

/// How a test touches entries before others push some of them out of L1.
#[derive(Clone, Copy)]
enum Touch {
    Nothing,
    Explain,
    Use,
}

#[tokio::test(start_paused = true)]
async fn an_explanation_is_no_use_of_the_entry() {
    let survivors = |touch: Touch| async move {
        let options = L1Options::default().max_entries(16);
        let cache = builder().l1(options).ttl(STALE).build().unwrap();
        for key in 0..64 {
            cache.set(&*key.to_string(), key).await.unwrap();
        }
        // The next to go.
        match touch {
            Touch::Nothing => {}
            Touch::Explain => drop(explain(&cache, "63").await),
            Touch::Use => drop(cache.get_l1("63")),
        }
        for key in 64..72 {
            cache.set(&*key.to_string(), key).await.unwrap();
        }
        let is_left = |key: &u32| cache.get_l1(&*key.to_string()).is_some();
        (0..72).filter(is_left).collect::<Vec<u32>>()
    };
    let untouched = survivors(Touch::Nothing).await;
    assert_eq!(survivors(Touch::Explain).await, untouched);
    assert_ne!(survivors(Touch::Use).await, untouched, "a use would show");
}

#[tokio::test(start_paused = true)]
async fn keys_of_any_type_are_explained_and_the_future_can_be_spawned() {
    let cache = LazyLayersCache::<u64, u32>::builder().clock(TokioClock::new()).build().unwrap();
    cache.set(&7, 1).await.unwrap();
    let handle = cache.clone();
    let explanation = tokio::spawn(async move { handle.explain(&7).await }).await.unwrap();
    assert_eq!((&*explanation.key, explanation.next), ("7", NextStep::ServeL1));
    let cache = builder().build().unwrap();
    cache.set("k", 1).await.unwrap();
    assert_eq!(cache.explain(&"k".to_owned()).await, cache.explain("k").await);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_is_a_few_lines_and_serializes() {
    let store = store();
    let lock = DistributedLock::enabled();
    let cache = over(&store).distributed_lock(lock).build().unwrap();
    cache.set("a\nb", 1).await.unwrap();
    sleep(ms(100)).await;
    let explanation = explain(&cache, "a\nb").await;
    assert_eq!(
        explanation.to_string().lines().collect::<Vec<_>>(),
        [
            r#"key "a\nb""#,
            "L1: a value of age 100ms, fresh for 900ms, then stale for 60s",
            "L1 has a value to serve if a load fails or is slow",
            "L2: a value, fresh for 900ms",
            "get_or_set now returns the value of L1",
        ]
    );
    assert_eq!(
        to_value(&explanation).unwrap(),
        json!({
            "key": "a\nb",
            "l1": { "fresh": {
                "age": "100ms", "fresh_for": "900ms", "stale_for": "1m", "trusted": true,
            } },
            "l1_trusted": true, "has_fallback": true,
            "l2": { "fresh": { "fresh_for": "900ms" } },
            "l2_lease": null, "lock": null, "lock_is_own": false,
            "loads": [], "waiting": 0, "next": "serve_l1",
        })
    );
    spawn_load(&cache, Gate::Never);
    sleep(ms(50)).await;
    let loading = to_value(explain(&cache, "k").await).unwrap();
    assert_eq!(loading["loads"], json!([{ "age": "50ms", "followers": 0 }]));
    assert_eq!((&loading["l1"], &loading["l2"]), (&json!("absent"), &json!("absent")));
}

/// The keys of a Cluster are on several nodes: the lock of a key and its value, too.
#[tokio::test]
async fn redis_says_where_a_key_is_and_an_explanation_writes_nothing() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let store = RedisStore::at(server.url()).build().unwrap();
    explain_over_redis(&store).await;
    let mut dump = || -> Vec<(String, Option<Vec<u8>>)> {
        let mut names: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
        names.sort();
        let mut read = |name: String| {
            let bytes = redis::cmd("DUMP").arg(&name).query(&mut redis).unwrap();
            (name, bytes)
        };
        names.into_iter().map(&mut read).collect()
    };
    let cache = over_redis(&store);
    cache.set("fresh", 1).await.unwrap();
    cache.get("another").await;
    let before = dump();
    for key in ["fresh", "stale", "missing", "locked", "another", "absent"] {
        explain(&cache, key).await;
    }
    assert_eq!(dump(), before);
}

#[tokio::test]
async fn a_redis_cluster_says_where_a_key_is() {
    let cluster = Cluster::start();
    let store = RedisStore::cluster(cluster.urls()).build().unwrap();
    explain_over_redis(&store).await;
}

fn over_redis(store: &RedisStore) -> Cache {
    Cache::builder()
        .fail_safe(FailSafe::enabled().stale_ttl(STALE))
        .negative_cache(NegativeCache::enabled().ttl(STALE))
        .distributed_lock(DistributedLock::enabled())
        .l2(store.clone(), WireCodec::new())
        .build()
        .unwrap()
}

/// Leaves a `stale` copy, a negative entry `missing` and a load of `locked`.
async fn explain_over_redis(store: &RedisStore) {
    let is_up_to = |left: Duration, max: Duration| left <= max && left > max / 2;
    let (cache, peer) = (over_redis(store), over_redis(store));
    let absent = explain(&cache, "absent").await;
    assert_eq!((absent.l2, absent.next), (Some(KeyInL2::Absent), NextStep::ReadL2));
    assert_eq!((absent.l2_lease, absent.lock), (None, None));

    peer.set("stale", 1).ttl(ms(300)).await.unwrap();
    let fresh = explain(&cache, "stale").await;
    assert!(matches!(fresh.l2, Some(KeyInL2::Fresh { fresh_for: Some(_) })), "{fresh}");
    sleep(ms(350)).await;
    let stale = explain(&cache, "stale").await;
    let Some(KeyInL2::Stale { stale_for }) = stale.l2 else { panic!("{stale}") };
    assert!(is_up_to(stale_for, STALE), "{stale_for:?}");

    peer.get_or_set("missing", Origin::default().load(Gate::None)).await.unwrap();
    let missing = explain(&cache, "missing").await;
    let Some(KeyInL2::Missing { fresh_for }) = missing.l2 else { panic!("{missing}") };
    assert!(is_up_to(fresh_for, STALE) && missing.l2_lease.is_none(), "{missing}");
    assert_eq!(missing.next, NextStep::ServeMissing);

    let (loader, load) = (peer.clone(), Origin::default().load(Gate::Never));
    tokio::spawn(async move { loader.get_or_set("locked", load).await });
    while peer.stats().loads == 1 {
        sleep(ms(10)).await;
    }
    let (own, other) = (explain(&peer, "locked").await, explain(&cache, "locked").await);
    assert_eq!((own.lock_is_own, other.lock_is_own), (true, false), "{own}\n{other}");
    let (lock, lease) = (other.lock.unwrap(), other.l2_lease.unwrap());
    assert!(lock.owner.len() == 32 && is_up_to(lock.valid_for, ms(10_000)), "{lock:?}");
    assert!(!lease.is_write && is_up_to(lease.valid_for, ms(40_000)), "{lease:?}");
    let written = store.for_cache("other").unwrap_or_else(|| std::sync::Arc::new(store.clone()));
    written.acquire_write_lease("k", ms(5_000)).await.unwrap();
    let inspection = written.inspect("k", "k").await.unwrap().unwrap();
    assert!(inspection.lease.is_some_and(|lease| lease.is_write));
}
