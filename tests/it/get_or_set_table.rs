//! `get_or_set`: the result and the events of each row of the behaviour table.

use std::sync::Arc;

use lazy_layers_cache::{ErrorKind, FailSafe, NegativeCache, Source, StaleReason, Timeouts};

use crate::support::{Broken, Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// Ttl 1 s, stale window 60 s, throttle pause 5 s.
fn with_fail_safe() -> Cache {
    on_tokio_time()
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)).throttle(ms(5_000)))
        .build()
        .unwrap()
}

/// A cache that holds the stale value 1 under `k`, with its origin.
async fn stale() -> (Cache, Origin) {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(1_000)).await;
    assert_eq!(cache.get("k").await, None, "not fresh any more");
    (cache, origin)
}

#[tokio::test(start_paused = true)]
async fn fresh_is_a_hit() {
    let cache = with_fail_safe();
    cache.set("k", 1).await.unwrap();
    let log = Log::of(&cache);
    cache.get_or_set("k", Origin::default().load(Gate::Ok)).await.unwrap();
    assert_eq!(log.take(), ["hit"]);
}

#[tokio::test(start_paused = true)]
async fn a_loaded_value_is_a_miss_a_load_and_a_set() {
    let cache = with_fail_safe();
    let log = Log::of(&cache);
    cache.get_or_set("k", Origin::default().load(Gate::Ok)).await.unwrap();
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "set"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_being_loaded_is_joined() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let log = Log::of(&cache);
    let (first, second) = tokio::join!(
        cache.get_or_set("k", origin.load(Gate::Slow)).outcome(),
        cache.get_or_set("k", origin.load(Gate::Slow)).outcome(),
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.source, second.source), (Source::Loader, Source::Joined));
    assert!(Arc::ptr_eq(&first.value.unwrap(), &second.value.unwrap()));
    assert_eq!(log.take(), ["miss", "loader:start", "inflight:reuse", "loader:success", "set"]);
    assert_eq!(origin.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn none_becomes_a_negative_entry_and_removes_the_stale_value() {
    let cache = on_tokio_time()
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled())
        .negative_cache(NegativeCache::enabled().ttl(ms(2_000)))
        .build()
        .unwrap();
    let origin = Origin::default();
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(1_000)).await;

    let log = Log::of(&cache);
    assert_eq!(cache.get_or_set("k", origin.load(Gate::None)).await.unwrap(), None);
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "negative:set"]);
    assert_eq!(cache.size().await, 0, "the stale value is removed");

    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap(), None);
    assert_eq!(cache.get("k").await, None);
    assert_eq!(log.take(), ["hit(negative)", "hit(negative)"]);
    assert_eq!(origin.loads(), 2);

    tokio::time::advance(ms(2_000)).await;
    // A failed load now has no stale value to serve.
    let error = cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Loader);
}

#[tokio::test(start_paused = true)]
async fn none_without_negative_cache_is_loaded_again() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    for loads in 1..=3 {
        assert_eq!(cache.get_or_set("k", origin.load(Gate::None)).await.unwrap(), None);
        assert_eq!(origin.loads(), loads);
    }
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_always_returns_a_value_ignores_a_negative_entry() {
    let cache = on_tokio_time().negative_cache(NegativeCache::enabled()).build().unwrap();
    let origin = Origin::default();
    assert_eq!(cache.get_or_set("k", origin.load(Gate::None)).await.unwrap(), None);
    let log = Log::of(&cache);
    let value = cache.get_or_set("k", || async { Ok::<_, Broken>(7) }).await.unwrap();
    assert_eq!(*value, 7);
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "set"], "no hit of any kind");
    assert_eq!(cache.get("k").await.as_deref(), Some(&7), "it replaced the negative entry");
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_always_returns_a_value_loads_after_joining_a_load_of_none() {
    let cache = on_tokio_time().build().unwrap();
    let slow_none = || async {
        tokio::time::sleep(SLOW).await;
        Ok::<Option<u32>, Broken>(None)
    };
    let (none, value) = tokio::join!(
        cache.get_or_set("k", slow_none),
        cache.get_or_set("k", || async { Ok::<_, Broken>(7) }),
    );
    assert_eq!((none.unwrap(), *value.unwrap()), (None, 7));
}

#[tokio::test(start_paused = true)]
async fn an_error_with_a_stale_value_serves_it_and_throttles_the_key() {
    let (cache, origin) = stale().await;
    let log = Log::of(&cache);
    let outcome = cache.get_or_set("k", origin.load(Gate::Err)).outcome().await.unwrap();
    assert_eq!(outcome.value.as_deref(), Some(&1));
    assert_eq!((outcome.stale, outcome.age), (Some(StaleReason::LoaderError), ms(1_000)));
    assert_eq!(log.take(), ["miss", "loader:start", "loader:error", "stale:hit(loader-error)"]);

    tokio::time::advance(ms(4_999)).await;
    let throttled = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!(
        (throttled.value.as_deref(), throttled.stale),
        (Some(&1), Some(StaleReason::Throttled))
    );
    assert_eq!((log.take(), origin.loads()), (vec!["stale:hit(throttled)".to_owned()], 2));
    assert_eq!(cache.get("k").await, None, "get never returns a stale value");

    tokio::time::advance(ms(1)).await;
    let loaded = cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!((loaded.as_deref(), origin.loads()), (Some(&3), 3));
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_not_served_after_its_window_however_often_the_load_fails() {
    let (cache, origin) = stale().await;
    for _ in 0..11 {
        cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap();
        tokio::time::advance(ms(5_000)).await;
    }
    tokio::time::advance(ms(5_000)).await;
    let error = cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Loader);
}

#[tokio::test(start_paused = true)]
async fn an_error_without_a_stale_value_goes_to_every_caller_and_is_the_same_one() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let log = Log::of(&cache);
    let (first, second) = tokio::join!(
        cache.get_or_set("k", origin.load(Gate::SlowErr)),
        cache.get_or_set("k", origin.load(Gate::SlowErr)),
    );
    let (first, second) = (first.unwrap_err(), second.unwrap_err());
    let (left, right) = (first.loader_error::<Broken>(), second.loader_error::<Broken>());
    assert!(std::ptr::eq(left.unwrap(), right.unwrap()));
    assert_eq!(log.take(), ["miss", "loader:start", "inflight:reuse", "loader:error"]);
    assert_eq!(origin.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_soft_timeout_serves_stale_and_lets_the_load_go_on() {
    let (cache, origin) = stale().await;
    let log = Log::of(&cache);
    let begun = tokio::time::Instant::now();
    let outcome = cache
        .get_or_set("k", origin.load(Gate::Slow))
        .timeouts(Timeouts::none().soft(ms(100)))
        .outcome()
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), ms(100));
    assert_eq!(
        (outcome.value.as_deref(), outcome.stale),
        (Some(&1), Some(StaleReason::SoftTimeout))
    );
    assert_eq!(
        log.take(),
        ["miss", "loader:start", "loader:timeout(soft)", "stale:hit(soft-timeout)"]
    );

    // A later caller does not wait: the flight is past the soft timeout already.
    let late = cache
        .get_or_set("k", origin.load(Gate::Slow))
        .timeouts(Timeouts::none().soft(ms(100)))
        .outcome()
        .await
        .unwrap();
    assert_eq!((begun.elapsed(), late.stale), (ms(100), Some(StaleReason::SoftTimeout)));
    assert_eq!(log.take(), ["inflight:reuse", "stale:hit(soft-timeout)"]);

    tokio::time::sleep(ms(200)).await;
    settle().await;
    assert_eq!(cache.get("k").await.as_deref(), Some(&2));
    assert_eq!(log.take(), ["loader:success", "set", "hit"]);
    assert_eq!(origin.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_stale_value_the_soft_timeout_does_nothing() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let begun = tokio::time::Instant::now();
    cache
        .get_or_set("k", origin.load(Gate::Slow))
        .timeouts(Timeouts::none().soft(ms(100)))
        .await
        .unwrap();
    assert_eq!(begun.elapsed(), SLOW);
}

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_drops_the_load_and_serves_stale() {
    let (cache, origin) = stale().await;
    let log = Log::of(&cache);
    let begun = tokio::time::Instant::now();
    let outcome = cache
        .get_or_set("k", origin.load(Gate::Never))
        .timeouts(Timeouts::none().hard(ms(500)))
        .outcome()
        .await
        .unwrap();
    assert_eq!((begun.elapsed(), outcome.stale), (ms(500), Some(StaleReason::HardTimeout)));
    assert_eq!(
        log.take(),
        ["miss", "loader:start", "loader:timeout(hard)", "stale:hit(hard-timeout)"]
    );
    assert_eq!(cache.stats().loads_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_without_a_stale_value_is_an_error_with_its_limit() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let log = Log::of(&cache);
    let error = cache
        .get_or_set("k", origin.load(Gate::Never))
        .timeouts(Timeouts::none().hard(ms(500)))
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::HardTimeout, Some("k")));
    assert!(error.to_string().contains("500ms"), "{error}");
    assert_eq!(log.take(), ["miss", "loader:start", "loader:timeout(hard)"]);
}

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_of_a_follower_applies_to_that_follower_only() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let (leader, follower) = tokio::join!(
        cache.get_or_set("k", origin.load(Gate::Slow)),
        cache.get_or_set("k", origin.load(Gate::Slow)).timeouts(Timeouts::none().hard(ms(50))),
    );
    assert_eq!(leader.unwrap().as_deref(), Some(&1));
    assert_eq!(follower.unwrap_err().kind(), ErrorKind::HardTimeout);
}

#[tokio::test(start_paused = true)]
async fn a_delete_during_the_load_gives_its_callers_the_value_and_caches_it_nowhere() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let log = Log::of(&cache);
    let (value, ()) = tokio::join!(cache.get_or_set("k", origin.load(Gate::Slow)), async {
        tokio::time::sleep(ms(100)).await;
        cache.delete("k").await.unwrap();
    });
    assert_eq!(value.unwrap().as_deref(), Some(&1));
    assert_eq!(log.take(), ["miss", "loader:start", "delete", "loader:success", "load:superseded"]);
    assert_eq!((cache.get("k").await, cache.size().await), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_loader_is_an_error_for_all_of_its_callers() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    let slow_panic = || async {
        tokio::time::sleep(SLOW).await;
        if true {
            panic!("out of cheese");
        }
        Ok::<_, Broken>(Some(1))
    };
    let (first, second) = tokio::join!(
        cache.get_or_set("k", slow_panic),
        cache.get_or_set("k", origin.load(Gate::Ok)),
    );
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::LoaderPanicked);
        assert!(error.to_string().contains("out of cheese"), "{error}");
    }
    assert_eq!((origin.loads(), cache.stats().loads_in_flight), (0, 0));
    cache.get_or_set("k", origin.load(Gate::Ok)).await.expect("the key works again");
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_from_before_another_result_is_not_served() {
    // Two loads at once, because coalescing is off; both start with the stale value. The first
    // finds that the key does not exist; the second, started later, fails.
    let cache = on_tokio_time()
        .ttl(ms(1_000))
        .fail_safe(FailSafe::enabled())
        .inflight(lazy_layers_cache::Coalescing::disabled())
        .build()
        .unwrap();
    let origin = Origin::default();
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(1_000)).await;
    let after = |wait, gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move {
            let load = move || async move {
                tokio::time::sleep(ms(wait)).await;
                load().await
            };
            cache.get_or_set("k", load).await
        })
    };
    let (gone, fails) = (after(100, Gate::None), after(200, Gate::Err));
    assert_eq!(gone.await.unwrap().unwrap(), None);
    assert_eq!(fails.await.unwrap().unwrap_err().kind(), ErrorKind::Loader);
    assert_eq!(cache.size().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_serves_the_value_of_a_later_load() {
    let (cache, origin) = stale().await;
    let slow = tokio::spawn({
        let (cache, load) = (cache.clone(), origin.load(Gate::Err));
        async move {
            let load = move || async move {
                tokio::time::sleep(ms(10_000)).await;
                load().await
            };
            cache.get_or_set("k", load).await
        }
    });
    tokio::time::sleep(ms(6_000)).await;
    cache.get_or_set("k", origin.load(Gate::Ok)).ttl(ms(60_000)).await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap().as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_has_the_value_of_the_plain_call_in_every_state_of_a_key() {
    let cache = on_tokio_time().negative_cache(NegativeCache::enabled()).build().unwrap();
    let origin = Origin::default();
    cache.set("fresh", 7).await.unwrap();
    cache.get_or_set("missing", origin.load(Gate::None)).await.unwrap();
    for key in ["fresh", "missing"] {
        // A refresh is running; other callers do not wait for it.
        let refresh = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Never));
            async move { cache.get_or_set(key, load).refresh().await }
        });
        settle().await;
        let plain = cache.get_or_set(key, origin.load(Gate::Err)).await.unwrap();
        let outcome = cache.get_or_set(key, origin.load(Gate::Err)).outcome().await.unwrap();
        assert_eq!((plain, Source::L1), (outcome.value, outcome.source), "{key}");
        refresh.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ttl_of_zero_keeps_no_stale_value_either() {
    let (cache, origin) = (with_fail_safe(), Origin::default());
    cache.set("k", 5).ttl(ms(0)).await.unwrap();
    assert_eq!(cache.size().await, 0);
    let secret = || async { Ok::<_, Broken>(lazy_layers_cache::Loaded::value(6).ttl(ms(0))) };
    assert_eq!(cache.get_or_set("k", secret).await.unwrap().as_deref(), Some(&6));
    cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    assert_eq!(cache.size().await, 0);
}
