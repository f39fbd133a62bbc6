//! What a health or metrics endpoint writes: counters by name, health and outcomes as JSON.

use lazy_layers_cache::{Source, Stats};
use serde_json::{Value, json, to_value};
use tokio::time::sleep;

use crate::support::{Broken, Cache, Gate, Origin, ms, on_tokio_time};

#[tokio::test(start_paused = true)]
async fn counters_are_listed_by_the_names_under_which_they_serialize() {
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    for _ in 0..3 {
        cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    }
    let stats: Stats = cache.stats();
    let listed: serde_json::Map<String, Value> =
        stats.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    assert_eq!(listed.len(), stats.iter().count(), "no name comes twice");
    assert_eq!(
        (&listed["l1_hits"], &listed["misses"], &listed["l1_entries"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(to_value(stats).unwrap(), Value::Object(listed));
}

#[tokio::test(start_paused = true)]
async fn health_and_outcomes_serialize() {
    let (cache, origin) = (Cache::builder().name("users"), Origin::default());
    let cache = cache.clock(lazy_layers_cache::testing::TokioClock::new()).build().unwrap();
    let broken = || async { Err::<u32, _>(Broken) };
    cache.get_or_set("broken", broken).await.unwrap_err();
    sleep(ms(61_000)).await;
    let health = to_value(cache.health()).unwrap();
    assert_eq!(
        health,
        json!({
            "name": "users", "origin": { "failing": { "since": "1m 1s" } }, "l2": null,
            "event_bus": null, "loads_in_flight": 0, "closed": false,
        })
    );
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(to_value(cache.health()).unwrap()["origin"], json!("answering"));
    sleep(ms(1_500)).await;
    let outcome = cache.get_or_set("k", origin.load(Gate::Ok)).outcome().await.unwrap();
    assert_eq!(outcome.source, Source::L1);
    assert_eq!(
        to_value(outcome).unwrap(),
        json!({ "value": 1, "source": "l1", "age": "1s 500ms", "stale": null })
    );
}
