//! What is asked for at the same moment: few requests, and to each caller its own answer, whatever
//! becomes of the others.

use std::{
    task::{Context, Waker},
    time::Instant,
};

use lazy_layers_cache::{Begin, Begun, BoxError, Lease, RedisStore, Store, Stored};
use tokio::task::JoinSet;

use crate::support::{ms, redis::RedisServer};

const MANY: usize = 300;

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::at(server.url()).build().unwrap()
}

fn begin() -> Begin {
    Begin { stale_for: ms(0), lease_for: ms(60_000), refresh: false }
}

async fn write(store: &RedisStore, key: &str, value: Vec<u8>) {
    let lease = store.seize(key, ms(5_000)).await.unwrap().unwrap();
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
    match store.begin(key, begin()).await.unwrap() {
        Begun::Load { lease: Some(lease), .. } => lease,
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

#[tokio::test]
async fn many_gets_are_few_requests_and_each_gets_its_own() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let before = server.round_trips();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { (number, store.get(&number.to_string()).await.unwrap()) });
    }
    while let Some(done) = all.join_next().await {
        let (number, stored) = done.unwrap();
        assert_eq!(stored.map(|stored| stored.value), expected(number));
    }
    let requests = server.round_trips() - before;
    assert!(requests < 30, "{requests} requests for {MANY} gets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_beginnings_are_few_requests_and_each_gets_its_own_lease() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let before = server.calls("evalsha");
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(
            async move { (number, store.begin(&number.to_string(), begin()).await.unwrap()) },
        );
    }
    let mut leased = Vec::new();
    while let Some(done) = all.join_next().await {
        match done.unwrap() {
            (number, Begun::Fresh(Stored { value, .. })) => {
                assert_eq!(Some(value), expected(number));
            }
            (number, Begun::Load { lease, stale: None }) if expected(number).is_none() => {
                leased.push((number, lease.unwrap()));
            }
            other => panic!("{other:?}"),
        }
    }
    let calls = server.calls("evalsha") - before;
    assert!(calls < 60, "{calls} calls for {MANY} beginnings");
    // Each lease is that of its key: a delete of one voids that and no other.
    store.delete("1").await.unwrap();
    for (number, lease) in leased {
        let key = number.to_string();
        let published = store.publish(&key, &lease, b"new".to_vec(), ms(60_000)).await.unwrap();
        assert_eq!(published, number != 1, "{number}");
    }
}

#[tokio::test]
async fn large_values_are_not_sent_all_at_once() {
    let server = RedisServer::start();
    let store = store(&server);
    for number in 0..20 {
        write(&store, &number.to_string(), vec![number; 100_000]).await;
    }
    let before = server.calls("evalsha");
    let mut all = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        all.spawn(
            async move { (number, store.begin(&number.to_string(), begin()).await.unwrap()) },
        );
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        let Begun::Fresh(Stored { value, .. }) = begun else { panic!("{number}: {begun:?}") };
        assert_eq!(value, vec![number; 100_000]);
    }
    // One alone, three and a little in the first batch, and those it did not send by themselves.
    let calls = server.calls("evalsha") - before;
    assert!((15..20).contains(&calls), "{calls} scripts");
}

#[tokio::test]
async fn values_that_are_too_long_are_not_read_all_at_once_either() {
    let server = RedisServer::start();
    for number in 0..20 {
        let mut set = redis::cmd("SET");
        set.arg(format!("cache:{number}")).arg(vec![b'x'; 300_000]);
        set.exec(&mut server.connect()).unwrap();
    }
    let store = RedisStore::at(server.url()).max_payload_bytes(200_000).build().unwrap();
    assert!(store.get("0").await.unwrap().is_none(), "and there is a connection");
    let before = server.calls("getrange");
    let scripts = server.calls("evalsha");
    let mut all = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.begin(&number.to_string(), begin()).await.unwrap() });
    }
    while let Some(done) = all.join_next().await {
        assert!(matches!(done.unwrap(), Begun::Load { lease: Some(_), stale: None }));
    }
    let (read, scripts) = (server.calls("getrange") - before, server.calls("evalsha") - scripts);
    assert_eq!(read, 20, "each once");
    assert_eq!(server.calls("mget"), 0, "they do not count as small");
    for number in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.begin(&number.to_string(), begin()).await.unwrap() });
    }
    while all.join_next().await.is_some() {}
    assert_eq!(server.calls("mget"), 0, "nor do they afterwards");
    assert!(scripts >= 10, "{scripts} scripts for 6 MB");
}

#[tokio::test]
async fn small_values_are_read_by_few_commands_and_what_is_among_them_goes_its_own_way() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let crowd = async || {
        let mut all = JoinSet::new();
        for number in 0..MANY {
            let store = store.clone();
            all.spawn(
                async move { (number, store.begin(&number.to_string(), begin()).await.unwrap()) },
            );
        }
        all.join_all().await
    };
    crowd().await;
    // What is no value, one that is not small, and one that has no end.
    let mut redis = server.connect();
    redis::cmd("DEL").arg("cache:3").exec(&mut redis).unwrap();
    redis::cmd("RPUSH").arg("cache:3").arg("x").exec(&mut redis).unwrap();
    write(&store, "6", vec![6; 100_000]).await;
    redis::cmd("PERSIST").arg("cache:9").exec(&mut redis).unwrap();
    let read = |command: &str| server.calls(command);
    let before = (read("mget"), read("getrange"));
    for (number, begun) in crowd().await {
        let expected = expected(number).filter(|_| number != 3);
        match begun {
            Begun::Fresh(Stored { value, remaining }) => {
                let expected = if number == 6 { Some(vec![6; 100_000]) } else { expected };
                assert_eq!((Some(value), remaining.is_none()), (expected, number == 9));
            }
            Begun::Load { lease: Some(_), stale: None } => assert_eq!(expected, None, "{number}"),
            other => panic!("{number}: {other:?}"),
        }
    }
    let (several, one) = (read("mget") - before.0, read("getrange") - before.1);
    assert!((1..MANY as u64 / 4).contains(&several) && one < MANY as u64 / 2, "{several}, {one}");
}

#[tokio::test]
async fn a_full_server_gives_no_lease_and_takes_nothing() {
    let server = RedisServer::start();
    let store = store(&server);
    assert!(store.get("0").await.unwrap().is_none(), "and there is a connection");
    let mut redis = server.connect();
    let before: u64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut redis).unwrap();
    let begun = store.begin("0", begin()).await.unwrap();
    assert!(matches!(begun, Begun::Load { lease: None, stale: None }), "{begun:?}");
    let after: u64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_write_that_is_refused_is_the_trouble_of_its_own_caller() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    server.config_set("min-replicas-to-write", "1");
    let mut all = JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        all.spawn(async move { (number, store.begin(&number.to_string(), begin()).await) });
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        match (begun, expected(number)) {
            (Ok(Begun::Fresh(Stored { value, .. })), Some(expected)) => assert_eq!(value, expected),
            (Err(error), None) => assert!(error.to_string().contains("NOREPLICAS"), "{error}"),
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn many_deletes_are_few_requests_and_all_are_done() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    delete_many(&server, &store, "evalsha").await;
    let left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.connect()).unwrap();
    assert_eq!(left, ["cache:__run"], "neither values nor names of them");
}

#[tokio::test]
async fn many_publications_are_few_requests_and_each_is_under_its_own_lease() {
    let server = RedisServer::start();
    let store = store(&server);
    let leases = with_leases(&store).await.into_iter().enumerate();
    let all = leases.map(|(number, lease)| {
        publishes(&store, number.to_string(), lease, number.to_string().into())
    });
    store.delete("7").await.unwrap();
    let before = server.calls("evalsha");
    let published = at_once(&server, all).await;
    let calls = server.calls("evalsha") - before;
    assert!(calls < 20, "{calls} calls for {MANY} publications");
    for (number, published) in published.into_iter().enumerate() {
        assert_eq!(published.unwrap(), number != 7, "{number}");
        let stored = store.get(&number.to_string()).await.unwrap();
        let expected = (number != 7).then(|| number.to_string().into_bytes());
        assert_eq!(stored.map(|stored| stored.value), expected);
    }
    let mut redis = server.connect();
    let indexed: usize = redis::cmd("ZCARD").arg("cache:__index").query(&mut redis).unwrap();
    let out: usize = redis::cmd("ZCARD").arg("cache:__epochs").query(&mut redis).unwrap();
    assert_eq!((indexed, out), (MANY - 1, 0));
}

#[tokio::test]
async fn of_those_that_publish_together_under_one_token_one_does() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut all =
        vec![publishes(&store, "first".into(), lease(&store, "first").await, b"x".to_vec())];
    let shared = lease(&store, "k").await;
    all.extend((0..20).map(|number| publishes(&store, "k".into(), shared.clone(), vec![number])));
    let published = at_once(&server, all).await.into_iter().skip(1);
    let published: Vec<bool> = published.map(Result::unwrap).collect();
    assert_eq!(published.iter().filter(|published| **published).count(), 1, "{published:?}");
    let winner = published.iter().position(|published| *published).unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, [winner as u8]);
}

#[tokio::test]
async fn what_is_wrong_with_one_publication_is_the_trouble_of_its_own_caller() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut all = Vec::new();
    for number in 0..40 {
        all.push(publishes(
            &store,
            number.to_string(),
            lease(&store, &number.to_string()).await,
            vec![1],
        ));
    }
    let mut redis = server.connect();
    // Refused, and not in doubt: whose value memory must not have either.
    store.delete("30").await.unwrap();
    let epoch = "cache:__epoch:{cache:20}";
    redis::cmd("DEL").arg(epoch).exec(&mut redis).unwrap();
    redis::cmd("LPUSH").arg(epoch).arg("no token").exec(&mut redis).unwrap();
    for (number, published) in at_once(&server, all).await.into_iter().enumerate() {
        if number == 20 {
            let error = published.unwrap_err().to_string();
            assert!(error.contains("WRONGTYPE"), "{error}");
        } else {
            assert_eq!(published.unwrap(), number != 30, "{number}");
        }
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_touched_spoils_nothing_for_others() {
    let server = RedisServer::start();
    let all_keys = store(&server);
    let key = |number: usize| format!("{}{number}", if number == 20 { "secret" } else { "own" });
    for number in 0..40 {
        write(&all_keys, &key(number), vec![1]).await;
    }
    let own = store_of_own_keys(&server);
    own.get("own0").await.unwrap().unwrap();
    let begun = at_once(
        &server,
        (0..40).map(|number| {
            let (own, key) = (own.clone(), key(number));
            async move { own.begin(&key, begin()).await }
        }),
    );
    for (number, begun) in begun.await.into_iter().enumerate() {
        if number == 20 {
            assert!(begun.unwrap_err().to_string().contains("NoPerm"));
        } else {
            assert!(matches!(begun, Ok(Begun::Fresh(_))), "{number}: {begun:?}");
        }
    }
    let deleted = at_once(&server, (0..40).map(|number| deletes(&own, key(number)))).await;
    for (number, deleted) in deleted.into_iter().enumerate() {
        assert_eq!(deleted.is_err(), number == 20, "{number}: {deleted:?}");
        let left = all_keys.get(&key(number)).await.unwrap();
        assert_eq!(left.is_some(), number == 20, "{number}");
    }
}

#[tokio::test]
async fn names_of_the_index_that_may_not_be_touched_keep_nobody_from_publishing() {
    let server = RedisServer::start();
    for number in 0..20 {
        write(&store(&server), &format!("secret{number}"), vec![1]).await;
    }
    let own = store_of_own_keys(&server);
    let mut all = Vec::new();
    for number in 0..40 {
        let key = format!("own{number}");
        all.push(publishes(&own, key.clone(), lease(&own, &key).await, vec![1]));
    }
    for published in at_once(&server, all).await {
        assert!(published.unwrap());
    }
}

#[tokio::test]
async fn many_deletes_without_an_index_are_few_requests_too() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).use_index(false).build().unwrap();
    let leases = with_leases(&store).await;
    delete_many(&server, &store, "unlink").await;
    let publish = leases.into_iter().enumerate();
    let publish =
        publish.map(|(number, lease)| publishes(&store, number.to_string(), lease, vec![1]));
    for published in at_once(&server, publish).await {
        assert!(!published.unwrap(), "its lease was voided");
    }
}

#[tokio::test]
async fn large_publications_are_not_sent_all_at_once() {
    let server = RedisServer::start();
    let store = store(&server);
    let mut all = Vec::new();
    for number in 0..20 {
        let lease = lease(&store, &number.to_string()).await;
        all.push(publishes(&store, number.to_string(), lease, vec![1; 100_000]));
    }
    let before = server.calls("evalsha");
    for published in at_once(&server, all).await {
        assert!(published.unwrap());
    }
    // One alone, then two at a time.
    let calls = server.calls("evalsha") - before;
    assert!((10..15).contains(&calls), "{calls} scripts");
}

#[tokio::test]
async fn on_a_full_server_deletes_are_done_and_nothing_is_published() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let mut all = Vec::new();
    for number in (1..60).step_by(3) {
        all.push(publishes(
            &store,
            number.to_string(),
            lease(&store, &number.to_string()).await,
            vec![1],
        ));
    }
    server.config_set("maxmemory", "1");
    for published in at_once(&server, all).await {
        let error = published.unwrap_err().to_string();
        assert!(error.contains("OOM"), "{error}");
    }
    let deleted = at_once(&server, (0..60).map(|number| deletes(&store, number.to_string()))).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    for number in 0..60 {
        assert_eq!(store.get(&number.to_string()).await.unwrap(), None, "{number}");
    }
}

#[test]
fn a_runtime_that_stands_still_holds_up_nobody_of_another() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let busy = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (busy, idle) = (busy.unwrap(), one());
    let store = busy.block_on(with_values(&server));
    server.freeze();
    let first = busy.spawn({
        let store = store.clone();
        async move { store.get("0").await.unwrap() }
    });
    idle.block_on(async {
        // Under way once the other is; and from now on nobody polls what it began.
        for _ in 0..50 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(store.get("3").as_mut().poll(&mut context).is_pending());
        }
    });
    server.thaw();
    busy.block_on(async {
        assert_eq!(first.await.unwrap().unwrap().value, expected(0).unwrap());
        let begun = Instant::now();
        for number in 0..MANY {
            let stored = store.get(&number.to_string()).await.unwrap();
            assert_eq!(stored.map(|stored| stored.value), expected(number));
        }
        assert!(begun.elapsed() < ms(5_000), "{:?}", begun.elapsed());
    });
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_leaves_nothing_behind() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut all = JoinSet::new();
    for number in 0..1_000 {
        let store = store.clone();
        all.spawn(async move {
            for step in 0..30 {
                let number = (number + step) % MANY;
                let stored = store.get(&number.to_string()).await.unwrap();
                assert_eq!(stored.map(|stored| stored.value), expected(number));
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
        assert!(tasks() < before + all.len() + 100, "a task for each batch, and no more");
    }
    eventually("all tasks have ended", || tasks() <= before).await;
}

#[tokio::test]
async fn what_is_no_value_is_missing_for_its_own_caller_only() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    redis::cmd("RPUSH").arg("cache:3").arg("x").arg("y").exec(&mut server.connect()).unwrap_err();
    redis::cmd("DEL").arg("cache:3").exec(&mut server.connect()).unwrap();
    redis::cmd("RPUSH").arg("cache:3").arg("x").exec(&mut server.connect()).unwrap();
    let mut all = JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        all.spawn(async move { (number, store.get(&number.to_string()).await.unwrap()) });
    }
    while let Some(done) = all.join_next().await {
        let (number, stored) = done.unwrap();
        let expected = expected(number).filter(|_| number != 3);
        assert_eq!(stored.map(|stored| stored.value), expected, "{number}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_long_among_small_ones_is_missing() {
    let server = RedisServer::start();
    with_values(&server).await;
    let mut set = redis::cmd("SET");
    set.arg("cache:3").arg(vec![b'x'; 1_001]).exec(&mut server.connect()).unwrap();
    let store = RedisStore::at(server.url()).max_payload_bytes(1_000).build().unwrap();
    assert!(store.get("0").await.unwrap().is_some(), "and there is a connection");
    // The second time it is known that values are small, so whole ones are asked for.
    for whole in [false, true] {
        let before = server.calls("get");
        let gets = (0..60).map(|number: usize| {
            let store = store.clone();
            async move { store.get(&number.to_string()).await.unwrap() }
        });
        for (number, stored) in at_once(&server, gets).await.into_iter().enumerate() {
            let expected = expected(number).filter(|_| number != 3);
            assert_eq!(stored.map(|stored| stored.value), expected, "{number}");
        }
        assert_eq!(server.calls("get") - before > 0, whole);
    }
}

#[tokio::test]
async fn a_server_that_forgot_its_scripts_is_told_them_again() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.connect()).unwrap();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { store.begin(&number.to_string(), begin()).await.is_ok() });
    }
    while let Some(done) = all.join_next().await {
        assert!(done.unwrap());
    }
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_holds_nobody_up() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let mut context = Context::from_waker(Waker::noop());
    // One that asks alone, and some that wait with others.
    let mut asleep: Vec<_> = (0..10).map(|_| store.get("0")).collect();
    for call in &mut asleep {
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    for number in 0..MANY {
        let stored = store.get(&number.to_string()).await.unwrap();
        assert_eq!(stored.map(|stored| stored.value), expected(number));
    }
    for call in asleep {
        assert_eq!(call.await.unwrap().unwrap().value, expected(0).unwrap());
    }
}

#[tokio::test]
async fn those_who_give_up_leave_nothing_behind() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.freeze();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { drop(store.get(&number.to_string()).await) });
    }
    eventually("all batches are under way", || tasks() > before + MANY).await;
    all.shutdown().await;
    eventually("their tasks end, though nobody answers", || tasks() <= before).await;
    server.thaw();
    let thawed = Instant::now();
    // The connection may have been given up meanwhile.
    while store.get("0").await.ok().flatten().map(|stored| stored.value) != expected(0) {
        assert!(thawed.elapsed() < ms(10_000), "it is served again");
        tokio::time::sleep(ms(5)).await;
    }
}

#[test]
fn who_waited_for_a_runtime_that_shut_down_asks_again() {
    let server = RedisServer::start();
    let one = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (stays, goes) = (one().unwrap(), one().unwrap());
    let store = stays.block_on(with_values(&server));
    server.freeze();
    // The batch has its task on the runtime that goes, and callers on both.
    for runtime in [&stays, &goes] {
        for number in 0..3 {
            let store = store.clone();
            runtime.spawn(async move { drop(store.get(&number.to_string()).await) });
            std::thread::yield_now();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..30 {
        let (store, sender) = (store.clone(), sender.clone());
        stays.spawn(async move {
            let stored = store.get(&number.to_string()).await.unwrap();
            sender.send((number, stored.map(|stored| stored.value))).unwrap();
        });
    }
    goes.shutdown_background();
    server.thaw();
    for _ in 0..30 {
        let (number, value) = receiver.recv_timeout(ms(10_000)).expect("an answer");
        assert_eq!(value, expected(number));
    }
}
