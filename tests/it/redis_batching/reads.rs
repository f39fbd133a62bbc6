//! Concurrent reads, with a lease and without.

use super::*;
use crate::support::redis::field;

#[tokio::test]
async fn concurrent_gets_share_round_trips_and_each_caller_gets_its_value() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let before = server.round_trips();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { (number, store.get(&number.to_string(), false).await.unwrap()) });
    }
    while let Some(done) = all.join_next().await {
        let (number, stored) = done.unwrap();
        assert_eq!(stored.map(|stored| stored.value), expected(number));
    }
    let trips = server.round_trips() - before;
    assert!(trips < 30, "{trips} round trips for {MANY} gets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_loads_share_round_trips_and_each_gets_its_own_lease() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let before = server.round_trips();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move {
            (number, store.get_or_lease(&number.to_string(), request()).await.unwrap())
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
    let trips = server.round_trips() - before;
    assert!(trips < 70, "{trips} round trips for {MANY} loads");
    // The delete of a key voids the lease of that key and no other.
    store.delete("1").await.unwrap();
    for (number, lease) in leased {
        let key = number.to_string();
        let published = store.publish(&key, &lease, publication(b"new", ms(60_000))).await.unwrap();
        assert_eq!(published, number != 1, "{number}");
    }
}

#[tokio::test]
async fn large_values_are_read_in_replies_of_limited_size() {
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
            (number, store.get_or_lease(&number.to_string(), request()).await.unwrap())
        });
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        let LeaseResponse::Fresh(StoredValue { value, .. }) = begun else {
            panic!("{number}: {begun:?}")
        };
        assert_eq!(value, vec![number; 100_000]);
    }
    // The first batch learns the size of the values; the callers it did not read for ask again.
    let requests = server.calls("evalsha") - before;
    assert!((15..20).contains(&requests), "{requests} requests for 2 MB");
}

#[tokio::test]
async fn values_longer_than_allowed_are_not_read_whole() {
    let server = RedisServer::start();
    for number in 0..20 {
        let mut set = redis::cmd("SET");
        set.arg(format!("cache:{number}")).arg(vec![b'x'; 300_000]);
        set.exec(&mut server.connect()).unwrap();
    }
    let store = RedisStore::at(server.url()).max_payload_bytes(200_000).build().unwrap();
    assert!(store.get("0", false).await.unwrap().is_none(), "connected");
    let before = server.calls("getrange");
    let scripts = server.calls("evalsha");
    let mut all = JoinSet::new();
    for number in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.get_or_lease(&number.to_string(), request()).await.unwrap() });
    }
    while let Some(done) = all.join_next().await {
        assert!(matches!(done.unwrap(), LeaseResponse::Load { lease: Some(_), stale: None }));
    }
    let (read, scripts) = (server.calls("getrange") - before, server.calls("evalsha") - scripts);
    assert_eq!(read, 20, "each value is read once, up to the limit");
    assert_eq!(server.calls("mget"), 0, "a command that reads whole values");
    for number in 0..20 {
        let store = store.clone();
        all.spawn(async move { store.get_or_lease(&number.to_string(), request()).await.unwrap() });
    }
    while all.join_next().await.is_some() {}
    assert_eq!(server.calls("mget"), 0, "a command that reads whole values, in the next round");
    assert!(scripts >= 10, "{scripts} requests for 6 MB");
}

#[tokio::test]
async fn a_batch_of_small_values_can_hold_other_types_large_values_and_values_without_expiry() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    let begin_all = async || {
        let mut all = JoinSet::new();
        for number in 0..MANY {
            let store = store.clone();
            all.spawn(async move {
                (number, store.get_or_lease(&number.to_string(), request()).await.unwrap())
            });
        }
        all.join_all().await
    };
    begin_all().await;
    // By now the store expects small values.
    let mut redis = server.connect();
    redis::cmd("DEL").arg("cache:3").exec(&mut redis).unwrap();
    redis::cmd("RPUSH").arg("cache:3").arg("x").exec(&mut redis).unwrap();
    write(&store, "6", vec![6; 100_000]).await;
    redis::cmd("PERSIST").arg("cache:9").exec(&mut redis).unwrap();
    let before = server.round_trips();
    let responses = begin_all().await;
    let trips = server.round_trips() - before;
    assert!(trips < 60, "{trips} round trips for {MANY} loads");
    for (number, response) in responses {
        let expected = expected(number).filter(|_| number != 3);
        match response {
            LeaseResponse::Fresh(StoredValue { value, ttl, .. }) => {
                let expected = if number == 6 { Some(vec![6; 100_000]) } else { expected };
                assert_eq!((Some(value), ttl.is_none()), (expected, number == 9));
            }
            LeaseResponse::Load { lease: Some(_), stale: None } => {
                assert_eq!(expected, None, "{number}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_server_gives_no_lease_and_stores_nothing() {
    let server = RedisServer::start();
    let store = store(&server);
    assert!(store.get("0", false).await.unwrap().is_none(), "connected");
    let mut redis = server.connect();
    let before: u64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec(&mut redis).unwrap();
    let begun = store.get_or_lease("0", request()).await.unwrap();
    assert!(matches!(begun, LeaseResponse::Load { lease: None, stale: None }), "{begun:?}");
    let after: u64 = redis::cmd("DBSIZE").query(&mut redis).unwrap();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_gives_values_and_no_leases() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    server.config_set("min-replicas-to-write", "1");
    let mut all = JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        all.spawn(
            async move { (number, store.get_or_lease(&number.to_string(), request()).await) },
        );
    }
    while let Some(done) = all.join_next().await {
        let (number, begun) = done.unwrap();
        match (begun, expected(number)) {
            (Ok(LeaseResponse::Fresh(StoredValue { value, .. })), Some(expected)) => {
                assert_eq!(value, expected);
            }
            (Ok(LeaseResponse::Load { lease: None, stale: None }), None) => {}
            other => panic!("{number}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_missing_for_its_own_caller_only() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    redis::cmd("RPUSH").arg("cache:3").arg("x").arg("y").exec(&mut server.connect()).unwrap_err();
    redis::cmd("DEL").arg("cache:3").exec(&mut server.connect()).unwrap();
    redis::cmd("RPUSH").arg("cache:3").arg("x").exec(&mut server.connect()).unwrap();
    let mut all = JoinSet::new();
    for number in 0..60 {
        let store = store.clone();
        all.spawn(async move { (number, store.get(&number.to_string(), false).await.unwrap()) });
    }
    while let Some(done) = all.join_next().await {
        let (number, stored) = done.unwrap();
        let expected = expected(number).filter(|_| number != 3);
        assert_eq!(stored.map(|stored| stored.value), expected, "{number}");
    }
}

#[tokio::test]
async fn a_value_longer_than_allowed_among_small_ones_is_missing() {
    let server = RedisServer::start();
    with_values(&server).await;
    let mut set = redis::cmd("SET");
    set.arg("cache:3").arg(vec![b'x'; 1_001]).exec(&mut server.connect()).unwrap();
    let store = RedisStore::at(server.url()).max_payload_bytes(1_000).build().unwrap();
    assert!(store.get("0", false).await.unwrap().is_some(), "connected");
    // In the second round the store expects small values.
    for _ in 0..2 {
        let gets = (0..60).map(|number: usize| {
            let store = store.clone();
            async move { store.get(&number.to_string(), false).await.unwrap() }
        });
        for (number, stored) in at_once(&server, gets).await.into_iter().enumerate() {
            let expected = expected(number).filter(|_| number != 3);
            assert_eq!(stored.map(|stored| stored.value), expected, "{number}");
        }
    }
}

#[tokio::test]
async fn scripts_are_sent_again_to_a_server_that_has_lost_them() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    redis::cmd("SCRIPT").arg("FLUSH").exec(&mut server.connect()).unwrap();
    let mut all = JoinSet::new();
    for number in 0..MANY {
        let store = store.clone();
        all.spawn(async move { store.get_or_lease(&number.to_string(), request()).await.is_ok() });
    }
    while let Some(done) = all.join_next().await {
        assert!(done.unwrap());
    }
}

#[tokio::test]
async fn concurrent_gets_fetch_no_value_longer_than_allowed() {
    let server = RedisServer::start();
    with_values(&server).await;
    let store = RedisStore::at(server.url()).max_payload_bytes(1_000).build().unwrap();
    let read_all = async || {
        let gets = (0..60).map(|number: usize| {
            let store = store.clone();
            async move { store.get(&number.to_string(), false).await.unwrap() }
        });
        at_once(&server, gets).await
    };
    read_all().await;
    // By now the store expects small values.
    for number in 0..60 {
        let mut set = redis::cmd("SET");
        set.arg(format!("cache:{number}")).arg(vec![b'x'; 300_000]);
        set.exec(&mut server.connect()).unwrap();
    }
    let sent = || {
        let sent = field(&server.info("stats"), "total_net_output_bytes").unwrap().to_owned();
        sent.parse::<u64>().unwrap()
    };
    let before = sent();
    assert!(read_all().await.iter().all(Option::is_none), "they are longer than allowed");
    let bytes = sent() - before;
    assert!(bytes < 200_000, "{bytes} bytes for 60 values of at most 1,000 bytes");
}

/// The maximum of a value is far above that of a batch.
#[tokio::test]
async fn a_large_value_among_small_ones_is_read_alone() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    for round in 0..3 {
        let gets = (0..60).map(|number: usize| {
            let store = store.clone();
            async move { store.get(&number.to_string(), false).await.unwrap() }
        });
        for (number, stored) in at_once(&server, gets).await.into_iter().enumerate() {
            let large = round > 0 && number == 6;
            let expected = if large { Some(vec![6; 600_000]) } else { expected(number) };
            assert!(stored.map(|stored| stored.value) == expected, "{number}");
        }
        write(&store, "6", vec![6; 600_000]).await;
    }
}

/// A full server takes no transactions, and a user may be allowed none.
#[tokio::test]
async fn concurrent_gets_are_answered_where_redis_takes_no_transaction() {
    for case in ["full", "forbidden", "renamed"] {
        let server = match case {
            "full" => RedisServer::start(),
            "forbidden" => {
                let rules = "~cache:* &* +@all -multi -exec";
                RedisServer::start_with_user("app", "secret", rules)
            }
            _ => RedisServer::start_with(&["--rename-command", "MULTI", ""]),
        };
        let store = store(&server);
        for number in (0..MANY).step_by(3) {
            write(&store, &number.to_string(), format!("value of {number}").into()).await;
        }
        if case == "full" {
            server.config_set("maxmemory", "1");
        }
        for with_window in [false, true] {
            let before = server.round_trips();
            let gets = (0..MANY).map(|number: usize| {
                let store = store.clone();
                async move { store.get(&number.to_string(), with_window).await.unwrap() }
            });
            for (number, stored) in at_once(&server, gets).await.into_iter().enumerate() {
                assert_eq!(stored.map(|stored| stored.value), expected(number), "{case} {number}");
            }
            let trips = server.round_trips() - before;
            assert!(trips < 40, "{case}: {trips} round trips for {MANY} gets");
        }
        assert_eq!(store.connection_generation(), 1, "{case}: the store stays connected");
    }
}
