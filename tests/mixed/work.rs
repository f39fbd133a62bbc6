//! Loads in flight: the lock of a key, and deletes that come meanwhile.

use std::{io, sync::Arc};

use lazy_layers_cache::Source;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{Pair, eventually, instance};

#[tokio::test(flavor = "multi_thread")]
async fn rust_waits_for_the_lock_of_javascript() {
    let mut pair = Pair::start().await;
    assert!(pair.javascript.is("peer.lock('k', 20_000)"));
    let waits = Arc::new(Notify::new());
    let told = Arc::clone(&waits);
    let _subscription = pair.rust.on(move |event| {
        if event.name() == "lock:wait" {
            told.notify_one();
        }
    });
    let rust = pair.rust.clone();
    let load = tokio::spawn(async move {
        let load = || async { Ok::<_, io::Error>(json!("loaded")) };
        rust.get_or_set("k", load).outcome().await.unwrap()
    });
    waits.notified().await;
    pair.javascript.ask("peer.store('k', 'theirs')");
    assert!(pair.javascript.is("peer.unlock('k')"));
    let outcome = load.await.unwrap();
    assert_eq!((outcome.source, &*outcome.value), (Source::L2, &json!("theirs")));
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_does_not_get_the_lock_that_rust_has() {
    let mut pair = Pair::start().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (rust, told, waits) = (pair.rust.clone(), Arc::clone(&begun), Arc::clone(&go_on));
    let load = tokio::spawn(async move {
        let load = || async move {
            told.notify_one();
            waits.notified().await;
            Ok::<_, io::Error>(json!("loaded"))
        };
        rust.get_or_set("k", load).await.unwrap()
    });
    begun.notified().await;
    assert!(!pair.javascript.is("peer.lock('k', 20_000)"));
    assert!(!pair.javascript.is("peer.unlock('k')"), "it is not theirs");
    go_on.notify_one();
    load.await.unwrap();
    eventually("it is given back", || pair.javascript.is("peer.lock('k', 20_000)")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_javascript_fences_a_load_of_rust() {
    let mut pair = Pair::start().await;
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (rust, told, waits) = (pair.rust.clone(), Arc::clone(&begun), Arc::clone(&go_on));
    let load = tokio::spawn(async move {
        let load = || async move {
            told.notify_one();
            waits.notified().await;
            Ok::<_, io::Error>(json!("old"))
        };
        rust.get_or_set("k", load).await.unwrap()
    });
    begun.notified().await;
    let before = pair.rust.stats().events_received;
    pair.javascript.ask("peer.del('k')");
    eventually("it is heard", || pair.rust.stats().events_received > before).await;
    go_on.notify_one();
    assert_eq!(*load.await.unwrap(), json!("old"), "its own callers get what it loaded");
    assert_eq!(pair.rust.get_l1("k"), None);
    assert_eq!(pair.javascript.ask("peer.l2('k')"), "undefined");
    assert_eq!(pair.javascript.ask("peer.l1('k')"), "undefined");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_joins_keeps_what_javascript_has_stored() {
    let server = crate::support::redis::RedisServer::start();
    let mut javascript = crate::support::javascript::JavaScript::start(&server.url());
    javascript.ask("peer.set('k', 1)");
    let rust = instance(&server).build().unwrap();
    rust.ready().await.unwrap();
    assert_eq!(rust.get("k").await.as_deref(), Some(&json!(1)));
    assert_eq!(javascript.ask("peer.l1('k')"), "1");
}
