//! What is asked for at the same moment: few requests, and to each caller its own answer, whatever
//! becomes of the others.

mod adaptive_read;
mod callers;
mod reads;
mod writes;

use std::{
    task::{Context, Waker},
    time::Instant,
};

use lazy_layers_cache::{
    BoxError, Lease, LeaseRequest, LeaseResponse, RedisStore, Store, StoredValue,
};
use tokio::task::JoinSet;

use crate::support::{ms, redis::RedisServer};

const MANY: usize = 300;

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::at(server.url()).build().unwrap()
}

fn begin() -> LeaseRequest {
    LeaseRequest { stale_for: ms(0), lease_for: ms(60_000), refresh: false }
}

async fn write(store: &RedisStore, key: &str, value: Vec<u8>) {
    let lease = store.acquire_write_lease(key, ms(5_000)).await.unwrap().unwrap();
    assert!(store.publish(key, &lease, value, ms(60_000)).await.unwrap());
}

/// Every third key has a value.
async fn with_values(server: &RedisServer) -> RedisStore {
    let store = store(server);
    for number in (0..MANY).step_by(3) {
        write(&store, &number.to_string(), format!("value of {number}").into()).await;
    }
    store
}

fn expected(number: usize) -> Option<Vec<u8>> {
    number.is_multiple_of(3).then(|| format!("value of {number}").into())
}

/// All at the same moment: asked while the server stands still, and so together, but for the first.
async fn at_once<T: Send + 'static>(
    server: &RedisServer,
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    server.freeze();
    let mut all = JoinSet::new();
    for (at, call) in calls.into_iter().enumerate() {
        all.spawn(async move { (at, call.await) });
    }
    // On one thread, so that each of them has asked by then.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    server.thaw();
    let mut done = all.join_all().await;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, answer)| answer).collect()
}

async fn lease(store: &RedisStore, key: &str) -> Lease {
    match store.get_or_lease(key, begin()).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => lease,
        other => panic!("{key}: {other:?}"),
    }
}

async fn with_leases(store: &RedisStore) -> Vec<Lease> {
    let mut leases = Vec::new();
    for number in 0..MANY {
        leases.push(lease(store, &number.to_string()).await);
    }
    leases
}

/// A publication as a task's own.
fn publishes(
    store: &RedisStore,
    key: String,
    lease: Lease,
    value: Vec<u8>,
) -> impl Future<Output = Result<bool, BoxError>> + Send + use<> {
    let store = store.clone();
    async move { store.publish(&key, &lease, value, ms(60_000)).await }
}

fn deletes(
    store: &RedisStore,
    key: String,
) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
    let store = store.clone();
    async move { store.delete(&key).await }
}

/// Deletes all keys at once, by few of these commands.
async fn delete_many(server: &RedisServer, store: &RedisStore, command: &str) {
    let before = server.calls(command);
    let all = (0..MANY).map(|number| deletes(store, number.to_string()));
    for deleted in at_once(server, all).await {
        deleted.unwrap();
    }
    let calls = server.calls(command) - before;
    assert!(calls < 20, "{calls} calls for {MANY} deletes");
}

/// Of a user who may touch no keys but those that begin with `own`.
fn store_of_own_keys(server: &RedisServer) -> RedisStore {
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("shop").arg("on").arg(">word").arg("+@all");
    for keys in ["own*", "__epoch:{cache:own*", "__index", "__epochs", "__run"] {
        user.arg(format!("~cache:{keys}"));
    }
    user.exec(&mut server.connect()).unwrap();
    RedisStore::at(server.url().replace("//", "//shop:word@")).build().unwrap()
}

/// Polls for it, with an end to its patience.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < ms(10_000), "not so after 10 s: {what}");
        tokio::time::sleep(ms(2)).await;
    }
}
