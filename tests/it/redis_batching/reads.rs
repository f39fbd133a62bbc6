//! Reads, with the intention to load and without it.

use super::*;

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
        all.spawn(async move {
            (number, store.get_or_lease(&number.to_string(), begin()).await.unwrap())
        });
    }
    let mut leased = Vec::new();
    while let Some(done) = all.join_next().await {
        match done.unwrap() {
            (number, LeaseResponse::Fresh(StoredValue { value, .. })) => {
                assert_eq!(Some(value), expected(number));
            }
            (number, LeaseResponse::Load { lease, stale: None }) if expected(number).is_none() => {
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
        all.spawn(async move {
            (number, store.get_or_lease(&number.to_string(), begin()).await.unwrap())
        });
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        let LeaseResponse::Fresh(StoredValue { value, .. }) = begun else {
            panic!("{number}: {begun:?}")
        };
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
        all.spawn(async move { store.get_or_lease(&number.to_string(), begin()).await.unwrap() });
    }
    while let Some(done) = all.join_next().await {
        assert!(matches!(done.unwrap(), LeaseResponse::Load { lease: Some(_), stale: None }));
    }
    let (read, scripts) = (server.calls("getrange") - before, server.calls("evalsha") - scripts);
    assert_eq!(read, 20, "each once");
    assert_eq!(server.calls("mget"), 0, "they do not count as small");
    for number in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.get_or_lease(&number.to_string(), begin()).await.unwrap() });
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
            all.spawn(async move {
                (number, store.get_or_lease(&number.to_string(), begin()).await.unwrap())
            });
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
            LeaseResponse::Fresh(StoredValue { value, ttl }) => {
                let expected = if number == 6 { Some(vec![6; 100_000]) } else { expected };
                assert_eq!((Some(value), ttl.is_none()), (expected, number == 9));
            }
            LeaseResponse::Load { lease: Some(_), stale: None } => {
                assert_eq!(expected, None, "{number}")
            }
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
    let begun = store.get_or_lease("0", begin()).await.unwrap();
    assert!(matches!(begun, LeaseResponse::Load { lease: None, stale: None }), "{begun:?}");
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
        all.spawn(async move { (number, store.get_or_lease(&number.to_string(), begin()).await) });
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        match (begun, expected(number)) {
            (Ok(LeaseResponse::Fresh(StoredValue { value, .. })), Some(expected)) => {
                assert_eq!(value, expected)
            }
            (Err(error), None) => assert!(error.to_string().contains("NOREPLICAS"), "{error}"),
            other => panic!("{number}: {other:?}"),
        }
    }
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
        let before = server.calls("mget");
        let gets = (0..60).map(|number: usize| {
            let store = store.clone();
            async move { store.get(&number.to_string()).await.unwrap() }
        });
        for (number, stored) in at_once(&server, gets).await.into_iter().enumerate() {
            let expected = expected(number).filter(|_| number != 3);
            assert_eq!(stored.map(|stored| stored.value), expected, "{number}");
        }
        assert_eq!(server.calls("mget") - before > 0, whole);
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
        all.spawn(async move { store.get_or_lease(&number.to_string(), begin()).await.is_ok() });
    }
    while let Some(done) = all.join_next().await {
        assert!(done.unwrap());
    }
}
