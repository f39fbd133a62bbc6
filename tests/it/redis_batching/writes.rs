//! Concurrent publishes and deletes.

use super::*;
use crate::support::redis::field;

#[tokio::test]
async fn concurrent_deletes_share_round_trips_and_all_are_done() {
    let server = RedisServer::start();
    let store = with_values(&server).await;
    delete_many(&server, &store).await;
    let mut left: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.connect()).unwrap();
    // These sets expire.
    left.retain(|name| !name.starts_with("cache:__leases:"));
    assert_eq!(left, ["cache:__run"], "no values, no leases, no entries in the index");
}

#[tokio::test]
async fn concurrent_publishes_share_round_trips_and_each_needs_its_own_lease() {
    let server = RedisServer::start();
    let store = store(&server);
    let leases = with_leases(&store).await.into_iter().enumerate();
    let all = leases.map(|(number, lease)| {
        publishes(&store, number.to_string(), lease, number.to_string().into())
    });
    store.delete("7").await.unwrap();
    let before = server.round_trips();
    let published = at_once(&server, all).await;
    let trips = server.round_trips() - before;
    assert!(trips < 30, "{trips} round trips for {MANY} publishes");
    for (number, published) in published.into_iter().enumerate() {
        assert_eq!(published.unwrap(), number != 7, "{number}");
        let stored = store.get(&number.to_string(), false).await.unwrap();
        let expected = (number != 7).then(|| number.to_string().into_bytes());
        assert_eq!(stored.map(|stored| stored.value), expected);
    }
    let mut redis = server.connect();
    let indexed: usize = redis::cmd("ZCARD").arg("cache:__index").query(&mut redis).unwrap();
    let leases: Vec<String> = redis::cmd("KEYS").arg("cache:__lease:*").query(&mut redis).unwrap();
    assert_eq!((indexed, leases), (MANY - 1, Vec::new()));
}

#[tokio::test]
async fn of_concurrent_publishes_under_one_lease_one_succeeds() {
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
    assert_eq!(store.get("k", false).await.unwrap().unwrap().value, [winner as u8]);
}

#[tokio::test]
async fn a_lease_of_another_type_refuses_its_own_caller_only() {
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
    store.delete("30").await.unwrap();
    let lease_key = "cache:__lease:{cache:20}";
    redis::cmd("DEL").arg(lease_key).exec(&mut redis).unwrap();
    redis::cmd("LPUSH").arg(lease_key).arg("no token").exec(&mut redis).unwrap();
    for (number, published) in at_once(&server, all).await.into_iter().enumerate() {
        assert_eq!(published.unwrap(), number != 20 && number != 30, "{number}");
    }
}

#[tokio::test]
async fn a_key_that_the_user_may_not_access_fails_for_its_own_caller_only() {
    let server = RedisServer::start();
    let all_keys = store(&server);
    let key = |number: usize| format!("{}{number}", if number == 20 { "secret" } else { "own" });
    for number in 0..40 {
        write(&all_keys, &key(number), vec![1]).await;
    }
    let own = store_of_own_keys(&server);
    own.get("own0", false).await.unwrap().unwrap();
    let begun = at_once(
        &server,
        (0..40).map(|number| {
            let (own, key) = (own.clone(), key(number));
            async move { own.get_or_lease(&key, request()).await }
        }),
    );
    for (number, begun) in begun.await.into_iter().enumerate() {
        if number == 20 {
            assert!(begun.unwrap_err().to_string().contains("NoPerm"));
        } else {
            assert!(matches!(begun, Ok(LeaseResponse::Fresh(_))), "{number}: {begun:?}");
        }
    }
    let deleted = at_once(&server, (0..40).map(|number| deletes(&own, key(number)))).await;
    for (number, deleted) in deleted.into_iter().enumerate() {
        assert_eq!(deleted.is_err(), number == 20, "{number}: {deleted:?}");
        let left = all_keys.get(&key(number), false).await.unwrap();
        assert_eq!(left.is_some(), number == 20, "{number}");
    }
}

#[tokio::test]
async fn names_in_the_index_that_the_user_may_not_access_do_not_stop_a_publish() {
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
async fn concurrent_deletes_without_an_index_share_round_trips_too() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).use_index(false).build().unwrap();
    let leases = with_leases(&store).await;
    delete_many(&server, &store).await;
    let publish = leases.into_iter().enumerate();
    let publish =
        publish.map(|(number, lease)| publishes(&store, number.to_string(), lease, vec![1]));
    for published in at_once(&server, publish).await {
        assert!(!published.unwrap(), "the delete voided its lease");
    }
}

#[tokio::test]
async fn large_values_are_published_in_batches_of_limited_size() {
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
    // A batch holds at most 256 KiB: two values.
    let requests = server.calls("evalsha") - before;
    assert!((10..15).contains(&requests), "{requests} requests for 2 MB");
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
        assert_eq!(store.get(&number.to_string(), false).await.unwrap(), None, "{number}");
    }
}

/// Returns the number of calls of scripts, with those that Redis refused by its access rules.
fn script_calls(server: &RedisServer) -> usize {
    let stats = server.info("commandstats");
    let fields = field(&stats, "cmdstat_evalsha").unwrap_or("calls=0").split(',');
    let of = |name| fields.clone().find_map(|it| it.strip_prefix(name)?.parse::<usize>().ok());
    of("calls=").unwrap_or(0) + of("rejected_calls=").unwrap_or(0)
}

#[tokio::test]
async fn an_error_of_a_batch_costs_few_more_calls_and_fails_its_own_caller_only() {
    let server = RedisServer::start();
    let all_keys = store(&server);
    let own = store_of_own_keys(&server);
    write(&all_keys, "own", vec![1]).await;
    own.get("own", false).await.unwrap().unwrap();
    for (secrets, most) in [(0, 3), (1, 15), (2, 27), (60, 36)] {
        // Spread over the batch.
        let is_secret = |number| secrets == 60 || number % 30 == 20 && number / 30 < secrets;
        let key = |number| if is_secret(number) { "secret" } else { "own" };
        let before = script_calls(&server);
        let reads = at_once(
            &server,
            (0..60).map(|number| {
                let (own, key) = (own.clone(), format!("{}{number}", key(number)));
                async move { own.get_or_lease(&key, request()).await }
            }),
        )
        .await;
        let calls = script_calls(&server) - before;
        assert!(calls <= most, "{calls} calls, {secrets} secrets");
        for (number, read) in reads.into_iter().enumerate() {
            assert_eq!(read.is_err(), is_secret(number), "{number}: {read:?}");
        }
    }
}
