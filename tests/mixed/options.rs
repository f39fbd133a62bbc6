//! The JavaScript instance beside Rust instances whose options differ, as during a rolling change:
//! all agree at any time which values are fresh, and none serves a value, or its stale copy, after
//! another one has deleted or replaced the value.

use std::{io, time::Duration};

use lazy_layers_cache::{
    EventBusOptions, FailSafe, LazyLayersCache, NegativeCache, RedisStore, RedisTransport,
    WireCodec,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{Cache, Pair, javascript::JavaScript, redis::RedisServer};

const TTL: Duration = Duration::from_millis(700);

/// Instances without L1, so that each answer is what L2 says: fail-safe is off, on, and on with a
/// shorter window.
async fn instances(server: &RedisServer) -> Vec<Cache> {
    let mut instances = Vec::new();
    for number in 0..4 {
        instances.push(instance(server, number).await);
    }
    instances
}

async fn instance(server: &RedisServer, number: usize) -> Cache {
    let store = RedisStore::at(server.url()).prefix("cache:").build().unwrap();
    let transport = RedisTransport::at(server.url()).build().unwrap();
    let window = Duration::from_secs(if number == 2 { 5 } else { 300 });
    let mut builder = LazyLayersCache::builder()
        .without_l1()
        .ttl(TTL)
        .l2(store, WireCodec::new())
        .name("test")
        .event_bus(transport, WireCodec::new())
        .event_bus_options(EventBusOptions::default().accept_unnamed(true));
    if !number.is_multiple_of(4) {
        builder = builder.fail_safe(FailSafe::enabled().stale_ttl(window).throttle(TTL / 70));
    }
    if number % 4 == 3 {
        builder = builder.negative_cache(NegativeCache::enabled().ttl(TTL / 10));
    }
    let cache: Cache = builder.build().unwrap();
    cache.ready().await.unwrap();
    cache
}

/// Asks all, unless the value expires meanwhile.
async fn agree(javascript: &mut JavaScript, instances: &[Cache], key: &str, after: &str) {
    let question = format!("peer.l2('{key}')");
    let before = javascript.ask(&question);
    let mut answers = Vec::new();
    for cache in instances {
        answers.push(cache.get(key).await.map_or("undefined".to_owned(), |it| it.to_string()));
    }
    if javascript.ask(&question) == before {
        assert!(answers.iter().all(|it| *it == before), "{key} is {before}: {answers:?} {after}");
    }
}

/// The value that a failing load is answered with.
async fn stale(cache: &Cache, key: &str) -> Option<Value> {
    let failing = || async { Err::<Value, _>(io::Error::other("the database is down")) };
    cache.get_or_set(key, failing).await.ok().map(|value| (*value).clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_agree_on_what_is_fresh_while_options_change() {
    let Pair { rust, mut javascript, server } = Pair::start().await;
    drop(rust);
    let mut instances = instances(&server).await;
    let begun = Instant::now();
    for round in 0..60_usize {
        let (key, writer) = (format!("k{}", round % 3), round % (instances.len() + 1));
        let what = (round / 5) % 3;
        match (instances.get(writer), what) {
            (Some(rust), 0) => drop(rust.set(&key, json!(round)).await.unwrap()),
            (Some(rust), 1) => drop(rust.delete(&key).await.unwrap()),
            (Some(rust), _) => {
                let load = move || async move { Ok::<_, io::Error>(json!(round)) };
                drop(rust.get_or_set(&key, load).await.unwrap());
            }
            (None, 1) => drop(javascript.ask(&format!("peer.del('{key}')"))),
            (None, _) => {
                let ttl = TTL.as_millis();
                javascript.ask(&format!("peer.set('{key}', {round}, {ttl})"));
            }
        }
        let after = format!("after {what} of {writer} in round {round}");
        for key in ["k0", "k1", "k2"] {
            agree(&mut javascript, &instances, key, &after).await;
        }
        if round % 7 == 6 {
            // Some values expire.
            sleep(TTL / 2).await;
        }
        if round % 10 == 9 {
            // The rolling change: one instance after the other is replaced.
            let place = round / 10 % instances.len();
            instances[place].close().await;
            instances[place] = instance(&server, round / 10 + place + 1).await;
        }
    }
    eprintln!("60 rounds in {:?}", begun.elapsed());
    assert_eq!(javascript.ask("peer.failures"), "[]");
}

/// How a value ends before its time, as far as Rust instances can see it in Redis.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Expires,
    JavaScriptDeletes,
    JavaScriptSets,
    PatternOfJavaScript,
    RustWithoutFailSafeDeletes,
    RustWithoutFailSafeSets,
    /// These tell nobody: a Rust instance reads the key before the old ttl ends.
    RedisDel,
    RedisSet,
    RedisPexpire,
}

impl End {
    async fn of(self, key: &str, instances: &[Cache], javascript: &mut JavaScript) {
        let bytes = "Buffer.from([0x48, 0x43, 0x31, 0x4d, 9])";
        let asked = match self {
            Self::Expires => return,
            Self::RustWithoutFailSafeDeletes => {
                return drop(instances[0].delete(key).await.unwrap());
            }
            Self::RustWithoutFailSafeSets => {
                return drop(instances[0].set(key, json!(9)).ttl(TTL / 7).await.unwrap());
            }
            Self::JavaScriptDeletes => format!("peer.del('{key}')"),
            Self::JavaScriptSets => format!("peer.set('{key}', 9, 100)"),
            Self::PatternOfJavaScript => format!("peer.pattern('{key}*')"),
            Self::RedisDel => format!("peer.redis.del('cache:{key}')"),
            Self::RedisSet => format!("peer.redis.set('cache:{key}', {bytes}, 'PX', 100)"),
            Self::RedisPexpire => format!("peer.redis.pexpire('cache:{key}', 20)"),
        };
        javascript.ask(&asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_serves_a_copy_of_a_value_that_was_deleted_or_replaced() {
    let Pair { rust, mut javascript, server } = Pair::start().await;
    drop(rust);
    let instances = instances(&server).await;
    let ends = [
        End::Expires,
        End::JavaScriptDeletes,
        End::JavaScriptSets,
        End::PatternOfJavaScript,
        End::RustWithoutFailSafeDeletes,
        End::RustWithoutFailSafeSets,
        End::RedisDel,
        End::RedisSet,
        End::RedisPexpire,
    ];
    for end in ends {
        // One instance writes the value that ends, another reads the key before the ttl is over.
        for (writer, reader) in [(1, 2), (2, 3), (3, 1)] {
            let key = format!("{end:?}:{writer}").to_lowercase();
            let written = Instant::now();
            drop(instances[writer].set(&key, json!(writer)).await.unwrap());
            assert_eq!(stale(&instances[reader], &key).await, Some(json!(writer)), "fresh");
            end.of(&key, &instances, &mut javascript).await;
            sleep(Duration::from_millis(30)).await;
            if written.elapsed() < TTL * 9 / 10 {
                drop(instances[reader].get(&key).await);
            } else {
                eprintln!("{key}: too slow");
                continue;
            }
            agree(&mut javascript, &instances, &key, "at once").await;
            sleep(TTL.saturating_sub(written.elapsed()) + TTL / 5).await;
            agree(&mut javascript, &instances, &key, "after the old ttl").await;
            for (number, cache) in instances.iter().enumerate() {
                let served = stale(cache, &key).await;
                let expected = (end == End::Expires && number != 0).then(|| json!(writer));
                assert_eq!(served, expected, "{key} of instance {number}");
            }
        }
    }
    assert_eq!(javascript.ask("peer.failures"), "[]");
}
