//! What each makes of the other's events where they are not alike: numbers, beacons, ids, echoes.

use std::time::Duration;

use lazy_layers_cache::{RedisTransport, WireCodec};
use serde_json::json;

use crate::support::{Cache, Pair, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_only_rust_says_is_harmless_to_javascript() {
    let mut pair = Pair::start().await;
    pair.javascript.ask("peer.set('kept', 1)");
    pair.rust.set("k", json!(1)).await.unwrap();
    let load = || async { Ok::<_, std::io::Error>(json!(1)) };
    pair.rust.get_or_set("q", load).await.unwrap();
    for (what, is_heard) in [
        ("a number", "Number.isInteger(event.seq) && typeof event.inc === 'string'"),
        ("what was seen", "event.type === 'set' && Array.isArray(event.seen) && event.due > 0"),
        ("a prime", "event.keys?.[0] === 'q' && event.prime === true"),
    ] {
        let question = format!("peer.heard.some((event) => {is_heard})");
        eventually(what, || pair.javascript.is(&question)).await;
    }
    // Beacons take a channel of their own, which JavaScript does not read.
    let mut redis = pair.server.connect();
    redis.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut beacons = redis.as_pubsub();
    beacons.psubscribe("*:beacons").unwrap();
    beacons.get_message().unwrap();
    let heard = "peer.heard.filter((event) => event.beacon || event.keys?.length === 0).length";
    assert_eq!(pair.javascript.ask(heard), "0");
    assert_eq!(pair.javascript.ask("peer.l1('kept')"), "1");
    assert_eq!(pair.javascript.ask("peer.failures"), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_javascript_without_numbers_are_applied_once_and_are_no_gap() {
    let mut pair = Pair::start().await;
    let before = pair.rust.stats();
    pair.rust.set("k", json!(1)).await.unwrap();
    let event = "peer.publish({ id: 'twice', type: 'del', keys: ['k'], more: { a: [1] } })";
    pair.javascript.ask(event);
    eventually("it is deleted", || pair.rust.get_l1("k").is_none()).await;
    pair.rust.set("k", json!(2)).await.unwrap();
    pair.javascript.ask(event);
    // Another instance's of the same id is another event.
    pair.javascript.ask("peer.publish({ id: 'twice', source: 'b', type: 'del', keys: ['q'] })");
    eventually("all are here", || pair.rust.stats().events_received - before.events_received == 2)
        .await;
    let after = pair.rust.stats();
    assert_eq!(after.events_duplicate - before.events_duplicate, 1);
    assert_eq!(*pair.rust.get_l1("k").unwrap(), json!(2));
    assert_eq!((after.bus_gaps, after.events_refused), (0, 0));
    assert!(pair.rust.health().event_bus.unwrap().trusted);
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_events_come_back_and_change_nothing() {
    let mut pair = Pair::start().await;
    let before = pair.rust.stats().events_received;
    pair.rust.set("k", json!(1)).await.unwrap();
    eventually("it is told", || pair.javascript.ask("peer.l1('k')") == "1").await;
    let own = pair.javascript.ask("peer.own");
    pair.javascript.ask("peer.set('q', 2)");
    eventually("it is back", || pair.javascript.ask("peer.own") != own).await;
    assert_eq!(pair.javascript.ask("peer.l1('q')"), "2");
    eventually("it is told", || pair.rust.get_l1("q").is_some()).await;
    // An earlier publication has come back earlier.
    assert_eq!(*pair.rust.get_l1("k").unwrap(), json!(1));
    assert_eq!(pair.rust.stats().events_received - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_javascript_that_may_be_older_than_a_delete_is_only_a_delete() {
    let mut pair = Pair::start().await;
    pair.rust.set("k", json!("new")).await.unwrap();
    pair.javascript.ask("peer.prime('k', 'old')");
    eventually("it is deleted", || pair.rust.get_l1("k").is_none()).await;
    assert_eq!(*pair.rust.get("k").await.unwrap(), json!("new"), "from Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_the_name_of_a_cache() {
    let mut pair = Pair::start().await;
    // Another cache on the channel, which takes only messages with its name.
    let named = Cache::builder()
        .name("users")
        .event_bus(RedisTransport::at(pair.server.url()).build().unwrap(), WireCodec::new())
        .build()
        .unwrap();
    named.ready().await.unwrap();
    // The cache does not trust an entry of the millisecond in which the subscription began.
    tokio::time::sleep(Duration::from_millis(20)).await;
    for (namespace, [in_named, in_unnamed]) in [
        ("", [true, false]),
        ("namespace: 'test'", [true, false]),
        ("namespace: 'users'", [false, true]),
        ("namespace: 'others'", [true, true]),
    ] {
        named.set("k", json!(1)).await.unwrap();
        pair.rust.set("k", json!(1)).await.unwrap();
        pair.javascript.ask(&format!("peer.publish({{ type: 'del', keys: ['k'], {namespace} }})"));
        // Each cache receives this one after the other.
        for name in ["test", "users"] {
            let mark = format!("{{ type: 'del', keys: ['mark'], namespace: '{name}' }}");
            let cache = if name == "test" { &pair.rust } else { &named };
            let before = cache.stats().events_received;
            pair.javascript.ask(&format!("peer.publish({mark})"));
            eventually("the mark is received", || cache.stats().events_received > before).await;
        }
        let kept = |cache: &Cache| cache.get_l1("k").is_some();
        let expected = (in_named, in_unnamed);
        eventually(namespace, || (kept(&named), kept(&pair.rust)) == expected).await;
    }
    // JavaScript is told the name.
    named.delete("q").await.unwrap();
    let question = "peer.heard.some((event) => event.namespace === 'users')";
    eventually("a namespace", || pair.javascript.is(question)).await;
    assert_eq!((named.stats().bus_gaps, pair.rust.stats().bus_gaps), (0, 0));
}
