//! The looks with which loads begin, where nearly all find what they look for.

use super::*;

/// Of as many callers as there are keys: what each began with.
async fn crowd(
    server: &RedisServer,
    store: &RedisStore,
    begin: LeaseRequest,
) -> Vec<LeaseResponse> {
    let looks = (0..MANY).map(|number| {
        let store = store.clone();
        async move { store.get_or_lease(&number.to_string(), begin).await.unwrap() }
    });
    at_once(server, looks).await
}

/// Every key has a value, and so many looks have found one that it is known, and how small they are.
async fn where_all_hit(server: &RedisServer) -> RedisStore {
    let store = store(server);
    for number in 0..MANY {
        write(&store, &number.to_string(), number.to_string().into()).await;
    }
    for _ in 0..2 {
        crowd(server, &store, begin()).await;
    }
    store
}

fn is_own(number: usize, begun: &LeaseResponse) -> bool {
    matches!(begun, LeaseResponse::Fresh(it) if it.value == number.to_string().as_bytes())
}

/// Commands that read values plainly, and scripts.
fn plain_and_scripts(server: &RedisServer) -> (u64, u64) {
    let plain = ["get", "getrange", "mget"].map(|command| server.calls(command));
    (plain.iter().sum(), server.calls("evalsha"))
}

#[tokio::test]
async fn hits_of_a_crowd_are_read_plainly() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let (_, before) = plain_and_scripts(&server);
    let begun = crowd(&server, &store, begin()).await;
    assert!(begun.iter().enumerate().all(|(number, begun)| is_own(number, begun)), "{begun:?}");
    let (_, scripts) = plain_and_scripts(&server);
    assert!(scripts - before <= 1, "the first was alone: {}", scripts - before);
}

#[tokio::test]
async fn who_is_alone_takes_no_trip_more_for_a_miss() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let (before, trips) = (server.round_trips(), MANY as u64);
    for number in 0..MANY {
        lease(&store, &format!("missing {number}")).await;
    }
    let asked = server.round_trips() - before;
    assert!((trips..trips + 5).contains(&asked), "{asked} round trips for {MANY} misses");
}

#[tokio::test]
async fn who_finds_nothing_in_the_crowd_gets_a_lease_that_a_delete_voids() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let gone = |number: &usize| number.is_multiple_of(20);
    for number in (0..MANY).filter(gone) {
        store.delete(&number.to_string()).await.unwrap();
    }
    let (before, _) = plain_and_scripts(&server);
    let begun = crowd(&server, &store, begin()).await;
    assert!(plain_and_scripts(&server).0 > before, "most were read plainly");
    store.delete("20").await.unwrap();
    for (number, begun) in begun.into_iter().enumerate() {
        if !gone(&number) {
            assert!(is_own(number, &begun), "{number}: {begun:?}");
            continue;
        }
        let LeaseResponse::Load { lease: Some(lease), stale: None } = begun else {
            panic!("{number}: {begun:?}")
        };
        let published = publishes(&store, number.to_string(), lease, b"new".to_vec()).await;
        assert_eq!(published.unwrap(), number != 20, "{number}");
    }
}

#[tokio::test]
async fn a_copy_in_the_crowd_that_is_not_fresh_is_told_from_one_that_is() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let mut redis = server.connect();
    redis::cmd("PEXPIRE").arg("cache:40").arg(30_000).exec(&mut redis).unwrap();
    redis::cmd("PERSIST").arg("cache:41").exec(&mut redis).unwrap();
    let stale_for = LeaseRequest { stale_for: ms(40_000), ..begin() };
    for (number, begun) in crowd(&server, &store, stale_for).await.into_iter().enumerate() {
        match begun {
            LeaseResponse::Load { lease: Some(_), stale: Some(stale) } => {
                assert_eq!((number, stale.value), (40, b"40".to_vec()));
            }
            LeaseResponse::Fresh(StoredValue { ref value, ttl }) => {
                assert_eq!(*value, number.to_string().as_bytes());
                assert_eq!((number == 40, ttl.is_none()), (false, number == 41), "{number}");
            }
            LeaseResponse::Load { .. } => panic!("{number}: {begun:?}"),
        }
    }
}

#[tokio::test]
async fn who_passes_the_value_over_gets_a_lease_in_any_crowd() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let refresh = LeaseRequest { refresh: true, ..begin() };
    for begun in crowd(&server, &store, refresh).await {
        assert!(
            matches!(begun, LeaseResponse::Load { lease: Some(_), stale: Some(_) }),
            "{begun:?}"
        );
    }
}

#[tokio::test]
async fn where_most_miss_nobody_reads_plainly_any_more() {
    let server = RedisServer::start();
    let store = where_all_hit(&server).await;
    let delete_all = async || {
        for number in 0..MANY {
            store.delete(&number.to_string()).await.unwrap();
        }
    };
    delete_all().await;
    // They find out.
    let before = server.calls("pttl");
    crowd(&server, &store, begin()).await;
    assert!(server.calls("pttl") > before);
    // With tokens to plant and none to adopt: the script asks how long a token lives, too.
    delete_all().await;
    let before = server.calls("pttl");
    let begun = crowd(&server, &store, begin()).await;
    assert!(
        begun.iter().all(|it| matches!(it, LeaseResponse::Load { lease: Some(_), stale: None }))
    );
    assert_eq!(server.calls("pttl"), before, "nobody asked for a value and how long it lives");
}

#[tokio::test]
async fn a_value_in_the_crowd_that_may_not_be_read_is_the_trouble_of_its_own_caller() {
    let server = RedisServer::start();
    for number in 0..MANY {
        write(&store(&server), &format!("own{number}"), vec![1]).await;
    }
    write(&store(&server), "secret", vec![1]).await;
    let own = store_of_own_keys(&server);
    let look = |key: String| {
        let own = own.clone();
        async move { own.get_or_lease(&key, begin()).await }
    };
    // That all hit is known after the first time, and after the second that values are small.
    for _ in 0..2 {
        at_once(&server, (0..MANY).map(|number| look(format!("own{number}")))).await;
    }
    let (_, before) = plain_and_scripts(&server);
    let keys = (0..40).map(|number| match number {
        20 => "secret".to_owned(),
        _ => format!("own{number}"),
    });
    for (number, begun) in at_once(&server, keys.map(look)).await.into_iter().enumerate() {
        if number == 20 {
            let error = begun.unwrap_err().to_string();
            assert!(error.to_lowercase().contains("noperm"), "{error}");
        } else {
            assert!(matches!(begun, Ok(LeaseResponse::Fresh(_))), "{number}: {begun:?}");
        }
    }
    assert!(plain_and_scripts(&server).1 - before <= 1, "all others plainly");
}
