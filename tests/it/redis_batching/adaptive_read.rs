//! Reads of concurrent loads, when nearly all of them hit: plain reads instead of the script.

use lazy_layers_cache::Publication;

use super::*;

/// Begins one load per key at the same moment, and returns the responses in the order of the keys.
async fn begin_all(
    server: &RedisServer,
    store: &RedisStore,
    request: LeaseRequest,
) -> Vec<LeaseResponse> {
    let loads = (0..MANY).map(|number| {
        let store = store.clone();
        async move { store.get_or_lease(&number.to_string(), request).await.unwrap() }
    });
    at_once(server, loads).await
}

/// Writes a small value for every key, and reads them until the store has observed that nearly
/// all reads hit.
async fn with_hits(server: &RedisServer) -> RedisStore {
    let store = store(server);
    for number in 0..MANY {
        write(&store, &number.to_string(), number.to_string().into()).await;
    }
    for _ in 0..2 {
        begin_all(server, &store, request()).await;
    }
    store
}

fn is_hit(number: usize, response: &LeaseResponse) -> bool {
    matches!(response, LeaseResponse::Fresh(it) if it.value == number.to_string().as_bytes())
}

#[tokio::test]
async fn concurrent_hits_share_round_trips_and_each_caller_gets_its_value() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    let before = server.round_trips();
    let responses = begin_all(&server, &store, request()).await;
    assert!(responses.iter().enumerate().all(|(number, it)| is_hit(number, it)), "{responses:?}");
    let trips = server.round_trips() - before;
    assert!(trips < 20, "{trips} round trips for {MANY} hits");
}

#[tokio::test]
async fn a_miss_of_a_single_caller_takes_one_round_trip_after_many_hits_too() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    let (before, expected) = (server.round_trips(), MANY as u64);
    for number in 0..MANY {
        lease(&store, &format!("missing {number}")).await;
    }
    let trips = server.round_trips() - before;
    assert!((expected..expected + 5).contains(&trips), "{trips} round trips for {MANY} misses");
}

#[tokio::test]
async fn a_miss_among_concurrent_hits_gets_a_lease_that_a_delete_voids() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    let is_deleted = |number: &usize| number.is_multiple_of(20);
    for number in (0..MANY).filter(is_deleted) {
        store.delete(&number.to_string()).await.unwrap();
    }
    let before = server.round_trips();
    let responses = begin_all(&server, &store, request()).await;
    let trips = server.round_trips() - before;
    assert!(trips < 30, "{trips} round trips for {MANY} loads");
    store.delete("20").await.unwrap();
    for (number, response) in responses.into_iter().enumerate() {
        if !is_deleted(&number) {
            assert!(is_hit(number, &response), "{number}: {response:?}");
            continue;
        }
        let LeaseResponse::Load { lease: Some(lease), stale: None } = response else {
            panic!("{number}: {response:?}")
        };
        let published = publishes(&store, number.to_string(), lease, b"new".to_vec()).await;
        assert_eq!(published.unwrap(), number != 20, "{number}");
    }
}

#[tokio::test]
async fn among_concurrent_hits_each_value_has_its_own_window() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    for number in [40, 41, 42, 43] {
        let key = number.to_string();
        let lease = store.acquire_write_lease(&key, ms(5_000)).await.unwrap().unwrap();
        let (value, ttl, stale_for) = (key.clone().into_bytes(), ms(60_000), ms(9_000));
        let value = Publication::Value { value, ttl, stale_for };
        assert!(store.publish(&key, &lease, value).await.unwrap());
    }
    let mut redis = server.connect();
    // A program that knows nothing of windows replaces two values.
    redis::cmd("PERSIST").arg("cache:41").exec(&mut redis).unwrap();
    redis::cmd("SET").arg("cache:42").arg("42").arg("PX").arg(50_000).exec(&mut redis).unwrap();
    redis::cmd("SET").arg("cache:43").arg("four").arg("KEEPTTL").exec(&mut redis).unwrap();
    let request = LeaseRequest { with_window: true, ..request() };
    for (number, response) in begin_all(&server, &store, request).await.into_iter().enumerate() {
        let LeaseResponse::Fresh(StoredValue { ttl, stale_for, .. }) = response else {
            panic!("{number}: {response:?}")
        };
        assert_eq!(stale_for, if number == 40 { ms(9_000) } else { ms(0) }, "{number}");
        assert_eq!(ttl.is_none(), number == 41, "{number}");
    }
    // The copies of replaced values are gone, so that nobody serves them later.
    let copies: Vec<String> = redis::cmd("KEYS").arg("cache:__copy:*").query(&mut redis).unwrap();
    assert!(copies.contains(&"cache:__copy:{cache:40}".to_owned()), "{copies:?}");
    for number in [42, 43] {
        assert!(!copies.contains(&format!("cache:__copy:{{cache:{number}}}")), "{copies:?}");
    }
}

#[tokio::test]
async fn a_refresh_among_concurrent_hits_gets_a_lease() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    let refresh = LeaseRequest { refresh: true, ..request() };
    for response in begin_all(&server, &store, refresh).await {
        assert!(
            matches!(response, LeaseResponse::Load { lease: Some(_), stale: Some(_) }),
            "{response:?}"
        );
    }
}

#[tokio::test]
async fn after_many_misses_a_miss_takes_one_round_trip_again() {
    let server = RedisServer::start();
    let store = with_hits(&server).await;
    let mut trips = Vec::new();
    for _ in 0..2 {
        for number in 0..MANY {
            store.delete(&number.to_string()).await.unwrap();
        }
        let before = server.round_trips();
        let responses = begin_all(&server, &store, request()).await;
        trips.push(server.round_trips() - before);
        assert!(
            responses
                .iter()
                .all(|it| matches!(it, LeaseResponse::Load { lease: Some(_), stale: None })),
            "{responses:?}"
        );
    }
    // The first misses were read plainly before they asked for a lease.
    assert!(trips[1] < trips[0], "{trips:?} round trips");
}

#[tokio::test]
async fn a_value_that_the_user_may_not_read_fails_for_its_own_caller_only() {
    let server = RedisServer::start();
    for number in 0..MANY {
        write(&store(&server), &format!("own{number}"), vec![1]).await;
    }
    write(&store(&server), "secret", vec![1]).await;
    let own = store_of_own_keys(&server);
    let begin = |key: String| {
        let own = own.clone();
        async move { own.get_or_lease(&key, request()).await }
    };
    // The store observes hits in the first round, and small values in the second.
    for _ in 0..2 {
        at_once(&server, (0..MANY).map(|number| begin(format!("own{number}")))).await;
    }
    let keys = (0..40).map(|number| match number {
        20 => "secret".to_owned(),
        _ => format!("own{number}"),
    });
    for (number, response) in at_once(&server, keys.map(begin)).await.into_iter().enumerate() {
        if number == 20 {
            let error = response.unwrap_err().to_string();
            assert!(error.to_lowercase().contains("noperm"), "{error}");
        } else {
            assert!(matches!(response, Ok(LeaseResponse::Fresh(_))), "{number}: {response:?}");
        }
    }
}
