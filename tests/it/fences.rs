//! No old value after an invalidation: each way to invalidate, against each way in which an older
//! value could come back.

use lazy_layers_cache::{ErrorKind, FailSafe, Timeouts};

use crate::support::{Broken, Cache, Gate, Log, Origin, ms, on_tokio_time, settle};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Invalidation {
    Delete,
    Set,
    Pattern,
    Clear,
}

use Invalidation::{Clear, Delete, Pattern, Set};

const ALL: [Invalidation; 4] = [Delete, Set, Pattern, Clear];

/// The value that `set` writes. No load returns it.
const WRITTEN: u32 = 1_000;

impl Invalidation {
    async fn run(self, cache: &Cache) {
        match self {
            Delete => cache.delete("key").await,
            Set => cache.set("key", WRITTEN).await,
            Pattern => cache.delete_by_pattern("k[a-f]?").await,
            Clear => cache.clear().await,
        }
        .unwrap();
    }

    /// The value in L1 after the invalidation.
    fn left(self) -> Option<u32> {
        (self == Set).then_some(WRITTEN)
    }
}

fn cache() -> Cache {
    on_tokio_time().ttl(ms(1_000)).fail_safe(FailSafe::enabled()).build().unwrap()
}

async fn held(cache: &Cache) -> Option<u32> {
    cache.get("key").await.as_deref().copied()
}

#[tokio::test(start_paused = true)]
async fn a_load_in_flight_fills_nothing() {
    for invalidation in ALL {
        let (cache, origin) = (cache(), Origin::default());
        let log = Log::of(&cache);
        let load = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            async move { cache.get_or_set("key", load).await }
        });
        settle().await;
        invalidation.run(&cache).await;
        assert_eq!(held(&cache).await, invalidation.left(), "{invalidation:?}");

        let value = load.await.unwrap().unwrap();
        assert_eq!(value.as_deref(), Some(&1), "the caller gets the value that its load returned");
        assert!(log.take().contains(&"load:superseded".to_owned()), "{invalidation:?}");
        assert_eq!(held(&cache).await, invalidation.left(), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_after_an_invalidation_does_not_join_a_load_from_before() {
    for invalidation in [Delete, Pattern, Clear] {
        let (cache, origin) = (cache(), Origin::default());
        let before = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            async move { cache.get_or_set("key", load).await.unwrap() }
        });
        settle().await;
        invalidation.run(&cache).await;
        let after = cache.get_or_set("key", origin.load(Gate::Slow)).await.unwrap();
        assert_eq!((before.await.unwrap().as_deref(), after.as_deref()), (Some(&1), Some(&2)));
        assert_eq!(held(&cache).await, Some(2), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_right_before_the_fill_fences_it() {
    for invalidation in ALL {
        let cache = cache();
        // The loader invalidates its own key right before it returns.
        let load = {
            let cache = cache.clone();
            move || async move {
                invalidation.run(&cache).await;
                Ok::<_, Broken>(Some(1))
            }
        };
        assert_eq!(cache.get_or_set("key", load).await.unwrap().as_deref(), Some(&1));
        assert_eq!(held(&cache).await, invalidation.left(), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_from_before_an_invalidation_is_not_served_when_the_load_fails() {
    for invalidation in ALL {
        let (cache, origin) = (cache(), Origin::default());
        cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
        tokio::time::advance(ms(1_000)).await;
        let load = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::SlowErr));
            async move { cache.get_or_set("key", load).await }
        });
        settle().await;
        invalidation.run(&cache).await;
        // After a `set`, the written value is served.
        let answer = load.await.unwrap().map(|value| value.as_deref().copied());
        match invalidation {
            Set => assert_eq!(answer.unwrap(), Some(WRITTEN)),
            _ => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Loader, "{invalidation:?}"),
        }
        assert_eq!(held(&cache).await, invalidation.left(), "{invalidation:?}");
        let size = cache.size().await;
        assert_eq!(size, u64::from(invalidation == Set), "no stale value was stored again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_from_before_an_invalidation_is_not_served_when_the_load_is_slow() {
    for (invalidation, gate) in ALL.into_iter().flat_map(|it| [(it, Gate::Slow), (it, Gate::Never)])
    {
        let (cache, origin) = (cache(), Origin::default());
        cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
        tokio::time::advance(ms(1_000)).await;
        let load = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(gate));
            async move {
                let limits = Timeouts::none().soft(ms(100)).hard(ms(900));
                cache.get_or_set("key", load).timeouts(limits).await
            }
        });
        settle().await;
        invalidation.run(&cache).await;
        match (gate, load.await.unwrap()) {
            (_, Ok(value)) if invalidation == Set => assert_eq!(value.as_deref(), Some(&WRITTEN)),
            (Gate::Slow, Ok(value)) => assert_eq!(value.as_deref(), Some(&2)),
            (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::HardTimeout),
            (_, other) => panic!("{invalidation:?} and {gate:?} gave {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_from_before_an_invalidation_leaves_no_negative_entry() {
    for invalidation in ALL {
        let cache = on_tokio_time()
            .negative_cache(lazy_layers_cache::NegativeCache::enabled())
            .build()
            .unwrap();
        let load = {
            let cache = cache.clone();
            move || async move {
                invalidation.run(&cache).await;
                Ok::<Option<u32>, Broken>(None)
            }
        };
        assert_eq!(cache.get_or_set("key", load).await.unwrap(), None);
        let origin = Origin::default();
        let next = cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
        assert_eq!(next.as_deref(), Some(&invalidation.left().unwrap_or(1)), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_removes_a_negative_entry() {
    for invalidation in ALL {
        let cache = on_tokio_time()
            .negative_cache(lazy_layers_cache::NegativeCache::enabled())
            .build()
            .unwrap();
        let origin = Origin::default();
        assert_eq!(cache.get_or_set("key", origin.load(Gate::None)).await.unwrap(), None);
        invalidation.run(&cache).await;
        let next = cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
        assert_eq!(next.as_deref(), Some(&invalidation.left().unwrap_or(2)), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_does_not_fence_loads_of_other_keys() {
    for invalidation in [Delete, Set, Pattern] {
        let (cache, origin) = (cache(), Origin::default());
        let load = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            async move { cache.get_or_set("other", load).await }
        });
        settle().await;
        invalidation.run(&cache).await;
        load.await.unwrap().unwrap();
        assert_eq!(cache.get("other").await.as_deref(), Some(&1), "{invalidation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_begun_earlier_does_not_overwrite_one_begun_later() {
    // The first load outlives `inflight.ttl`, so a second one begins and ends before it.
    let (cache, origin) = (cache(), Origin::default());
    let log = Log::of(&cache);
    let slowest = {
        let load = origin.load(Gate::Ok);
        move || {
            let load = load();
            async move {
                tokio::time::sleep(ms(10_000)).await;
                load.await
            }
        }
    };
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get_or_set("key", slowest).ttl(ms(60_000)).await }
    });
    tokio::time::sleep(ms(6_000)).await;
    let second = cache.get_or_set("key", origin.load(Gate::Ok)).ttl(ms(60_000)).await.unwrap();
    assert_eq!((second.as_deref(), held(&cache).await), (Some(&2), Some(2)));
    assert_eq!(first.await.unwrap().unwrap().as_deref(), Some(&1));
    assert_eq!(held(&cache).await, Some(2));
    assert_eq!(log.take().iter().filter(|line| *line == "load:superseded").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_does_not_replace_the_value_of_an_earlier_load() {
    let (cache, origin) = (cache(), Origin::default());
    cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(1_000)).await;
    let after = |wait: u64, gate| {
        let load = origin.load(gate);
        move || async move {
            tokio::time::sleep(ms(wait)).await;
            load().await
        }
    };
    let spawn = |load: Box<dyn FnOnce() -> crate::support::BoxedLoad + Send>| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get_or_set("key", load).ttl(ms(60_000)).await })
    };
    // Two loads at once, as the second begins after `inflight.ttl`; the first ends in between.
    let first = after(8_000, Gate::Ok);
    let first = spawn(Box::new(move || Box::pin(first())));
    tokio::time::sleep(ms(6_000)).await;
    let second = after(4_000, Gate::Err);
    let second = spawn(Box::new(move || Box::pin(second())));
    assert_eq!(first.await.unwrap().unwrap().as_deref(), Some(&2));
    assert_eq!(held(&cache).await, Some(2));
    assert_eq!(
        second.await.unwrap().unwrap().as_deref(),
        Some(&2),
        "the fresh value, not the stale one"
    );
    assert_eq!(held(&cache).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_begins_while_a_pattern_delete_walks_l1_keeps_no_stale_copy() {
    let (cache, origin) = (cache(), Origin::default());
    for number in 0..5_000 {
        cache.set(&format!("key:{number}"), 7).ttl(ms(60_000)).await.unwrap();
    }
    let deleting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.delete_by_pattern("key:*").await }
    });
    // The walk yields; keys that it has not reached are still in L1.
    tokio::task::yield_now().await;
    let ahead: Vec<String> = (0..5_000)
        .map(|number| format!("key:{number}"))
        .filter(|key| cache.get_l1(key).is_some())
        .collect();
    assert!(!deleting.is_finished() && !ahead.is_empty());
    let loads: Vec<_> = ahead
        .into_iter()
        .map(|key| {
            let (cache, load) = (cache.clone(), origin.load(Gate::SlowErr));
            tokio::spawn(async move { cache.get_or_set(&key, load).refresh().await })
        })
        .collect();
    deleting.await.unwrap().unwrap();
    for load in loads {
        assert_eq!(load.await.unwrap().unwrap_err().kind(), ErrorKind::Loader);
    }
    assert_eq!(cache.size().await, 0, "no load stored an old value behind the walk");
}

#[tokio::test(start_paused = true)]
async fn a_value_replaces_a_negative_entry_for_good() {
    let cache = on_tokio_time()
        .negative_cache(lazy_layers_cache::NegativeCache::enabled().ttl(ms(10_000)))
        .build()
        .unwrap();
    let origin = Origin::default();
    assert_eq!(cache.get_or_set("key", origin.load(Gate::None)).await.unwrap(), None);
    cache.set("key", WRITTEN).ttl(ms(10)).await.unwrap();
    tokio::time::advance(ms(10)).await;
    let next = cache.get_or_set("key", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(next.as_deref(), Some(&2), "the negative entry, which would live longer, is gone");
}
