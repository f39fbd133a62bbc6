//! Publications and deletes.

use super::*;

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
            async move { own.get_or_lease(&key, begin()).await }
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
