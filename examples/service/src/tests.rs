//! Tests of the handlers, without sockets. Each test advances the clock that the caches read.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use config::Environment;
use lazy_layers_cache::{
    CacheManager, CacheManagerBuilder, LocalTransport,
    testing::{ManualClock, SharedStore, StoreFault},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{App, caches::Caches, database::Database, operations, router, settings::Settings};

fn settings(variables: &[(&str, &str)], redis: Option<&str>) -> Result<Settings, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let environment = Environment::with_prefix("SERVICE").prefix_separator("__").separator("__");
    let environment = environment.source(Some(variables.collect()));
    let settings =
        Settings::from(include_str!("../service.toml"), environment, redis.map(str::to_owned));
    settings.map_err(|error| error.to_string())
}

/// A process of the service, with the options of `service.toml`.
fn process(database: &Database, manager: CacheManagerBuilder) -> (Router, Caches) {
    let options = settings(&[], None).unwrap().cache;
    let caches = Caches::build(manager.options(options)).unwrap();
    let prometheus = operations::recorder().unwrap().handle();
    let app = App { database: database.clone(), caches: caches.clone(), prometheus };
    (router(Arc::new(app)), caches)
}

fn database() -> Database {
    Database::open(Path::new(":memory:")).unwrap()
}

/// Stands for the Redis of all processes: a store for each cache.
fn stores(clock: &ManualClock) -> HashMap<&'static str, SharedStore> {
    ["products", "categories", "averages"]
        .map(|name| (name, SharedStore::new(clock.clone())))
        .into()
}

async fn send(service: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = service.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, String::from_utf8(body.into()).unwrap())
}

async fn get(service: &Router, path: &str) -> (StatusCode, Value) {
    let (status, body) = send(service, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

async fn put(service: &Router, path: &str, product: &Value) -> StatusCode {
    let request = Request::put(path).header("content-type", "application/json");
    send(service, request.body(product.to_string().into()).unwrap()).await.0
}

fn kettle(price: f64, category: &str) -> Value {
    json!({ "name": "Kettle", "category": category, "price": price })
}

#[tokio::test]
async fn a_product_is_loaded_once_until_its_ttl_ends() {
    let (clock, database) = (ManualClock::new(), database());
    let (service, caches) = process(&database, CacheManager::builder().clock(clock.clone()));
    for _ in 0..3 {
        assert_eq!(get(&service, "/products/3").await, (StatusCode::OK, kettle(25.0, "kitchen")));
    }
    assert_eq!(caches.products.stats().loads, 1);
    // Without a bus, L1 keeps a value for 10 s.
    clock.advance(Duration::from_secs(9));
    get(&service, "/products/3").await;
    assert_eq!(caches.products.stats().loads, 1);
    clock.advance(Duration::from_secs(2));
    get(&service, "/products/3").await;
    assert_eq!(caches.products.stats().loads, 2);
}

#[tokio::test]
async fn a_missing_product_is_cached_too_until_it_is_saved() {
    let (service, caches) = process(&database(), CacheManager::builder());
    for _ in 0..3 {
        assert_eq!(get(&service, "/products/9").await.0, StatusCode::NOT_FOUND);
    }
    assert_eq!(caches.products.stats().loads, 1);
    assert_eq!(put(&service, "/products/9", &kettle(9.0, "new")).await, StatusCode::NO_CONTENT);
    assert_eq!(get(&service, "/products/9").await.1, kettle(9.0, "new"));
}

#[tokio::test]
async fn a_saved_product_changes_both_categories() {
    let (service, _) = process(&database(), CacheManager::builder());
    let (tea, kitchen) = ("/categories/tea", "/categories/kitchen");
    assert_eq!(get(&service, tea).await.1, json!([1, 2]));
    assert_eq!(get(&service, kitchen).await.1, json!([3]));
    assert_eq!(get(&service, "/categories/tea/average").await.1, json!(3.0));
    assert_eq!(put(&service, "/products/3", &kettle(30.0, "tea")).await, StatusCode::NO_CONTENT);
    assert_eq!(get(&service, tea).await.1, json!([1, 2, 3]));
    assert_eq!(get(&service, kitchen).await.1, json!([]));
    assert_eq!(get(&service, "/categories/tea/average").await.1, json!(12.0));
    assert_eq!(get(&service, "/categories/kitchen/average").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_change_reaches_the_other_process_over_l2_and_the_bus() {
    let (clock, bus, database) = (ManualClock::new(), LocalTransport::new(), database());
    let stores = stores(&clock);
    let start = || {
        let (stores, clock) = (stores.clone(), clock.clone());
        let manager = CacheManager::builder().l2(move |name| stores[name].clone()).clock(clock);
        process(&database, manager.event_bus(bus.clone()))
    };
    let ((one, caches_of_one), (two, caches_of_two)) = (start(), start());
    caches_of_one.manager.ready().await.unwrap();
    caches_of_two.manager.ready().await.unwrap();
    get(&one, "/products/3").await;
    assert_eq!(get(&two, "/products/3").await.1, kettle(25.0, "kitchen"));
    assert_eq!(caches_of_two.products.stats().loads, 0, "the value of the other process serves");
    put(&one, "/products/3", &kettle(26.0, "kitchen")).await;
    while caches_of_two.products.get_l1(&3).is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&two, "/products/3").await.1, kettle(26.0, "kitchen"));
}

#[tokio::test]
async fn a_change_is_saved_although_redis_does_not_answer() {
    let clock = ManualClock::new();
    let stores = stores(&clock);
    let of_caches = stores.clone();
    let manager = CacheManager::builder().l2(move |name| of_caches[name].clone()).clock(clock);
    let (service, caches) = process(&database(), manager);
    get(&service, "/products/3").await;
    stores.values().for_each(|store| store.set_fault(StoreFault::Fails));
    assert_eq!(put(&service, "/products/3", &kettle(26.0, "tea")).await, StatusCode::NO_CONTENT);
    assert_eq!(get(&service, "/products/3").await.1, kettle(26.0, "tea"));
    let (status, health) = get(&service, "/health/ready").await;
    assert_eq!((status, health["shared"]["l2"].clone()), (StatusCode::OK, json!("skipped")));
    stores.values().for_each(|store| store.set_fault(StoreFault::None));
    caches.manager.close().await;
    let (status, health) = get(&service, "/health/ready").await;
    assert_eq!((status, &health["closed"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(true)));
    assert_eq!(get(&service, "/health/live").await.0, StatusCode::OK);
}

#[tokio::test]
async fn prometheus_gets_the_counters_of_each_cache() {
    let recorder = operations::recorder().unwrap();
    let prometheus = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let caches = Caches::build(CacheManager::builder()).unwrap();
    let service = router(Arc::new(App { database: database(), caches, prometheus }));
    get(&service, "/products/1").await;
    get(&service, "/products/1").await;
    let (status, text) =
        send(&service, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    // The other tests have caches of these names too, so their labels may end with a number.
    for (metric, cache, value) in [
        ("l1_hits_total", "products", 1),
        ("loads_total", "products", 1),
        ("loads_total", "averages", 0),
        ("load_duration_seconds_count", "products", 1),
    ] {
        let begin = format!("lazy_layers_cache_{metric}{{cache=\"{cache}");
        let mut rows = text.lines().filter(|row| row.starts_with(&begin));
        assert!(rows.any(|row| row.ends_with(&format!("}} {value}"))), "{begin}: {text}");
    }
}

#[test]
fn variables_replace_options_of_the_file_and_a_wrong_one_is_refused() {
    let variables =
        [("SERVICE__LISTEN", "127.0.0.1:3001"), ("SERVICE__CACHE__CACHES__PRODUCTS__TTL", "1m")];
    let settings_of_two = settings(&variables, Some("redis://:0123@127.0.0.1/")).unwrap();
    assert_eq!(settings_of_two.listen.port(), 3001);
    let manager = CacheManager::builder().options(settings_of_two.cache).build().unwrap();
    assert!(manager.health().shared.l2.is_some(), "REDIS_URL adds L2");
    let products = format!("{:?}", manager.cache::<u64, String>("products"));
    assert!(products.contains("ttl: 60s"), "{products}");

    let refused = settings(&[("SERVICE__CACHE__DEFAULTS__TLL", "1m")], None).err().unwrap();
    assert!(refused.contains("did you mean `ttl`?"), "{refused}");
}
