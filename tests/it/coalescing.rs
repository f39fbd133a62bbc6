//! Coalescing: callers of one key share one load, within the limits on joining; deadlocks between
//! loaders are errors.

use std::sync::Arc;

use lazy_layers_cache::{Coalescing, ErrorKind, LazyLayersCache};

use crate::support::{Broken, Cache, Gate, Log, Origin, ms, on_tokio_time, settle};

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_key_share_one_load() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let callers: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap().unwrap() })
        })
        .collect();
    let mut values = Vec::new();
    for caller in callers {
        values.push(caller.await.unwrap());
    }
    assert_eq!(origin.loads(), 1);
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_caller_does_not_cancel_the_load_of_the_others() {
    // Nine of ten callers are dropped, the leader first.
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let spawn = || {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap().unwrap() })
    };
    let callers: Vec<_> = (0..10).map(|_| spawn()).collect();
    settle().await;
    for caller in &callers[..9] {
        caller.abort();
        settle().await;
    }
    assert_eq!(*callers.into_iter().last().unwrap().await.unwrap(), 1);
    assert_eq!((origin.loads(), cache.stats().loads_in_flight), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_wait_for_each_other() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    let begun = tokio::time::Instant::now();
    tokio::join!(async { cache.get_or_set("a", origin.load(Gate::Slow)).await.unwrap() }, async {
        cache.get_or_set("b", origin.load(Gate::Slow)).await.unwrap()
    },);
    assert_eq!((begun.elapsed(), origin.loads()), (ms(300), 2));
}

#[tokio::test(start_paused = true)]
async fn callers_do_not_join_a_load_older_than_the_limit() {
    let cache = on_tokio_time().inflight(Coalescing::default().ttl(ms(1_000))).build().unwrap();
    let origin = Origin::default();
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await })
    };
    let _stuck = spawn(Gate::Never);
    tokio::time::sleep(ms(1_000)).await;
    let joins = spawn(Gate::Ok);
    settle().await;
    assert!(!joins.is_finished(), "at exactly the limit it is still joined");
    tokio::time::sleep(ms(1)).await;
    assert_eq!(spawn(Gate::Ok).await.unwrap().unwrap().as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn without_coalescing_each_caller_loads_and_an_event_reports_it() {
    let cache = on_tokio_time().inflight(Coalescing::disabled()).build().unwrap();
    let (log, origin) = (Log::of(&cache), Origin::default());
    let (first, second) = tokio::join!(
        cache.get_or_set("k", origin.load(Gate::Slow)),
        cache.get_or_set("k", origin.load(Gate::Slow)),
    );
    assert_eq!((first.unwrap().as_deref(), second.unwrap().as_deref()), (Some(&1), Some(&2)));
    assert_eq!(origin.loads(), 2);
    let bypasses = log.take().iter().filter(|line| *line == "inflight:bypass").count();
    assert_eq!((bypasses, cache.stats().bypassed), (2, 2));
    assert_eq!(
        cache.get("k").await.as_deref(),
        Some(&2),
        "the cache keeps the result of the load that started last"
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_of_flights_new_keys_load_without_one_until_a_slot_is_free() {
    let cache = on_tokio_time().inflight(Coalescing::default().max_entries(2)).build().unwrap();
    let origin = Origin::default();
    let spawn = |key: &'static str| {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set(key, load).await.unwrap() })
    };
    let mut callers: Vec<_> = ["a", "b", "c", "c", "a", "b"].map(spawn).into();
    settle().await;
    assert_eq!((cache.stats().bypassed, cache.stats().joined, origin.loads()), (2, 2, 4));
    for caller in callers.drain(..) {
        caller.await.unwrap();
    }
    // The value of a load without a flight is cached too, and the slots are free again.
    assert!(cache.has("c").await);
    for caller in ["d", "e", "d", "e"].map(spawn) {
        caller.await.unwrap();
    }
    assert_eq!((cache.stats().bypassed, origin.loads()), (2, 6));
}

#[tokio::test(start_paused = true)]
async fn a_delete_frees_the_slot_of_its_flight() {
    let cache = on_tokio_time().inflight(Coalescing::default().max_entries(1)).build().unwrap();
    let origin = Origin::default();
    for _ in 0..10 {
        let load = tokio::spawn({
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            async move { cache.get_or_set("k", load).await }
        });
        settle().await;
        cache.delete("k").await.unwrap();
        drop(load);
    }
    assert_eq!(cache.stats().bypassed, 0);
}

#[tokio::test(start_paused = true)]
async fn followers_are_limited() {
    let cache = on_tokio_time().inflight(Coalescing::default().max_followers(3)).build().unwrap();
    let origin = Origin::default();
    let spawn = || {
        let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let callers: Vec<_> = (0..6).map(|_| spawn()).collect();
    settle().await;
    let stats = cache.stats();
    assert_eq!((stats.joined, stats.bypassed, origin.loads()), (3, 2, 3));
    // A dropped follower frees its place.
    callers[1].abort();
    settle().await;
    let late = spawn();
    settle().await;
    assert_eq!(cache.stats().joined, 4);
    late.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_loader_may_ask_for_another_key() {
    let cache = on_tokio_time().build().unwrap();
    let inner = cache.clone();
    let value = cache
        .get_or_set("outer", move || async move {
            let inner = inner.get_or_set("inner", || async { Ok::<_, Broken>(20) }).await?;
            Ok::<_, lazy_layers_cache::Error>(*inner + 1)
        })
        .await
        .unwrap();
    assert_eq!((*value, cache.get("inner").await.as_deref()), (21, Some(&20)));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_asks_for_its_own_key_gets_an_error() {
    for waits_first in [false, true] {
        let cache = on_tokio_time().build().unwrap();
        let inner = cache.clone();
        let error = cache
            .get_or_set("k", move || async move {
                if waits_first {
                    tokio::time::sleep(ms(1)).await;
                }
                inner.get_or_set("k", || async { Ok::<_, Broken>(1) }).await.map(|value| *value)
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Loader);
        let own = error.loader_error::<lazy_layers_cache::Error>().unwrap();
        assert_eq!((own.kind(), own.key()), (ErrorKind::Recursion, Some("k")));
        assert_eq!(cache.stats().loads_in_flight, 0);
    }
}

/// Two caches whose loaders ask each other: two callers start a cycle of flights.
#[tokio::test(start_paused = true)]
async fn loaders_that_wait_for_each_other_get_an_error_even_across_caches() {
    fn ask(
        mine: LazyLayersCache<str, u32>,
        other: LazyLayersCache<str, u32>,
        depth: u32,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<u32, lazy_layers_cache::Error>> + Send>> {
        Box::pin(async move {
            let asked = mine.clone();
            let value = asked
                .get_or_set("k", move || async move {
                    tokio::time::sleep(ms(10)).await;
                    if depth > 5 {
                        return Ok(0);
                    }
                    ask(other, mine, depth + 1).await
                })
                .await?;
            Ok(*value)
        })
    }
    let cache = || LazyLayersCache::<str, u32>::builder().build().unwrap();
    let (left, right) = (cache(), cache());
    let both = async {
        tokio::join!(ask(left.clone(), right.clone(), 0), ask(right.clone(), left.clone(), 0))
    };
    let (first, second) = tokio::time::timeout(ms(60_000), both).await.expect("no deadlock");
    for error in [first.unwrap_err(), second.unwrap_err()] {
        let mut innermost = error;
        while let Some(cause) = innermost.loader_error::<lazy_layers_cache::Error>() {
            innermost = cause.clone();
        }
        assert_eq!(innermost.kind(), ErrorKind::Recursion);
    }
}

#[tokio::test(start_paused = true)]
async fn two_callers_of_different_caches_are_never_coalesced() {
    let origin = Origin::default();
    let caches: [Cache; 2] = std::array::from_fn(|_| on_tokio_time().build().unwrap());
    let (left, right) = tokio::join!(
        caches[0].get_or_set("k", origin.load(Gate::Slow)),
        caches[1].get_or_set("k", origin.load(Gate::Slow)),
    );
    assert_eq!((left.unwrap().as_deref(), right.unwrap().as_deref()), (Some(&1), Some(&2)));
}

/// The inner call could not join: coalescing is off or at a limit, or the flight is too old or was
/// closed by a delete.
#[tokio::test(start_paused = true)]
async fn a_loader_that_asks_for_its_own_key_gets_an_error_even_if_it_could_not_join() {
    let full = Coalescing::default().max_followers(0);
    for (inflight, deletes, waits) in [
        (Coalescing::disabled(), false, 0),
        (Coalescing::default().max_entries(0), false, 0),
        (full, false, 0),
        (Coalescing::default(), true, 0),
        (Coalescing::default().ttl(ms(10)), false, 100),
    ] {
        let cache = on_tokio_time().inflight(inflight).build().unwrap();
        let inner = cache.clone();
        let error = cache
            .get_or_set("k", move || async move {
                if deletes {
                    inner.delete("k").await?;
                }
                tokio::time::sleep(ms(waits)).await;
                inner.get_or_set("k", || async { Ok::<_, Broken>(1) }).await.map(|value| *value)
            })
            .await
            .unwrap_err();
        let own = error.loader_error::<lazy_layers_cache::Error>().unwrap();
        assert_eq!(own.kind(), ErrorKind::Recursion);
    }
}

/// Each loader asks for the next key: the depth depends on the data, and must not use up the stack.
#[test]
fn a_chain_of_loaders_may_be_longer_than_the_stack_is_deep() {
    fn ask(
        cache: LazyLayersCache<u32, u32>,
        key: u32,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<u32, lazy_layers_cache::Error>> + Send>> {
        Box::pin(async move {
            let inner = cache.clone();
            let load = move || async move {
                if key == 0 { Ok(0) } else { ask(inner, key - 1).await.map(|value| value + 1) }
            };
            cache.get_or_set(&key, load).await.map(|value| *value)
        })
    }
    let cache = LazyLayersCache::<u32, u32>::builder().build().unwrap();
    let on_a_small_stack = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(ask(cache, 5_000))
    });
    assert_eq!(on_a_small_stack.unwrap().join().unwrap().unwrap(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn a_flight_too_old_to_be_joined_leaves_its_slot_to_the_next() {
    let inflight = Coalescing::default().ttl(ms(1_000)).max_entries(1);
    let cache = on_tokio_time().inflight(inflight).build().unwrap();
    let origin = Origin::default();
    let spawn = |gate| {
        let (cache, load) = (cache.clone(), origin.load(gate));
        tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap() })
    };
    let _stuck = spawn(Gate::Never);
    tokio::time::sleep(ms(1_500)).await;
    let callers = [(); 10].map(|()| spawn(Gate::Slow));
    for caller in callers {
        assert_eq!(caller.await.unwrap().as_deref(), Some(&2));
    }
    assert_eq!((origin.loads(), cache.stats().bypassed), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_load_may_ask_for_the_key_of_a_loader_that_no_longer_waits_for_it() {
    let cache = on_tokio_time().build().unwrap();
    let (outer, inner) = (cache.clone(), cache.clone());
    let times_out = async move || {
        let slow = move || async move {
            tokio::time::sleep(ms(1_000)).await;
            inner.get_or_set("a", || async { Ok::<_, Broken>(7) }).await.map(|value| *value)
        };
        let asked = outer.get_or_set("b", slow).into_future();
        tokio::time::timeout(ms(10), asked).await.is_err()
    };
    let first = cache
        .get_or_set("a", move || async move { Ok::<_, Broken>(u32::from(times_out().await)) })
        .await
        .unwrap();
    assert_eq!(*first, 1, "the wait for b timed out");
    cache.delete("a").await.unwrap();
    tokio::time::sleep(ms(2_000)).await;
    settle().await;
    assert_eq!(
        (cache.get("a").await.as_deref(), cache.get("b").await.as_deref()),
        (Some(&7), Some(&7))
    );
}
