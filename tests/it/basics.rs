//! Each operation, on a cache without faults.

use std::sync::Arc;

use lazy_layers_cache::{CacheKey, KeyText, LazyLayersCache, Loaded, Source};

use crate::support::{Broken, Cache, Gate, Origin, ms, on_tokio_time};

#[tokio::test(start_paused = true)]
async fn a_loaded_value_is_found_again() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());

    assert_eq!(cache.get("k").await, None);
    assert!(!cache.has("k").await);
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
    assert_eq!(cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap().as_deref(), Some(&1));
    assert_eq!(cache.get("k").await.as_deref(), Some(&1));
    assert_eq!(cache.get_l1("k").as_deref(), Some(&1));
    assert!(cache.has("k").await);
    assert_eq!((cache.size().await, origin.loads()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn set_delete_pattern_and_clear_change_their_keys_only() {
    let cache = on_tokio_time().build().unwrap();
    for (value, key) in (1..).zip(["a:1", "a:2", "b:1", "b:2"]) {
        cache.set(key, value).await.unwrap();
    }
    cache.delete("a:1").await.unwrap();
    assert_eq!((cache.get("a:1").await, cache.get("a:2").await.as_deref()), (None, Some(&2)));
    cache.delete_by_pattern("b:*").await.unwrap();
    assert_eq!((cache.size().await, cache.get("b:2").await), (1, None));
    cache.clear().await.unwrap();
    assert_eq!(cache.size().await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_result_type_follows_from_the_type_of_the_loader() {
    let cache = on_tokio_time().build().unwrap();
    let value: Arc<u32> = cache.get_or_set("v", || async { Ok::<_, Broken>(1) }).await.unwrap();
    let shared: Arc<u32> =
        cache.get_or_set("a", || async { Ok::<_, Broken>(Arc::new(2)) }).await.unwrap();
    let option: Option<Arc<u32>> =
        cache.get_or_set("o", || async { Ok::<_, Broken>(Some(3)) }).await.unwrap();
    let loaded: Option<Arc<u32>> =
        cache.get_or_set("l", || async { Ok::<_, Broken>(Loaded::value(4)) }).await.unwrap();
    assert_eq!((*value, *shared, option.as_deref(), loaded.as_deref()), (1, 2, Some(&3), Some(&4)));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_has_the_source_and_the_age_of_the_value() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());

    let first = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((first.source, first.age, first.stale), (Source::Loader, ms(0), None));

    tokio::time::advance(ms(1_500)).await;
    let second = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!((second.source, second.age, second.stale), (Source::L1, ms(1_500), None));
    assert_eq!(second.value.as_deref(), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_loads_although_the_value_is_fresh() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();

    let again = cache.get_or_set("k", origin.load(Gate::Ok)).refresh().await.unwrap();
    assert_eq!((again.as_deref(), origin.loads()), (Some(&2), 2));
    assert_eq!(cache.get("k").await.as_deref(), Some(&2));

    // A failed refresh returns the fresh value, which stays fresh and is not throttled.
    let kept = cache.get_or_set("k", origin.load(Gate::Err)).refresh().await.unwrap();
    assert_eq!((kept.as_deref(), cache.get("k").await.as_deref()), (Some(&2), Some(&2)));
}

#[tokio::test]
async fn keys_of_any_type_are_converted_to_text() {
    struct Page(u64, &'static str);
    impl CacheKey for Page {
        fn key_text(&self) -> KeyText<'_> {
            KeyText::display(&format_args!("page:{}:{}", self.0, self.1))
        }
    }
    let pages = LazyLayersCache::<Page, String>::builder().build().unwrap();
    pages.set(&Page(7, "en"), "seven".to_owned()).await.unwrap();
    assert_eq!(pages.get(&Page(7, "en")).await.as_deref().map(String::as_str), Some("seven"));
    assert_eq!(pages.get(&Page(7, "de")).await, None);
    pages.delete_by_pattern("page:7:*").await.unwrap();
    assert_eq!(pages.size().await, 0);

    let numbers = LazyLayersCache::<u64, &'static str>::builder().build().unwrap();
    numbers.set(&u64::MAX, "most").await.unwrap();
    assert_eq!(numbers.get_l1(&u64::MAX).as_deref(), Some(&"most"));
}

#[tokio::test]
async fn unusual_keys_work() {
    let cache = Cache::builder().build().unwrap();
    let long = "k".repeat(100_000);
    for (value, key) in (0..).zip(["", " ", "\0", "ключ", "*", "a{b}c", &long]) {
        cache.set(key, value).await.unwrap();
        assert_eq!(cache.get(key).await.as_deref(), Some(&value), "key {key:.20}");
    }
    cache.clear().await.unwrap();
    assert_eq!(cache.size().await, 0);
}

#[tokio::test]
async fn all_handles_share_one_cache() {
    let one = Cache::builder().build().unwrap();
    let other = one.clone();
    one.set("k", 1).await.unwrap();
    drop(one);
    assert_eq!(other.get("k").await.as_deref(), Some(&1));
}

#[tokio::test]
async fn without_l1_nothing_is_kept_and_loads_are_still_shared() {
    let (cache, origin) = (Cache::builder().without_l1().build().unwrap(), Origin::default());
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    cache.set("k", 5).await.unwrap();
    assert_eq!((cache.get("k").await, cache.size().await), (None, 0));
    let (left, right) = tokio::join!(
        cache.get_or_set("k", origin.load(Gate::Slow)),
        cache.get_or_set("k", origin.load(Gate::Slow)),
    );
    assert_eq!((left.unwrap(), origin.loads()), (right.unwrap(), 2));
}
