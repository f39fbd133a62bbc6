//! Stale copies in a real Redis: with versioned names, bounds, the longest spans, and without
//! copies; and the figures of jitter over Redis.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    CacheBuilder, FailSafe, L2Options, LazyLayersCache, NegativeCache, Publication, RedisStore,
    Source, Store, WireCodec,
};
use redis::Connection;
use tokio::time::sleep;

use crate::support::{ms, redis::RedisServer};

type Cache = LazyLayersCache<String, u32>;

fn builder(server: &RedisServer) -> CacheBuilder<String, u32> {
    let store = RedisStore::at(server.url()).build().unwrap();
    Cache::builder().l2(store, WireCodec::new())
}

fn copies(redis: &mut Connection) -> Vec<String> {
    redis::cmd("KEYS").arg("*__copy:*").query(redis).unwrap()
}

async fn write(store: &RedisStore, key: &str, ttl: Duration) {
    let lease = store.acquire_write_lease(key, ms(5_000)).await.unwrap().unwrap();
    let value = Publication::Value { value: vec![1], ttl, stale_for: ms(60_000) };
    assert!(store.publish(key, &lease, value).await.unwrap());
}

/// The value that a reader gets whose loader fails.
async fn stale(cache: &Cache, key: &str) -> Option<u32> {
    let broken = || async { Err::<u32, _>(io::Error::other("the database is down")) };
    cache.get_or_set(key, broken).await.ok().map(|value| *value)
}

#[tokio::test]
async fn an_entry_that_a_bound_removes_takes_its_copy_along() {
    /// With braces that a Cluster hashes the text of, and with others.
    const KEYS: [&str; 14] = [
        "plain", "user:{1}", "{a}{b}", "a}b{c}d", "a{{b}}", "", "{}", "{}x", "}x", "x{", "}{",
        "a{}b{c}", "{a", "ä{}",
    ];
    let server = RedisServer::start();
    let mut redis = server.connect();
    for prefix in ["cache:", "{users}:cache:"] {
        let store = RedisStore::at(server.url()).prefix(prefix).max_entries(5).build().unwrap();
        for key in KEYS {
            redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
            write(&store, key, ms(60_000)).await;
            assert_eq!(copies(&mut redis).len(), 1, "{prefix} {key}");
            // Copies that end before this one, so that the bound on copies does not remove it.
            for number in 0..5 {
                sleep(ms(2)).await;
                write(&store, &format!("later:{number}"), ms(30_000)).await;
            }
            assert_eq!(store.get(key, true).await.unwrap(), None, "{prefix} {key}");
            let left: Vec<String> = copies(&mut redis);
            let is_of = |name: &&String| !name.contains("later:");
            assert_eq!(left.iter().find(is_of), None, "{prefix} {key}");
            assert_eq!(left.len(), 5, "{prefix} {key}: {left:?}");
        }
    }
}

#[tokio::test]
async fn without_copies_in_l2_a_value_from_there_has_no_window_and_one_in_l1_has() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    let fail_safe = || FailSafe::enabled().stale_ttl(ms(60_000));
    let with = builder(&server).fail_safe(fail_safe()).build().unwrap();
    let [one, other] =
        [(); 2].map(|()| builder(&server).fail_safe(fail_safe().in_l2(false)).build().unwrap());
    // It removes the copy of a peer with its value.
    with.set("k", 1).ttl(ms(30)).await.unwrap();
    assert_eq!(copies(&mut redis).len(), 1);
    one.set("k", 2).ttl(ms(300)).stale_for(ms(60_000)).await.unwrap();
    assert_eq!(copies(&mut redis), Vec::<String>::new());
    assert_eq!(other.get("k").await.as_deref(), Some(&2));
    // The value in L1 of this instance has ended.
    sleep(ms(40)).await;
    assert_eq!(with.get("k").await.as_deref(), Some(&2));
    let loaded = one.get_or_set("l", || async { Ok::<_, io::Error>(3) }).ttl(ms(300)).await;
    assert_eq!(*loaded.unwrap(), 3);
    assert_eq!(copies(&mut redis), Vec::<String>::new());
    sleep(ms(350)).await;
    assert_eq!(stale(&one, "k").await, Some(2), "its own L1 keeps it");
    assert_eq!(stale(&one, "l").await, Some(3));
    assert_eq!(stale(&other, "k").await, None, "no window is known");
    assert_eq!(stale(&with, "k").await, None, "nor to a peer");
    // It does not use a copy of a peer either.
    with.set("m", 4).ttl(ms(30)).await.unwrap();
    sleep(ms(60)).await;
    assert_eq!(stale(&one, "m").await, None);
    assert_eq!(
        stale(&builder(&server).fail_safe(fail_safe()).build().unwrap(), "m").await,
        Some(4)
    );
}

#[tokio::test]
async fn spans_in_redis_end_at_ten_years() {
    const TEN_YEARS: i64 = 10 * 365 * 86_400_000;
    let server = RedisServer::start();
    let mut redis = server.connect();
    let mut pttl = |name: &str| -> i64 { redis::cmd("PTTL").arg(name).query(&mut redis).unwrap() };
    let is_near = |millis: i64, to: i64| (to - 60_000..=to).contains(&millis);
    let build = || {
        builder(&server)
            .ttl(Duration::MAX)
            .fail_safe(FailSafe::enabled().stale_ttl(Duration::MAX))
            .negative_cache(NegativeCache::enabled().ttl(Duration::MAX))
            .build()
            .unwrap()
    };
    let (writer, reader) = (build(), build());
    writer.set("set", 1).await.unwrap();
    writer.set("own", 1).ttl(Duration::MAX).stale_for(Duration::MAX).await.unwrap();
    writer.get_or_set("loaded", || async { Ok::<_, io::Error>(1) }).await.unwrap();
    for key in ["set", "own", "loaded"] {
        assert!(is_near(pttl(&format!("cache:{key}")), TEN_YEARS), "{key}");
        let copy = format!("cache:__copy:{{cache:{key}}}");
        assert!(is_near(pttl(&copy), 2 * TEN_YEARS), "{key}");
        let load = || async { Ok::<_, io::Error>(2) };
        let outcome = reader.get_or_set(key, load).outcome().await.unwrap();
        assert_eq!((*outcome.value, outcome.source), (1, Source::L2), "{key}");
    }
    let none = || async { Ok::<_, io::Error>(None::<u32>) };
    assert_eq!(writer.get_or_set("none", none).await.unwrap(), None);
    assert!(is_near(pttl("cache:__lease:{cache:none}"), TEN_YEARS));
    let some = || async { Ok::<_, io::Error>(Some(2)) };
    assert_eq!(reader.get_or_set("none", some).await.unwrap(), None);
    // What lives for years is found by a delete all the same.
    reader.delete_by_pattern("*o*").await.unwrap();
    for name in ["cache:own", "cache:__copy:{cache:own}", "cache:__lease:{cache:none}"] {
        assert_eq!(pttl(name), -2, "{name}");
    }
}

#[tokio::test]
async fn changes_under_versioned_names_remove_copies_at_every_version() {
    let server = RedisServer::start();
    let mut redis = server.connect();
    for with_index in [true, false] {
        let build = |fail_safe: bool| {
            let store = RedisStore::at(server.url()).use_index(with_index).build().unwrap();
            let options = L2Options::default().versioning(true);
            let builder = Cache::builder().l2_options(options).l2(store, WireCodec::new());
            let fail_safe = if fail_safe { FailSafe::enabled() } else { FailSafe::default() };
            builder.fail_safe(fail_safe).build().unwrap()
        };
        for (ahead, changer) in [(true, true), (true, false), (false, true), (false, false)] {
            for change in 0..4 {
                let (writer, changer) = (build(true), build(changer));
                for _ in 0..3 {
                    if ahead { &writer } else { &changer }.delete("k").await.unwrap();
                }
                writer.set("k", 1).ttl(ms(30)).await.unwrap();
                sleep(ms(40)).await;
                let before = copies(&mut redis);
                assert_eq!(before.len(), 1, "{before:?}");
                match change {
                    0 => drop(changer.delete("k").await.unwrap()),
                    1 => drop(changer.delete_by_pattern("k*").await.unwrap()),
                    2 => drop(changer.clear().await.unwrap()),
                    _ => drop(changer.set("k", 2).stale_for(ms(0)).await.unwrap()),
                }
                let case = format!("ahead {ahead}, change {change}, index {with_index}");
                assert_eq!(copies(&mut redis), Vec::<String>::new(), "{case}");
                writer.clear().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jitter_spreads_the_reloads_of_hot_keys_over_redis() {
    const KEYS: usize = 200;
    let server = RedisServer::start();
    let mut redis = server.connect();
    let instance = || builder(&server).ttl(ms(2_000)).ttl_jitter(0.5).build().unwrap();
    let (one, other) = (instance(), instance());
    let keys: Vec<String> = (0..KEYS).map(|number| number.to_string()).collect();
    let loaded = Mutex::new(Vec::new());
    let load = |cache: Cache, key: String| {
        let loaded = &loaded;
        async move {
            let begun = Arc::new(Mutex::new(None));
            let at = Arc::clone(&begun);
            let loader = move || async move {
                *at.lock().unwrap() = Some(Instant::now());
                Ok::<_, io::Error>(1)
            };
            cache.get_or_set(&key, loader).await.unwrap();
            let at = begun.lock().unwrap().take();
            loaded.lock().unwrap().extend(at);
        }
    };
    let all = async || {
        let calls =
            keys.iter().flat_map(|key| [&one, &other].map(|it| load(it.clone(), key.clone())));
        futures_util::future::join_all(calls).await;
    };
    all().await;
    loaded.lock().unwrap().clear();
    let begun = Instant::now();
    while begun.elapsed() < ms(4_500) {
        all().await;
        sleep(ms(5)).await;
    }
    let mut times = loaded.into_inner().unwrap();
    times.sort_unstable();
    let within = |from: &Instant| {
        let range = *from..*from + ms(50);
        times.iter().filter(|at| range.contains(*at)).count()
    };
    let most = times.iter().map(within).max().unwrap();
    println!("{} reloads, at most {most} of {KEYS} keys within 50 ms", times.len());
    // Independent of how busy the machine is: the times at which the values end in Redis, of a ttl
    // that is longer by a hundred times.
    for key in &keys {
        one.set(key, 1).ttl(ms(200_000)).await.unwrap();
    }
    let mut remaining = redis::pipe();
    for key in &keys {
        remaining.cmd("PTTL").arg(format!("cache:{key}"));
    }
    let mut ends: Vec<i64> = remaining.query(&mut redis).unwrap();
    ends.sort_unstable();
    let within = |from: &i64| ends.iter().filter(|end| (*from..from + 5_000).contains(end)).count();
    let most = ends.iter().map(within).max().unwrap();
    println!("at most {most} of {KEYS} values end in Redis within a fortieth of their ttl");
    let are_bounded = ends.iter().all(|end| (1..=200_000).contains(end));
    assert!(most <= 40 && are_bounded, "{ends:?}");
}
