//! Requests of concurrent callers: they share round trips, and each caller gets the reply to its
//! own request, whatever happens to the requests of other callers.

mod adaptive_read;
mod callers;
mod interrupted;
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

use crate::support::{REFRESH, ms, publication, redis::RedisServer};

const MANY: usize = 300;

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::at(server.url()).build().unwrap()
}

fn request() -> LeaseRequest {
    LeaseRequest { refresh: false, ..REFRESH }
}

async fn write(store: &RedisStore, key: &str, value: Vec<u8>) {
    let lease = store.acquire_write_lease(key, ms(5_000)).await.unwrap().unwrap();
    assert!(store.publish(key, &lease, publication(value, ms(60_000))).await.unwrap());
}

/// Writes a value for every third key.
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

/// Makes all calls at the same moment, while the server is frozen: the first is sent alone, the
/// others in batches. Returns their results in order.
async fn at_once<T: Send + 'static>(
    server: &RedisServer,
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    server.freeze();
    let mut all = JoinSet::new();
    for (at, call) in calls.into_iter().enumerate() {
        all.spawn(async move { (at, call.await) });
    }
    // On one thread: by then each task has made its call.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    server.thaw();
    let mut done = all.join_all().await;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, answer)| answer).collect()
}

async fn lease(store: &RedisStore, key: &str) -> Lease {
    match store.get_or_lease(key, request()).await.unwrap() {
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

/// A publish that owns its arguments, for a task.
fn publishes(
    store: &RedisStore,
    key: String,
    lease: Lease,
    value: Vec<u8>,
) -> impl Future<Output = Result<bool, BoxError>> + Send + use<> {
    let store = store.clone();
    async move { store.publish(&key, &lease, publication(value, ms(60_000))).await }
}

fn deletes(
    store: &RedisStore,
    key: String,
) -> impl Future<Output = Result<(), BoxError>> + Send + use<> {
    let store = store.clone();
    async move { store.delete(&key).await }
}

/// Deletes all keys at the same moment, in few round trips.
async fn delete_many(server: &RedisServer, store: &RedisStore) {
    let before = server.round_trips();
    let all = (0..MANY).map(|number| deletes(store, number.to_string()));
    for deleted in at_once(server, all).await {
        deleted.unwrap();
    }
    let trips = server.round_trips() - before;
    assert!(trips < 25, "{trips} round trips for {MANY} deletes");
}

/// A store whose user may access only keys that begin with `own`.
fn store_of_own_keys(server: &RedisServer) -> RedisStore {
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("shop").arg("on").arg(">word").arg("+@all");
    let names = [
        "own*",
        "__lease:{cache:own*",
        "__copy:{cache:own*",
        "__index",
        "__leases:*",
        "__sidecars",
        "__run",
    ];
    for keys in names {
        user.arg(format!("~cache:{keys}"));
    }
    user.exec(&mut server.connect()).unwrap();
    RedisStore::at(server.url().replace("//", "//shop:word@")).build().unwrap()
}

/// Polls until the condition holds, for at most 10 s.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < ms(10_000), "not so after 10 s: {what}");
        tokio::time::sleep(ms(2)).await;
    }
}
