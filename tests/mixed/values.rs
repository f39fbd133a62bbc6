//! What one sets or loads is in the other's memory, and what it keeps in Redis the other reads.

use chrono::{DateTime, Utc};
use lazy_layers_cache::{
    EventBusOptions, LazyLayersCache, RedisStore, RedisTransport, Source, WireCodec,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::{Pair, eventually};

const LONG: &str =
    "Array.from({ length: 3000 }, (_, id) => ({ id, name: `Product ${id}`, at: 1.7e12 + id }))";

fn long() -> Value {
    let product = |id: u64| {
        let name = format!("Product {id}");
        json!({ "id": id, "name": name, "at": 1_700_000_000_000 + id })
    };
    (0..3_000).map(product).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_javascript_are_in_the_memory_of_rust() {
    let mut pair = Pair::start().await;
    let values = [
        ("0", json!(0)),
        ("-1", json!(-1)),
        ("0.5", json!(0.5)),
        ("2 ** 32", json!(4_294_967_296_u64)),
        ("1_700_000_000_123", json!(1_700_000_000_123_u64)),
        ("Number.MAX_SAFE_INTEGER", json!(9_007_199_254_740_991_u64)),
        ("10n", json!(10)),
        ("null", Value::Null),
        ("'__hybridcache_nul__'", json!("__hybridcache_nul__")),
        ("'Grüße, 世界 🦀'", json!("Grüße, 世界 🦀")),
        ("new Date(1_700_000_000_123)", json!("2023-11-14T22:13:20.123Z")),
        (
            "({ id: 7, at: new Date(0), tags: ['a', null], none: undefined, big: 2 ** 40 })",
            json!({
                "id": 7,
                "at": "1970-01-01T00:00:00.000Z",
                "tags": ["a", null],
                "none": null,
                "big": 1_099_511_627_776_u64,
            }),
        ),
        ("new Map([[1, new Set([2])]])", json!({ "1": [2] })),
        ("new Uint8Array([0, 255])", json!([0, 255])),
        (LONG, long()),
    ];
    for (number, (javascript, expected)) in values.into_iter().enumerate() {
        let key = format!("v{number}");
        pair.javascript.ask(&format!("peer.set('{key}', {javascript})"));
        eventually(javascript, || pair.rust.get_l1(&key).is_some()).await;
        assert_eq!(*pair.rust.get_l1(&key).unwrap(), expected, "{javascript}, told");
        assert_eq!(pair.in_redis(&key).await, Some(expected), "{javascript}, stored");
    }
    let head = pair.javascript.ask("peer.redis.getrange('cache:v14', 0, 3)");
    assert_eq!(head, "'HC1G'", "the last one was compressed, and so was its event");
    assert_eq!((pair.rust.stats().events_refused, pair.rust.stats().bus_gaps), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_rust_are_in_the_memory_of_javascript() {
    let mut pair = Pair::start().await;
    let shown = [
        (json!(0), "0"),
        (json!(-1), "-1"),
        (json!(0.5), "0.5"),
        (json!(4_294_967_296_u64), "4294967296"),
        (json!(1_700_000_000_123_u64), "1700000000123"),
        (json!(9_007_199_254_740_991_u64), "9007199254740991"),
        (Value::Null, "null"),
        (json!("it's"), "\"it's\""),
        (json!({ "id": 7, "tags": ["a", null] }), "{ id: 7, tags: [ 'a', null ] }"),
    ];
    for (number, (value, shown)) in shown.into_iter().enumerate() {
        let key = format!("v{number}");
        pair.rust.set(&key, value).await.unwrap();
        let told = format!("peer.l1('{key}')");
        eventually(shown, || pair.javascript.ask(&told) != "undefined").await;
        assert_eq!(pair.javascript.ask(&told), shown, "told");
        assert_eq!(pair.javascript.ask(&format!("peer.l2('{key}')")), shown, "stored");
    }
    pair.rust.set("long", long()).await.unwrap();
    let same = |level: &str| {
        format!(
            "(async () => JSON.stringify(await peer.{level}('long')) \
             === JSON.stringify({LONG}, ['at', 'id', 'name']))()"
        )
    };
    eventually("a long value", || pair.javascript.ask("peer.l1('long')") != "undefined").await;
    assert!(pair.javascript.is(&same("l1")) && pair.javascript.is(&same("l2")));
    assert_eq!(pair.javascript.ask("peer.redis.getrange('cache:long', 0, 3)"), "'HC1G'");
    assert_eq!(pair.javascript.ask("peer.failures"), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_loaded_in_either_is_not_loaded_in_the_other() {
    let mut pair = Pair::start().await;
    let load = || async { Ok::<_, std::io::Error>(json!({ "from": "rust" })) };
    pair.rust.get_or_set("k", load).await.unwrap();
    eventually("it is told", || pair.javascript.ask("peer.l1('k')") == "{ from: 'rust' }").await;
    // An instance that loads stores first and tells then.
    pair.javascript.ask("peer.store('q', { from: 'javascript' })");
    pair.javascript.ask("peer.prime('q', { from: 'javascript' }, 59_999.5)");
    eventually("it is told", || pair.rust.get_l1("q").is_some()).await;
    let outcome = pair.rust.get_or_set("q", load).outcome().await.unwrap();
    assert_eq!((outcome.source, &*outcome.value), (Source::L1, &json!({ "from": "javascript" })));
    // Nor does it serve a value that was in Redis before the instance subscribed.
    pair.javascript.ask("peer.store('old', 7)");
    let outcome = pair.rust.get_or_set("old", load).outcome().await.unwrap();
    assert_eq!((outcome.source, &*outcome.value), (Source::L2, &json!(7)));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    total: f64,
    at: DateTime<Utc>,
    /// As `getTime` has it.
    paid: Option<i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn types_with_dates_and_numbers_are_the_same_in_both() {
    let mut pair = Pair::start().await;
    let orders = LazyLayersCache::<String, Order>::builder()
        .l2(RedisStore::at(pair.server.url()).prefix("cache:").build().unwrap(), WireCodec::new())
        .name("test")
        .event_bus(RedisTransport::at(pair.server.url()).build().unwrap(), WireCodec::new())
        .event_bus_options(EventBusOptions::default().accept_unnamed(true))
        .build()
        .unwrap();
    orders.ready().await.unwrap();
    let at = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
    let order = |paid| Order { id: 5_000_000_000, total: 20.0, at, paid };
    let javascript = "{ id: 5e9, total: 20, at: new Date(1_700_000_000_123), paid: new Date(7) }";
    pair.javascript.ask(&format!("peer.set('a', {javascript})"));
    assert_eq!(*orders.get("a").await.unwrap(), order(Some(7)));
    orders.set("b", order(None)).await.unwrap();
    eventually("it is told", || pair.javascript.ask("peer.l1('b')") != "undefined").await;
    let expected = "{ id: 5000000000, total: 20, at: '2023-11-14T22:13:20.123Z', paid: null }";
    assert_eq!(pair.javascript.ask("peer.l1('b')"), expected);
}
