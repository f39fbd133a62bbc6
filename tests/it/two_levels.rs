//! Two instances over one store, on paused time: shared values, fencing, and a store that fails.

use std::{
    sync::Arc,
    task::{Context, Waker},
};

use lazy_layers_cache::{
    BoxError, Codec, ErrorKind, FailSafe, L1Options, L2Effect, L2Health, L2Options, Lease,
    LeaseRequest, LeaseResponse, Publication, Source, StaleReason, Store, StoreFuture, StoredValue,
    SystemClock, Timeouts, WireCodec,
    testing::{ForwardStore, SharedBus, SharedStore, StoreFault, TokioClock, check_store},
};

use crate::support::{
    Cache, Gate, Log, Origin, REFRESH, SLOW, ms, on_tokio_time, publication, settle,
};

/// Encodes numbers as text.
struct Text;

impl Codec<u32> for Text {
    fn encode(&self, value: &u32) -> Result<Vec<u8>, BoxError> {
        if *value == UNENCODABLE {
            Err("cannot be encoded".into())
        } else {
            Ok(value.to_string().into())
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<u32, BoxError> {
        Ok(std::str::from_utf8(bytes)?.parse()?)
    }
}

const UNENCODABLE: u32 = 666;

/// An instance whose values are fresh for 1 s in L1 and for 10 s in L2, then stale for a minute.
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
async fn the_bytes_of_a_codec_other_than_the_wires_carry_a_tag_of_their_own() {
    let (store, left, right, origin) = world();
    left.set("k", 7).await.unwrap();
    assert_eq!(store.peek("k").unwrap(), b"HC1C7");
    assert_eq!(right.get("k").await.as_deref(), Some(&7));
    // To the wire codec, 7 as a text would be the number 55.
    let on_the_wire = on_tokio_time().l2(store.clone(), WireCodec::new()).build().unwrap();
    assert_eq!(on_the_wire.get("k").await, None);
    // What another program has written carries none.
    store.insert_raw("theirs", b"8", ms(10_000));
    assert_eq!(right.get("theirs").await.as_deref(), Some(&8));
    store.insert_raw("unreadable", b"HC1Cx", ms(10_000));
    assert_eq!(
        right.get_or_set("unreadable", origin.load(Gate::Ok)).await.unwrap().as_deref(),
        Some(&1)
    );
    assert_eq!(store.peek("unreadable").unwrap(), b"HC1C1");
}

#[tokio::test(start_paused = true)]
async fn the_values_of_a_codec_other_than_the_wires_prime_the_peers_that_have_it() {
    let bus = SharedBus::new(1);
    let build = || on_tokio_time().name("numbers").ttl(ms(60_000));
    let [left, right] = [(); 2].map(|()| build().event_bus(bus.link(), Text).build().unwrap());
    let wire = build().event_bus(bus.link(), WireCodec::new()).build().unwrap();
    for cache in [&left, &right, &wire] {
        cache.ready().await.unwrap();
        cache.delete("x").await.unwrap();
    }
    tokio::time::sleep(ms(5_000)).await;
    for key in ["set", "loaded"] {
        wire.set(key, 9).await.unwrap();
        tokio::time::sleep(ms(100)).await;
        assert_eq!((left.get_l1(key), wire.get_l1(key).as_deref()), (None, Some(&9)));
    }
    left.set("set", 7).await.unwrap();
    left.get_or_set("loaded", Origin::default().load(Gate::Ok)).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    let found = |cache: &Cache| ["set", "loaded"].map(|key| cache.get_l1(key).as_deref().copied());
    assert_eq!(found(&right), [Some(7), Some(1)]);
    assert_eq!(found(&wire), [None, Some(9)], "a `set` is a delete there, a load nothing");
    assert_eq!((right.stats().values_received, right.stats().events_refused), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_restarted_from_a_snapshot_has_its_values_and_leases_and_a_new_run_id() {
    let (store, left, _, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    let begin = LeaseRequest { lease_for: ms(9_000), ..REFRESH };
    let LeaseResponse::Load { lease: Some(lease), .. } =
        store.get_or_lease("q", begin).await.unwrap()
    else {
        panic!("a lease was to be had");
    };
    let (saved, run) = (store.snapshot(), store.run_id());
    assert!(store.is_verified());
    store.delete_all(&["k".to_owned(), "q".to_owned()]).await.unwrap();
    store.mark_verified();
    store.restart_with(&saved);
    assert!(store.peek("k").is_some() && store.run_id() != run && !store.is_verified());
    assert!(store.publish("q", &lease, publication(b"7", ms(9_000))).await.unwrap());
    store.mark_verified();
    assert!(store.is_verified());
    store.restart_with(&store.snapshot());
    assert!(!store.is_verified(), "a new run is never verified");
}

#[tokio::test(start_paused = true)]
async fn a_value_loaded_by_one_instance_is_a_hit_on_the_other() {
    let (store, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(store.operations(), 2, "a miss and its publication: two round trips");
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C1"[..]));

    let log = Log::of(&right);
    let found = right.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((found.value.as_deref(), found.source), (Some(&1), Source::L2));
    assert_eq!((log.take(), store.operations()), (vec!["hit".to_owned()], 3));
    assert_eq!(right.get_l1("k").as_deref(), Some(&1), "and is in L1 now");
    assert_eq!(origin.loads(), 1);

    let third = instance(&store);
    assert_eq!(third.get("k").await.as_deref(), Some(&1));
    assert_eq!(third.get_l1("k").as_deref(), Some(&1));
    assert!(instance(&store).has("k").await);
    assert_eq!(third.size().await, 1);
}

#[tokio::test(start_paused = true)]
async fn l1_keeps_a_value_no_longer_than_it_is_fresh_in_l2() {
    let (_, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(9_500)).await;
    assert_eq!(right.get("k").await.as_deref(), Some(&1));
    tokio::time::advance(ms(499)).await;
    assert!(right.get_l1("k").is_some());
    tokio::time::advance(ms(1)).await;
    assert!(right.get_l1("k").is_none());
    assert_eq!(right.get("k").await, None, "it is not fresh in L2 either");
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_in_l2_serves_an_instance_that_has_just_started() {
    let (store, left, _, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    tokio::time::advance(ms(30_000)).await;

    let started = instance(&store);
    let served = started.get_or_set("k", origin.load(Gate::Err)).outcome().await.unwrap();
    assert_eq!((served.value.as_deref(), served.stale), (Some(&1), Some(StaleReason::LoaderError)));
    // The instance keeps it as a throttled entry: the next caller does not load.
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
        assert_eq!(before.await.unwrap(), Some(1), "its caller gets the loaded value");
        assert!(log.take().contains(&"load:superseded".to_owned()));
        assert_eq!(
            (store.peek("k"), left.get("k").await),
            (None, None),
            "and no other caller does"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_on_one_instance_fences_a_load_on_the_other() {
    let (store, left, right, origin) = world();
    let before = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(100)).await;
    right.set("k", 77).await.unwrap();
    assert_eq!(before.await.unwrap(), Some(1));
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C77"[..]));
    assert_eq!(left.get("k").await.as_deref(), Some(&77));
    assert_eq!(right.get_l1("k").as_deref(), Some(&77));
}

#[tokio::test(start_paused = true)]
async fn a_value_being_read_from_l2_is_fenced_too() {
    let (_, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    // Both have sent their request to the store when the delete reaches L1, before the answer is
    // used.
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
async fn a_store_that_fails_or_hangs_is_a_miss() {
    for fault in [StoreFault::Fails, StoreFault::Hangs, StoreFault::HangsAfterwards] {
        let (store, left, _, origin) = world();
        store.set_fault(fault);
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
async fn the_circuit_opens_after_three_failures_and_a_probe_closes_it() {
    let (store, left, _, origin) = world();
    store.set_fault(StoreFault::Fails);
    for key in ["a", "b", "c"] {
        left.get_or_set(key, origin.load(Gate::Ok)).await.unwrap();
    }
    assert_eq!(left.health().l2, Some(L2Health::Skipped));
    let asked = store.operations();
    let log = Log::of(&left);
    left.get_or_set("d", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(log.take(), ["l2:skipped", "miss", "loader:start", "loader:success", "set"]);
    assert_eq!(store.operations(), asked);

    store.set_fault(StoreFault::None);
    tokio::time::advance(ms(30_000)).await;
    left.get_or_set("e", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(left.health().l2, Some(L2Health::Answering));
    assert!(store.peek("e").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_delete_or_set_that_does_not_reach_l2_is_reported() {
    for fault in [StoreFault::Fails, StoreFault::Hangs, StoreFault::HangsAfterwards] {
        let (store, left, right, _) = world();
        left.set("k", 1).await.unwrap();
        right.get("k").await;
        store.set_fault(fault);
        for report in [left.set("k", 2).await, left.delete("k").await, left.delete("k").await] {
            assert_eq!(report.unwrap().l2, L2Effect::Pending, "{fault:?}");
        }
        assert_eq!(left.get_l1("k"), None, "the instance removes it from L1 all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_do_not_decode_are_a_miss_and_are_replaced() {
    let (store, left, _, origin) = world();
    store.insert_raw("k", "seven", ms(60_000 + 5_000));
    let log = Log::of(&left);
    assert_eq!(left.get("k").await, None);
    assert_eq!(log.take(), ["l2:error", "miss"]);
    assert_eq!(store.peek("k"), None, "the bytes are deleted");
    store.insert_raw("k", "seven", ms(60_000 + 5_000));
    assert_eq!(left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
    assert_eq!(log.take(), ["l2:error", "miss", "loader:start", "loader:success", "set"]);
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_encoded_is_kept_in_l1_only() {
    let (store, left, _, _) = world();
    left.set("k", 5).await.unwrap();
    left.set("k", UNENCODABLE).await.unwrap();
    assert_eq!((store.peek("k"), left.get_l1("k").as_deref()), (None, Some(&UNENCODABLE)));
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_ignores_the_value_in_l2() {
    let (store, left, right, origin) = world();
    left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    let fresh = right.get_or_set("k", origin.load(Gate::Ok)).refresh().await.unwrap();
    assert_eq!((fresh.as_deref(), store.peek("k").as_deref()), (Some(&2), Some(&b"HC1C2"[..])));
}

#[tokio::test(start_paused = true)]
async fn l1_and_l2_have_their_own_ttl() {
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
async fn a_cache_without_l1_works_on_l2_alone() {
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
            .l2(store.clone(), WireCodec::new())
            .build()
            .unwrap()
    };
    let user = || User { id: 7, tags: vec!["a".to_owned()] };
    instance().set(&7, user()).await.unwrap();
    assert_eq!(store.peek("7").unwrap()[..4], *b"HC1M");
    assert_eq!(instance().get(&7).await.as_deref(), Some(&user()));
}

/// A store that receives some requests late, or whose answers arrive late. Times are milliseconds.
struct SlowStore {
    store: SharedStore,
    there: fn(&[u8]) -> u64,
    back: fn(&[u8]) -> u64,
    /// The delay of answers to `get`, of `get_or_lease` and of its answers, and of deletes on their
    /// way to the store.
    read_back: u64,
    begin: u64,
    begin_back: u64,
    delete_there: u64,
}

impl SlowStore {
    fn to(store: &SharedStore) -> Self {
        let store = store.clone();
        let (there, back) = (|_: &[u8]| 0, |_: &[u8]| 0);
        Self { store, there, back, read_back: 0, begin: 0, begin_back: 0, delete_there: 0 }
    }
}

impl ForwardStore for SlowStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    fn get<'a>(&'a self, key: &'a str, with_window: bool) -> StoreFuture<'a, Option<StoredValue>> {
        Box::pin(async move {
            let read = self.store.get(key, with_window).await;
            tokio::time::sleep(ms(self.read_back)).await;
            read
        })
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        Box::pin(async move {
            tokio::time::sleep(ms(self.begin)).await;
            let begun = self.store.get_or_lease(key, request).await;
            tokio::time::sleep(ms(self.begin_back)).await;
            begun
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let Publication::Value { value, .. } = &result else {
                return self.store.publish(key, lease, result).await;
            };
            let (there, back) = ((self.there)(value), (self.back)(value));
            tokio::time::sleep(ms(there)).await;
            let published = self.store.publish(key, lease, result).await?;
            tokio::time::sleep(ms(back)).await;
            Ok(published)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            tokio::time::sleep(ms(self.delete_there)).await;
            self.store.delete(key).await
        })
    }
}

fn over(store: SlowStore) -> Cache {
    on_tokio_time().l2(store, Text).build().unwrap()
}

fn set(cache: &Cache, value: u32) -> tokio::task::JoinHandle<()> {
    let cache = cache.clone();
    tokio::spawn(async move { drop(cache.set("k", value).await.unwrap()) })
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_is_polled_late_does_not_keep_the_value_longer() {
    let store = SharedStore::new(TokioClock::new());
    for (ttl, late, kept) in [
        (60_000, 600_000, false),
        (120_000, 10_000, true),
        (60_000, 10_000, true),
        (5_000, 10_000, false),
    ] {
        let cache = on_tokio_time()
            .l1(L1Options::default().ttl(ms(ttl)))
            .l2(SlowStore { read_back: 100, ..SlowStore::to(&store) }, Text)
            .build()
            .unwrap();
        store.insert_raw("k", "1", ms(60_000));
        let mut call = Box::pin(cache.get("k"));
        // Polls until the store has been read, and then not for some time.
        for _ in 0..3 {
            assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(ms(late)).await;
        assert_eq!(call.await.as_deref(), Some(&1), "the value was fresh when the read began");
        assert_eq!(cache.get_l1("k").is_some(), kept);
        tokio::time::sleep(ms(60_000 - 10_000)).await;
        assert_eq!(cache.get_l1("k"), None, "L1 keeps it no longer than L2");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_answer_is_late_does_not_undo_a_delete() {
    for pattern in [false, true] {
        let store = SharedStore::new(TokioClock::new());
        let cache = over(SlowStore { back: |_| 200, ..SlowStore::to(&store) });
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
async fn two_overlapping_sets_never_leave_different_values_in_l1_and_l2() {
    // The first write reaches the store late. It began before the second, so it is refused.
    let there = |value: &[u8]| if value == b"HC1C1" { 200 } else { 0 };
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { there, ..SlowStore::to(&store) });
    let first = set(&cache, 1);
    tokio::time::sleep(ms(100)).await;
    set(&cache, 2).await.unwrap();
    assert_eq!(cache.get_l1("k").as_deref(), Some(&2));
    first.await.unwrap();
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C2"[..]));
    assert_eq!(cache.get("k").await.as_deref(), Some(&2));
}

#[tokio::test(start_paused = true)]
async fn a_set_wins_over_a_load_that_began_while_the_set_was_in_flight() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { there: |_| 100, back: |_| 100, ..SlowStore::to(&store) });
    let origin = Origin::default();
    let setting = set(&cache, 77);
    tokio::time::sleep(ms(50)).await;
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    setting.await.unwrap();
    assert_eq!(cache.get_l1("k").as_deref(), Some(&77));
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C77"[..]));
}

fn get(cache: &Cache) -> tokio::task::JoinHandle<Option<u32>> {
    let cache = cache.clone();
    tokio::spawn(async move { cache.get("k").await.as_deref().copied() })
}

#[tokio::test(start_paused = true)]
async fn a_value_read_before_a_delete_does_not_fill_l1_after_it() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { read_back: 200, ..SlowStore::to(&store) });
    store.insert_raw("k", "1", ms(60_000));
    let reading = get(&cache);
    tokio::time::sleep(ms(100)).await;
    cache.delete("k").await.unwrap();
    reading.await.unwrap();
    assert_eq!(cache.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_value_read_while_a_delete_is_in_flight_does_not_stay_in_l1() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { delete_there: 200, ..SlowStore::to(&store) });
    store.insert_raw("k", "1", ms(60_000));
    let deleting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.delete("k").await.unwrap() }
    });
    tokio::time::sleep(ms(100)).await;
    assert_eq!(get(&cache).await.unwrap(), Some(1), "the delete has not reached L2 yet");
    deleting.await.unwrap();
    assert_eq!(cache.get_l1("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_value_read_from_l2_does_not_replace_a_value_loaded_since() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { read_back: 500, ..SlowStore::to(&store) });
    let origin = Origin::default();
    origin.load(Gate::Ok)().await.unwrap();
    store.insert_raw("k", "1", ms(60_000));
    // In either order: the load begins before the read and ends during it, or both after it.
    for refresh_first in [true, false] {
        let refresh = || {
            let (cache, load) = (cache.clone(), origin.load(Gate::Slow));
            tokio::spawn(async move { cache.get_or_set("k", load).refresh().await.unwrap() })
        };
        let (loaded, read) = if refresh_first {
            let loading = refresh();
            settle().await;
            let reading = get(&cache);
            (loading.await.unwrap(), reading.await.unwrap())
        } else {
            cache.clear().await.unwrap();
            store.insert_raw("k", "1", ms(60_000));
            let reading = get(&cache);
            settle().await;
            (refresh().await.unwrap(), reading.await.unwrap())
        };
        assert_eq!(read, Some(1));
        assert_eq!(cache.get_l1("k"), loaded, "the load began first: {refresh_first}");
        cache.clear().await.unwrap();
        store.insert_raw("k", "1", ms(60_000));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_returns_none_deletes_the_copy_in_l2_too() {
    let (store, left, right, origin) = world();
    left.set("k", 5).await.unwrap();
    assert_eq!(right.get_or_set("k", origin.load(Gate::None)).refresh().await.unwrap(), None);
    assert_eq!((store.peek("k"), right.get("k").await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_load_longer_than_the_caches_own_limit_is_cached_if_its_call_allows_it() {
    let store = SharedStore::new(TokioClock::new());
    let limits = Timeouts::none().hard(ms(100));
    let cache = on_tokio_time().timeouts(limits).l2(store.clone(), Text).build().unwrap();
    let load = Origin::default().load(Gate::Slow);
    cache.get_or_set("k", load).timeouts(Timeouts::none().hard(ms(30_000))).await.unwrap();
    assert!(store.peek("k").is_some() && cache.get_l1("k").is_some());

    let cache = on_tokio_time().l2(store.clone(), Text).build().unwrap();
    let load = || async {
        tokio::time::sleep(ms(20 * 60_000)).await;
        Ok::<_, crate::support::Broken>(8)
    };
    cache.get_or_set("slowest", load).await.unwrap();
    assert!(store.peek("slowest").is_some() && cache.get_l1("slowest").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_that_joins_a_read_of_l2_still_loads() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { begin: 100, ..SlowStore::to(&store) });
    store.insert_raw("k", "50", ms(60_000));
    let origin = Origin::default();
    let reads = load(&cache, &origin, Gate::Ok);
    settle().await;
    let refreshed = cache.get_or_set("k", origin.load(Gate::Ok)).refresh().await.unwrap();
    assert_eq!((reads.await.unwrap(), refreshed.as_deref()), (Some(50), Some(&1)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_joins_a_load_after_a_delete_elsewhere_gets_no_older_value() {
    let (_, left, right, origin) = world();
    let before = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(100)).await;
    right.delete("k").await.unwrap();
    // This instance does not know of the delete, so the call joins the load, which ends refused.
    let after = load(&left, &origin, Gate::Ok);
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn the_hard_timeout_bounds_the_call_although_l2_hangs() {
    let (store, left, _, origin) = world();
    store.set_fault(StoreFault::Hangs);
    let begun = tokio::time::Instant::now();
    let limits = Timeouts::none().hard(ms(100));
    let error = left.get_or_set("k", origin.load(Gate::Slow)).timeouts(limits).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::HardTimeout, ms(100)));
    // The load goes on: L2 has its own limit, and the loader that of the call.
    let limits = Timeouts::none().hard(ms(400));
    left.get_or_set("other", origin.load(Gate::Slow)).timeouts(limits).await.unwrap_err();
    tokio::time::sleep(ms(700)).await;
    assert_eq!((left.get_l1("k"), left.get_l1("other").as_deref()), (None, Some(&2)));
}

#[tokio::test(start_paused = true)]
async fn the_time_spent_on_a_refused_load_counts_for_the_hard_timeout() {
    let (_, left, right, origin) = world();
    let refused = load(&left, &origin, Gate::Slow);
    tokio::time::sleep(ms(100)).await;
    right.delete("k").await.unwrap();
    // The joined load ends refused after 200 ms; the rest of the timeout is for a load of its own.
    let begun = tokio::time::Instant::now();
    let limits = Timeouts::none().hard(ms(400));
    let error = left.get_or_set("k", origin.load(Gate::Never)).timeouts(limits).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::HardTimeout, ms(400)));
    refused.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_that_arrives_after_the_soft_timeout_is_served_at_once() {
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time()
        .fail_safe(FailSafe::enabled().stale_ttl(ms(60_000)))
        .timeouts(Timeouts::none().soft(ms(50)))
        .l2(SlowStore { begin: 100, ..SlowStore::to(&store) }, Text)
        .build()
        .unwrap();
    let writer = on_tokio_time().fail_safe(FailSafe::enabled()).l2(store.clone(), Text);
    writer.build().unwrap().set("k", 9).ttl(ms(1_000)).await.unwrap();
    tokio::time::sleep(ms(2_000)).await;
    let begun = tokio::time::Instant::now();
    let served =
        cache.get_or_set("k", Origin::default().load(Gate::Never)).outcome().await.unwrap();
    assert_eq!((served.value.as_deref(), begun.elapsed()), (Some(&9), ms(100)));
    assert_eq!(served.stale, Some(StaleReason::SoftTimeout));
}

#[tokio::test(start_paused = true)]
async fn of_two_stale_copies_the_newer_one_serves() {
    let (_, left, right, origin) = world();
    left.set("k", 1).await.unwrap();
    tokio::time::advance(ms(5_000)).await;
    right.set("k", 2).await.unwrap();
    tokio::time::advance(ms(20_000)).await;
    let served = left.get_or_set("k", origin.load(Gate::Err)).await.unwrap();
    assert_eq!(served.as_deref(), Some(&2), "not the copy in its own L1");
}

#[tokio::test(start_paused = true)]
async fn a_set_whose_outcome_in_l2_is_unknown_keeps_its_value_in_l1_only() {
    let store = SharedStore::new(TokioClock::new());
    let cache = over(SlowStore { there: |_| 100, back: |_| 5_000, ..SlowStore::to(&store) });
    store.insert_raw("k", "1", ms(60_000));
    let setting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.set("k", 2).await }
    });
    tokio::time::sleep(ms(50)).await;
    assert_eq!(
        cache.get("k").await,
        None,
        "the old value is removed before the new one is written"
    );
    assert_eq!(setting.await.unwrap().unwrap().l2, L2Effect::Pending);
    assert_eq!(cache.get_l1("k").as_deref(), Some(&2));
    tokio::time::sleep(ms(500)).await;
    assert_eq!(store.peek("k"), None, "the outcome of the set is unknown, so the key is deleted");
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_does_not_reach_l2_is_retried_and_the_key_is_not_read_from_l2_before() {
    for pattern in [false, true] {
        let (store, left, right, origin) = world();
        left.set("k", 1).await.unwrap();
        store.set_fault(StoreFault::Fails);
        let report = if pattern { left.clear().await } else { left.delete("k").await };
        assert_eq!(report.unwrap().l2, L2Effect::Pending);
        store.set_fault(StoreFault::None);
        assert_eq!(left.get("k").await, None, "the value in L2 was deleted");
        assert!(!left.has("k").await);
        assert_eq!(
            right.get("k").await.as_deref(),
            Some(&1),
            "the value is still in L2, and the peer does not know of the delete"
        );
        let loaded = left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
        assert_eq!((loaded.as_deref(), store.peek("k").is_some()), (Some(&1), true));
        tokio::time::sleep(ms(200)).await;
        assert_eq!(store.peek("k"), None, "retried in the background");
        left.delete("k").await.unwrap();
        left.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
        assert!(store.peek("k").is_some(), "L2 serves the key again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_whose_caller_drops_it_is_retried_too() {
    let (store, left, _, _) = world();
    left.set("k", 1).await.unwrap();
    store.set_fault(StoreFault::Hangs);
    let gone = tokio::time::timeout(ms(10), left.delete("k")).await;
    assert!(gone.is_err());
    store.set_fault(StoreFault::None);
    assert_eq!(left.get("k").await, None);
    left.delete("other").await.unwrap();
    tokio::time::sleep(ms(200)).await;
    assert_eq!(store.peek("k"), None);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_ends_the_cooldown() {
    let (store, left, right, _) = world();
    left.set("k", 1).await.unwrap();
    store.set_fault(StoreFault::Fails);
    for _ in 0..3 {
        assert_eq!(right.get("k").await, None);
    }
    store.set_fault(StoreFault::None);
    tokio::time::sleep(ms(5_000)).await;
    assert_eq!(right.get("k").await, None, "the circuit is open");
    store.reconnect();
    assert_eq!(right.get("k").await.as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_key_too_long_for_l2_is_kept_in_l1_only() {
    let (store, left, right, origin) = world();
    let long = "k".repeat((64 << 10) + 1);
    let log = Log::of(&left);
    left.get_or_set(&*long, origin.load(Gate::Ok)).await.unwrap();
    assert!(log.take().contains(&"l2:refused".to_owned()));
    left.set(&*long, 7).await.unwrap();
    assert_eq!(left.get(&*long).await.as_deref(), Some(&7));
    left.delete(&*long).await.unwrap();
    assert_eq!((left.get(&*long).await, right.get(&*long).await), (None, None));
    assert_eq!(store.operations(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_begins_while_a_set_is_on_its_way_does_not_win_over_it() {
    let store = SharedStore::new(TokioClock::new());
    let there = |value: &[u8]| if value == b"HC1C2" { 100 } else { 0 };
    let setter = over(SlowStore { there, ..SlowStore::to(&store) });
    let other = over(SlowStore::to(&store));
    let setting = set(&setter, 2);
    tokio::time::sleep(ms(50)).await;
    let loaded = other.get_or_set("k", || async { Ok::<_, std::io::Error>(1) }).await.unwrap();
    assert_eq!(*loaded, 1);
    setting.await.unwrap();
    assert_eq!(store.peek("k").as_deref(), Some(&b"HC1C2"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_polled_any_more_does_not_keep_the_circuit_open() {
    let (store, left, _, origin) = world();
    store.set_fault(StoreFault::Fails);
    for key in ["a", "b", "c"] {
        left.get_or_set(key, origin.load(Gate::Ok)).await.unwrap();
    }
    store.set_fault(StoreFault::None);
    tokio::time::advance(ms(30_000)).await;
    let mut parked = Box::pin(left.get("parked"));
    let waker = Waker::noop();
    assert!(parked.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    tokio::time::advance(ms(30_000)).await;
    left.get("other").await;
    assert_eq!(left.health().l2, Some(L2Health::Answering));
    drop(parked);
}

#[tokio::test(start_paused = true)]
async fn a_codec_that_panics_is_a_miss() {
    struct Panics;
    impl Codec<u32> for Panics {
        fn encode(&self, _: &u32) -> Result<Vec<u8>, BoxError> {
            panic!("as the test wants")
        }
        fn decode(&self, _: &[u8]) -> Result<u32, BoxError> {
            panic!("as the test wants")
        }
    }
    let store = SharedStore::new(TokioClock::new());
    store.insert_raw("k", "1", ms(60_000));
    let cache = on_tokio_time().l2(store, Panics).build().unwrap();
    assert_eq!(cache.get("k").await, None);
    let loaded = cache.get_or_set("k", Origin::default().load(Gate::Ok)).await.unwrap();
    assert_eq!(loaded.as_deref(), Some(&1));
}

#[tokio::test]
async fn the_store_in_memory_keeps_its_contract() {
    check_store(&SharedStore::new(SystemClock)).await;
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_a_value_that_another_program_removed_is_not_served() {
    let store = SharedStore::new(TokioClock::new());
    let instance = || {
        let builder = on_tokio_time().ttl(ms(1_000)).fail_safe(FailSafe::enabled());
        builder.l2(store.clone(), Text).build().unwrap()
    };
    let origin = Origin::default();
    for (left, is_served) in [(10, false), (1_000, true)] {
        instance().set("k", 1).await.unwrap();
        if left < 1_000 {
            // A program that knows nothing of copies replaces the value, which then expires.
            store.insert_raw("k", "2", ms(left));
        }
        tokio::time::sleep(ms(left + 1)).await;
        let served = instance().get_or_set("k", origin.load(Gate::Err)).await;
        assert_eq!(served.is_ok(), is_served, "after {left} ms");
        // Nor later, when the ttl of the first value has passed.
        tokio::time::sleep(ms(2_000)).await;
        let served = instance().get_or_set("k", origin.load(Gate::Err)).await;
        assert_eq!(served.is_ok(), is_served, "after {left} ms and two seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn without_l1_no_caller_gets_a_value_that_was_read_from_l2_before_a_delete() {
    let store = SharedStore::new(TokioClock::new());
    let slow = SlowStore { begin_back: 100, ..SlowStore::to(&store) };
    let here = on_tokio_time().l2(slow, Text).without_l1().build().unwrap();
    let (peer, origin) = (instance(&store), Origin::default());
    store.insert_raw("k", "77", ms(60_000));
    let before = load(&here, &origin, Gate::Ok);
    tokio::time::sleep(ms(50)).await;
    peer.delete("k").await.unwrap();
    let after: Vec<_> = (0..10).map(|_| load(&here, &origin, Gate::Ok)).collect();
    assert_eq!(before.await.unwrap(), Some(77));
    for caller in after {
        assert_eq!(caller.await.unwrap(), Some(1));
    }
    assert_eq!((origin.loads(), here.stats().joined > 9), (1, true));
}
