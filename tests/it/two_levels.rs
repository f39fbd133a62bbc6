//! Two instances over one shared level, on paused time: what is shared, what is fenced, and what
//! happens when the level does not answer.

use std::time::Duration;

use lazy_layers_cache::{
    Begin, Begun, BoxError, Codec, ErrorKind, FailSafe, L1Options, L2Health, L2Options, Lease,
    Source, StaleReason, Store, StoreFuture, Stored, Timeouts,
    testing::{SharedStore, TokioClock, Weather},
};

use crate::support::{Cache, Gate, Log, Origin, SLOW, ms, on_tokio_time, settle};

/// Numbers as text.
struct Text;

impl Codec<u32> for Text {
    fn encode(&self, value: &u32) -> Result<Vec<u8>, BoxError> {
        if *value == UNSPEAKABLE {
            Err("cannot be said".into())
        } else {
            Ok(value.to_string().into())
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, BoxError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

const UNSPEAKABLE: u32 = 666;

/// An instance: 1 s fresh in memory, 10 s in the shared level, then stale for a minute.
fn instance(store: &SharedStore) -> Cache {
    on_tokio_time()
        .l1(L1Options::default().ttl(ms(1_000)))
        .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)))
        .ttl(ms(10_000))
        .l2(store.clone(), Text)
        .build()
        .unwrap()
}

fn world() -> (SharedStore, Cache, Cache, Origin) {
    let store = SharedStore::new(TokioClock::new());
    let (left, right) = (instance(&store), instance(&store));
    (store, left, right, Origin::default())
}

fn load(cache: &Cache, origin: &Origin, gate: Gate) -> tokio::task::JoinHandle<Option<u32>> {
    let (cache, load) = (cache.clone(), origin.load(gate));
    tokio::spawn(async move { cache.get_or_set("k", load).await.unwrap().as_deref().copied() })
}

#[tokio::test(start_paused = true)]
async fn what_one_instance_loaded_the_other_finds() {
    let (store, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(store.operations(), 2, "a miss with its write: two round trips");
    assert_eq!(store.peek("k").as_deref(), Some(&b"1"[..]));

    let log = Log::of(&right);
    let found = right.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((found.value.as_deref(), found.source), (Some(&1), Source::L2));
    assert_eq!((log.take(), store.operations()), (vec!["hit".to_owned()], 3));
    assert_eq!(right.get_l1("k").as_deref(), Some(&1), "and has it in memory now");
    assert_eq!(origin.loads(), 1);

    let third = instance(&store);
    assert_eq!(third.get("k").await.as_deref(), Some(&1));
    assert_eq!(third.get_l1("k").as_deref(), Some(&1));
    assert!(instance(&store).has("k").await);
    assert_eq!(third.size().await, 1);
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_a_value_no_longer_than_it_is_fresh_in_the_shared_level() {
    let (_, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(9_500)).await;
    assert_eq!(right.get("k").await.as_deref(), Some(&1));
    tokio::time::advance(ms(499)).await;
    assert!(right.get_l1("k").is_some());
    tokio::time::advance(ms(1)).await;
    assert!(right.get_l1("k").is_none());
    assert_eq!(right.get("k").await, None, "nor is it fresh there");
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_in_the_shared_level_serves_a_process_that_has_just_started() {
    let (store, left, _, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(30_000)).await;

    let started = instance(&store);
    let served = started.get_or_set("k", origin.load(Gate::Err)).outcome().await.unwrap();
    assert_eq!((served.value.as_deref(), served.stale), (Some(&1), Some(StaleReason::LoaderError)));
    // And keeps it, throttled: the next caller does not load.
    let throttled = started.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((throttled.stale, origin.loads()), (Some(StaleReason::Throttled), 2));

    let slow = instance(&store);
    let served = slow
        .get_or_set("k", origin.load(Gate::Slow))
        .timeouts(Timeouts::none().soft(ms(50)))
        .outcome()
        .await
        .unwrap();
    assert_eq!((served.value.as_deref(), served.stale), (Some(&1), Some(StaleReason::SoftTimeout)));
    tokio::time::sleep(SLOW).await;
    settle().await;
    assert_eq!(slow.get_l1("k").as_deref(), Some(&3), "the load went on");

    tokio::time::advance(ms(70_000)).await;
    let error = instance(&store).get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Loader);
}

#[tokio::test(start_paused = true)]
async fn a_delete_on_one_instance_fences_a_load_on_the_other() {
    for pattern in [false, true] {
        let (store, left, right, origin) = world();
        let log = Log::of(&left);
        let before = load(&left, &origin, Gate::Slow);
        tokio::time::sleep(ms(100)).await;
        if pattern {
            right.delete_by_pattern("k*").await.unwrap();
        } else {
            right.delete("k").await.unwrap();
        }
        assert_eq!(before.await.unwrap(), Some(1), "its caller gets what it loaded");
        assert!(log.take().contains(&"load:superseded".to_owned()));
        assert_eq!((store.peek("k"), left.get("k").await), (None, None), "and nobody else does");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_on_one_instance_fences_a_load_on_the_other() {
    let (store, left, right, origin) = world();
    let before = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(100)).await;
    right.set("k", 77).await.unwrap();
    assert_eq!(before.await.unwrap(), Some(1));
    assert_eq!(store.peek("k").as_deref(), Some(&b"77"[..]));
    assert_eq!(left.get("k").await.as_deref(), Some(&77));
    assert_eq!(right.get_l1("k").as_deref(), Some(&77));
}

#[tokio::test(start_paused = true)]
async fn a_value_being_fetched_from_the_shared_level_is_fenced_too() {
    let (_, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    // Both have asked the shared level when the delete comes, here, before the answer is used.
    for promote_by_load in [false, true] {
        let fetching = tokio::spawn({
            let (right, load) = (right.clone(), origin.load(Gate::Slow));
            async move {
                if promote_by_load {
                    right.get_or_set("k", load).await.unwrap();
                } else {
                    right.get("k").await;
                }
            }
        });
        let deleting = tokio::spawn({
            let right = right.clone();
            async move { right.delete("k").await.unwrap() }
        });
        deleting.await.unwrap();
        fetching.await.unwrap();
        assert_eq!(right.get_l1("k"), None);
        left.set("k", 5).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_for_any_reason_refuses() {
    let (store, left, _, origin) = world();
    let running = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(100)).await;
    store.restart();
    assert_eq!(running.await.unwrap(), Some(1));
    assert_eq!((store.peek("k"), left.get_l1("k")), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_failing_or_silent_level_is_as_if_it_were_not_there() {
    for weather in [Weather::Failing, Weather::Silent, Weather::Deaf] {
        let (store, left, _, origin) = world();
        store.set_weather(weather);
        let log = Log::of(&left);
        let begun = tokio::time::Instant::now();
        assert_eq!(left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
        assert!(begun.elapsed() <= ms(500), "{:?}", begun.elapsed());
        assert_eq!(log.take(), ["l2:error", "miss", "loader:start", "loader:success", "set"]);
        assert_eq!(left.get_l1("k").as_deref(), Some(&1));
        assert_eq!(left.get("other").await, None);
        assert!(!left.has("other").await);
        assert_eq!(log.take(), ["hit", "l2:error", "miss", "l2:error"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_level_that_fails_again_and_again_is_left_alone_and_then_probed() {
    let (store, left, _, origin) = world();
    store.set_weather(Weather::Failing);
    for key in ["a", "b", "c"] {
        left.get_or_set(key, origin.load(Gate::Ok)).await.unwrap();
    }
    assert_eq!(left.health().l2, Some(L2Health::Skipped));
    let asked = store.operations();
    let log = Log::of(&left);
    left.get_or_set("d", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(log.take(), ["l2:skipped", "miss", "loader:start", "loader:success", "set"]);
    assert_eq!(store.operations(), asked);

    store.set_weather(Weather::Fine);
    tokio::time::advance(ms(30_000)).await;
    left.get_or_set("e", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(left.health().l2, Some(L2Health::Answering));
    assert!(store.peek("e").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_delete_or_set_that_did_not_get_through_says_so() {
    for weather in [Weather::Failing, Weather::Silent, Weather::Deaf] {
        let (store, left, right, _) = world();
        left.set("k", 1).await.unwrap();
        right.get("k").await;
        store.set_weather(weather);
        for told in [left.delete("k").await, left.set("k", 2).await] {
            let error = told.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::L2Unreachable, "{weather:?}");
            assert!(std::error::Error::source(&error).is_some());
        }
        let skipped = left.delete("k").await.unwrap_err();
        assert_eq!(skipped.kind(), ErrorKind::L2Unreachable);
        assert_eq!(left.get_l1("k"), None, "this instance has forgotten it all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_value_are_a_miss_and_are_replaced() {
    let (store, left, _, origin) = world();
    store.plant("k", "seven", ms(60_000 + 5_000));
    let log = Log::of(&left);
    assert_eq!(left.get("k").await, None);
    assert_eq!(log.take(), ["l2:error", "miss"]);
    assert_eq!(left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
    assert_eq!(log.take(), ["l2:error", "miss", "loader:start", "loader:success", "set"]);
    assert_eq!(store.peek("k").as_deref(), Some(&b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_encoded_is_kept_in_memory_alone() {
    let (store, left, _, _) = world();
    left.set("k", 5).await.unwrap();
    left.set("k", UNSPEAKABLE).await.unwrap();
    assert_eq!((store.peek("k"), left.get_l1("k").as_deref()), (None, Some(&UNSPEAKABLE)));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_passes_over_what_the_shared_level_has() {
    let (store, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    let fresh = right.get_or_set("k", origin.load(Gate::Ok)).refresh().await.unwrap();
    assert_eq!((fresh.as_deref(), store.peek("k").as_deref()), (Some(&2), Some(&b"2"[..])));
}

#[tokio::test(start_paused = true)]
async fn each_level_has_its_own_time_to_live() {
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time()
        .l1(L1Options::default().ttl(ms(100)))
        .l2_options(L2Options::default().ttl(ms(300)))
        .l2(store.clone(), Text)
        .build()
        .unwrap();
    cache.set("k", 1).await.unwrap();
    tokio::time::advance(ms(299)).await;
    assert_eq!((cache.get_l1("k"), cache.get("k").await.as_deref()), (None, Some(&1)));
    tokio::time::advance(ms(1)).await;
    assert_eq!(cache.get("k").await, None);
}

#[tokio::test(start_paused = true)]
async fn the_shared_level_alone_is_a_cache_too() {
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time().without_l1().l2(store.clone(), Text).build().unwrap();
    let origin = Origin::default();
    for _ in 0..3 {
        cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    }
    assert_eq!((origin.loads(), cache.get_l1("k"), cache.size().await), (1, None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_value_of_any_serializable_type_goes_through_the_wire_format() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct User {
        id: u32,
        tags: Vec<String>,
    }
    let store = SharedStore::new(TokioClock::new());
    let instance = || {
        lazy_layers_cache::LazyLayersCache::<u32, User>::builder()
            .clock(TokioClock::new())
            .l2(store.clone(), lazy_layers_cache::WireCodec::new())
            .build()
            .unwrap()
    };
    let user = || User { id: 7, tags: vec!["a".to_owned()] };
    instance().set(&7, user()).await.unwrap();
    assert_eq!(store.peek("7").unwrap()[..4], *b"HC1M");
    assert_eq!(instance().get(&7).await.as_deref(), Some(&user()));
}

/// A store to which some writes are long on their way, or their answers on the way back.
struct SlowRoad {
    store: SharedStore,
    there: fn(&[u8]) -> u64,
    back: fn(&[u8]) -> u64,
}

impl Store for SlowRoad {
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Stored>> {
        self.store.get(key)
    }

    fn begin<'a>(&'a self, key: &'a str, begin: Begin) -> StoreFuture<'a, Begun> {
        self.store.begin(key, begin)
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        value: Vec<u8>,
        lives: Duration,
    ) -> StoreFuture<'a, bool> {
        self.store.publish(key, lease, value, lives)
    }

    fn set<'a>(&'a self, key: &'a str, value: Vec<u8>, lives: Duration) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            tokio::time::sleep(ms((self.there)(&value))).await;
            let back = (self.back)(&value);
            self.store.set(key, value, lives).await?;
            tokio::time::sleep(ms(back)).await;
            Ok(())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.store.delete(key)
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.store.delete_matching(pattern)
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.store.size()
    }
}

fn over(road: SlowRoad) -> Cache {
    on_tokio_time().l2(road, Text).build().unwrap()
}

fn set(cache: &Cache, value: u32) -> tokio::task::JoinHandle<()> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.set("k", value).await.unwrap() })
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_answer_is_late_does_not_undo_a_delete() {
    for pattern in [false, true] {
        let store = SharedStore::new(TokioClock::new());
        let cache = over(SlowRoad { store: store.clone(), there: |_| 0, back: |_| 200 });
        let setting = set(&cache, 1);
        tokio::time::sleep(ms(100)).await;
        assert!(store.peek("k").is_some());
        if pattern {
            cache.clear().await.unwrap();
        } else {
            cache.delete("k").await.unwrap();
        }
        setting.await.unwrap();
        assert_eq!((cache.get_l1("k"), cache.get("k").await), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_sets_that_overtake_each_other_memory_never_has_the_one_and_the_level_the_other() {
    // The first is long on its way, so the shared level has it last.
    let there = |value: &[u8]| if value == b"1" { 200 } else { 0 };
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowRoad { store: store.clone(), there, back: |_| 0 });
    let first = set(&cache, 1);
    tokio::time::sleep(ms(100)).await;
    set(&cache, 2).await.unwrap();
    assert_eq!(cache.get_l1("k").as_deref(), Some(&2));
    first.await.unwrap();
    assert_eq!(store.peek("k").as_deref(), Some(&b"1"[..]));
    assert_eq!(cache.get("k").await.as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_set_stands_over_a_load_that_began_while_it_was_on_its_way() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowRoad { store: store.clone(), there: |_| 100, back: |_| 100 });
    let origin = Origin::default();
    let setting = set(&cache, 77);
    tokio::time::sleep(ms(50)).await;
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    setting.await.unwrap();
    assert_eq!(cache.get_l1("k").as_deref(), Some(&77));
    assert_eq!(store.peek("k").as_deref(), Some(&b"77"[..]));
}
