//! Lifetimes and bounds: ttl, stale window, jitter, maximum number and weight of entries.

use std::time::Duration;

use lazy_layers_cache::{
    FailSafe, L1Options, L2Options, Loaded, NegativeCache, Store, WireCodec,
    testing::{ManualClock, SharedStore, TokioClock},
};

use crate::support::{Broken, Cache, Gate, Log, Origin, ms, on_tokio_time};

/// Whether the key is fresh 1 ms before `millis` and not fresh at `millis`.
async fn lives_exactly(cache: &Cache, key: &str, millis: u64) -> bool {
    tokio::time::advance(ms(millis - 1)).await;
    let before = cache.has(key).await;
    tokio::time::advance(ms(1)).await;
    before && !cache.has(key).await
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_ttl_wins() {
    let cache = on_tokio_time().ttl(ms(1_000)).build().unwrap();
    let origin = Origin::default();
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert!(lives_exactly(&cache, "k", 1_000).await, "ttl of the cache");

    let cache =
        on_tokio_time().ttl(ms(1_000)).l1(L1Options::default().ttl(ms(500))).build().unwrap();
    cache.set("k", 1).await.unwrap();
    assert!(lives_exactly(&cache, "k", 500).await, "ttl of L1");
    cache.get_or_set("k", origin.load(Gate::Ok)).ttl(ms(200)).await.unwrap();
    assert!(lives_exactly(&cache, "k", 200).await, "ttl of the call");
    cache.set("k", 1).ttl(ms(300)).await.unwrap();
    assert!(lives_exactly(&cache, "k", 300).await, "ttl of the write");
    let own = || async { Ok::<_, Broken>(Loaded::value(1).ttl(ms(50))) };
    cache.get_or_set("k", own).ttl(ms(200)).await.unwrap();
    assert!(lives_exactly(&cache, "k", 50).await, "ttl of the loader's answer");
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_a_level_is_a_bound_whatever_the_call_or_the_loader_says() {
    let store = SharedStore::new(TokioClock::new());
    let build = |l1: Option<u64>, l2: Option<u64>| {
        let mut options = (L1Options::default(), L2Options::default());
        options.0.ttl = l1.map(ms);
        options.1.ttl = l2.map(ms);
        let builder = on_tokio_time().ttl(ms(1_000)).l1(options.0).l2_options(options.1);
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    for (l1, l2, call, in_l1, in_l2) in [
        (None, None, None, 1_000, 1_000),
        (None, None, Some(9_000), 9_000, 9_000),
        (Some(500), None, Some(9_000), 500, 9_000),
        (None, Some(500), Some(9_000), 9_000, 500),
        (Some(2_000), Some(3_000), None, 1_000, 1_000),
        (Some(500), Some(600), Some(100), 100, 100),
    ] {
        let cache = build(l1, l2);
        let request = cache.set("k", 1);
        match call {
            Some(ttl) => request.ttl(ms(ttl)).await.unwrap(),
            None => request.await.unwrap(),
        };
        let case = format!("l1.ttl {l1:?}, l2.ttl {l2:?}, call {call:?}");
        let stored = store.get("k", false).await.unwrap().unwrap();
        assert_eq!(stored.ttl, Some(ms(in_l2)), "{case}");
        // A reader that gets the value from L2 keeps it for as long as L2, within its bound.
        let reader = build(l1, l2);
        assert!(reader.get("k").await.is_some());
        for (cache, millis) in [(&cache, in_l1), (&reader, in_l2.min(l1.unwrap_or(in_l2)))] {
            let begun = tokio::time::Instant::now();
            while cache.get_l1("k").is_some() {
                tokio::time::advance(ms(1)).await;
            }
            // Time has passed for the reader meanwhile.
            let lived = begun.elapsed();
            assert!(lived <= ms(millis), "{case}: {lived:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_spreads_values_that_instances_take_from_l2_too() {
    let store = SharedStore::new(TokioClock::new());
    let instance = || {
        let builder = on_tokio_time().ttl(ms(2_000)).ttl_jitter(0.5);
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let (one, other) = (instance(), instance());
    let keys: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for key in &keys {
        one.set(key, 1).await.unwrap();
        assert!(other.get(key).await.is_some());
    }
    // Hot keys: each is loaded as soon as nobody has it.
    let mut reloads = Vec::new();
    for _ in 0..80 {
        tokio::time::advance(ms(25)).await;
        let before = one.stats().loads + other.stats().loads;
        for key in &keys {
            for cache in [&one, &other] {
                cache.get_or_set(key, || async { Ok::<_, Broken>(1) }).await.unwrap();
            }
        }
        reloads.push(one.stats().loads + other.stats().loads - before);
    }
    let most = reloads.windows(2).map(|two| two[0] + two[1]).max().unwrap();
    println!("at most {most} of 200 keys are loaded again within 50 ms");
    assert!((1..=40).contains(&most), "{reloads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_value_with_a_ttl_of_zero_is_not_cached() {
    let cache = on_tokio_time().fail_safe(FailSafe::enabled()).build().unwrap();
    let origin = Origin::default();
    cache.set("k", 5).await.unwrap();
    let own = || async { Ok::<_, Broken>(Loaded::value(1).ttl(ms(0)).stale_for(ms(0))) };
    cache.get_or_set("k", own).refresh().await.unwrap();
    assert_eq!((cache.get("k").await, cache.size().await), (None, 0));
    for loads in 1..=3 {
        cache.get_or_set("k", origin.load(Gate::Ok)).ttl(ms(0)).await.unwrap();
        assert_eq!(origin.loads(), loads);
    }
}

#[tokio::test(start_paused = true)]
async fn the_call_and_the_loader_can_set_the_stale_window() {
    let cache = on_tokio_time().ttl(ms(100)).build().unwrap();
    let origin = Origin::default();
    cache.get_or_set("k", origin.load(Gate::Ok)).stale_for(ms(1_000)).await.unwrap();
    tokio::time::advance(ms(1_099)).await;
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap().as_deref(), Some(&1));
    tokio::time::advance(ms(1)).await;
    cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();

    let own = || async { Ok::<_, Broken>(Loaded::value(7).stale_for(ms(50))) };
    cache.get_or_set("k", own).stale_for(ms(1_000)).await.unwrap();
    tokio::time::advance(ms(150)).await;
    cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_negative_entry_can_have_its_own_ttl() {
    let cache =
        on_tokio_time().negative_cache(NegativeCache::enabled().ttl(ms(1_000))).build().unwrap();
    let origin = Origin::default();
    let own = || async { Ok::<_, Broken>(Loaded::<u32>::none().ttl(ms(100))) };
    assert_eq!(cache.get_or_set("k", own).await.unwrap(), None);
    tokio::time::advance(ms(99)).await;
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap(), None);
    tokio::time::advance(ms(1)).await;
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn the_ttl_of_a_level_is_a_bound_of_negative_entries_too() {
    let store = SharedStore::new(TokioClock::new());
    let build = || {
        let builder = on_tokio_time().negative_cache(NegativeCache::enabled());
        let builder = builder.l1(L1Options::default().ttl(ms(500)));
        let builder = builder.l2_options(L2Options::default().ttl(ms(2_000)));
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let (loads, promotes, other) = (build(), build(), build());
    let origin = Origin::default();
    let own = || async { Ok::<_, Broken>(Loaded::<u32>::none().ttl(Duration::MAX)) };
    for key in ["in L1", "in L2"] {
        assert_eq!(loads.get_or_set(key, own).await.unwrap(), None);
        assert_eq!(promotes.get_or_set(key, origin.load(Gate::Ok)).await.unwrap(), None);
    }
    other.set("in L1", 7).await.unwrap();
    for (after, found) in [(499, None), (1, Some(7))] {
        tokio::time::advance(ms(after)).await;
        for cache in [&loads, &promotes] {
            let got = cache.get_or_set("in L1", origin.load(Gate::None)).await.unwrap();
            assert_eq!(got.as_deref(), found.as_ref(), "{after} ms later");
        }
    }
    for (after, found) in [(1_499, None), (1, Some(1))] {
        tokio::time::advance(ms(after)).await;
        let got = build().get_or_set("in L2", origin.load(Gate::Ok)).await.unwrap();
        assert_eq!(got.as_deref(), found.as_ref(), "{after} ms later");
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_shortens_ttls_by_different_amounts() {
    let cache = on_tokio_time().ttl(ms(1_000)).ttl_jitter(0.5).build().unwrap();
    for number in 0..200 {
        cache.set(&format!("k{number}"), number).await.unwrap();
    }
    let alive = async |millis| {
        tokio::time::advance(ms(millis)).await;
        let mut alive = 0;
        for number in 0..200 {
            alive += usize::from(cache.has(&format!("k{number}")).await);
        }
        alive
    };
    assert_eq!(alive(499).await, 200, "none is shortened by more than half");
    let half_way = alive(251).await;
    assert!((50..150).contains(&half_way), "{half_way} of 200 left at 750 ms");
    assert_eq!(alive(250).await, 0, "none is lengthened");
}

#[tokio::test]
async fn the_longest_ttl_does_not_overflow_and_ends_in_l1_after_49_days_with_its_window() {
    let clock = ManualClock::new();
    let cache = Cache::builder()
        .ttl(Duration::MAX)
        .ttl_jitter(0.1)
        .fail_safe(FailSafe::enabled().stale_ttl(Duration::MAX))
        .clock(clock.clone())
        .build()
        .unwrap();
    cache.set("k", 1).await.unwrap();
    clock.advance(ms(1_000 * 60 * 60 * 24 * 30));
    assert!(cache.has("k").await);
    let down = || async { Err::<Option<u32>, _>(Broken) };
    clock.advance(ms(1_000 * 60 * 60 * 24 * 20));
    assert!(!cache.has("k").await && cache.get_or_set("k", down).await.is_err());
}

#[tokio::test]
async fn entries_never_exceed_their_bound() {
    let cache = Cache::builder().l1(L1Options::default().max_entries(1_000)).build().unwrap();
    for number in 0..20_000 {
        cache.set(&number.to_string(), number).await.unwrap();
        assert!(cache.size().await <= 1_000);
    }
    let stats = cache.stats();
    assert_eq!(stats.l1_evictions, 20_000 - stats.l1_entries);
}

#[tokio::test]
async fn weight_never_exceeds_its_bound() {
    let cache = Cache::builder()
        .l1(L1Options::default().max_weight(1_000_000))
        .weigher(|key, value| key.len() as u64 + u64::from(*value))
        .build()
        .unwrap();
    for number in 0..5_000u32 {
        cache.set(&number.to_string(), number % 3_000).await.unwrap();
        assert!(cache.stats().l1_weight <= 1_000_000);
    }
    let stats = cache.stats();
    assert!(stats.l1_weight > 800_000, "L1 uses its room: {stats:?}");
}

#[tokio::test]
async fn both_bounds_hold_at_once() {
    let options = L1Options::default().max_weight(100_000).max_entries(100);
    let cache = Cache::builder().l1(options).weigher(|_, value| u64::from(*value)).build().unwrap();
    for light in 0..1_000 {
        cache.set(&light.to_string(), 0).await.unwrap();
        assert!(cache.size().await <= 100);
    }
    for heavy in 0..1_000u32 {
        cache.set(&heavy.to_string(), 20_000).await.unwrap();
        assert!(cache.stats().l1_weight <= 100_000);
    }
}

#[tokio::test]
async fn a_value_too_heavy_for_l1_is_returned_and_an_event_reports_it() {
    let cache = Cache::builder()
        .l1(L1Options::default().max_weight(1_000))
        .weigher(|_, value| u64::from(*value))
        .build()
        .unwrap();
    cache.set("k", 100).await.unwrap();
    assert_eq!(cache.size().await, 1);
    let log = Log::of(&cache);
    let load = || async { Ok::<_, Broken>(5_000) };
    let value = cache.get_or_set("k", load).refresh().await.unwrap();
    assert_eq!((*value, cache.size().await), (5_000, 0), "the replaced value is removed");
    assert_eq!(log.take(), ["miss", "loader:start", "loader:success", "set:skipped"]);
}

#[tokio::test]
async fn a_replaced_value_is_no_eviction() {
    let cache = Cache::builder().build().unwrap();
    for value in 0..100 {
        cache.set("k", value).await.unwrap();
    }
    assert_eq!((cache.stats().l1_evictions, cache.size().await), (0, 1));
}

#[tokio::test]
async fn bounds_beyond_32_bits_hold_too() {
    let options = L1Options::default().max_weight(u64::MAX).max_entries(10);
    let cache = Cache::builder().l1(options).weigher(|_, _| 1).build().unwrap();
    for number in 0..1_000 {
        cache.set(&number.to_string(), number).await.unwrap();
    }
    assert!((1..=10).contains(&cache.size().await), "{}", cache.size().await);

    let tebibyte = 1 << 40;
    let cache = Cache::builder()
        .l1(L1Options::default().max_weight(tebibyte))
        .weigher(move |_, value| if *value == 0 { panic!("on purpose") } else { tebibyte / 20 })
        .build()
        .unwrap();
    for number in 0..100 {
        cache.set(&number.to_string(), number).await.unwrap();
        assert!(cache.stats().l1_weight <= tebibyte);
    }
    assert!(cache.size().await > 8 && !cache.has("0").await, "{}", cache.size().await);
}

#[tokio::test]
async fn an_entry_whose_weigher_panics_is_not_kept() {
    let cache = Cache::builder()
        .l1(L1Options::default().max_weight(1_000))
        .weigher(|key, _| if key == "bad" { panic!("on purpose") } else { 1 })
        .build()
        .unwrap();
    let value = cache.get_or_set("bad", || async { Ok::<_, Broken>(1) }).await.unwrap();
    assert_eq!((*value, cache.size().await), (1, 0));
    cache.set("good", 1).await.unwrap();
    assert_eq!(cache.size().await, 1);
}

#[tokio::test(start_paused = true)]
async fn many_missing_keys_evict_no_value() {
    let cache = on_tokio_time()
        .l1(L1Options::default().max_entries(100))
        .negative_cache(NegativeCache::enabled().max_entries(1_000))
        .build()
        .unwrap();
    let origin = Origin::default();
    cache.set("value", 1).await.unwrap();
    for number in 0..10_000 {
        cache.get_or_set(&format!("missing:{number}"), origin.load(Gate::None)).await.unwrap();
    }
    assert_eq!((cache.get("value").await.as_deref(), cache.size().await), (Some(&1), 1));
}
