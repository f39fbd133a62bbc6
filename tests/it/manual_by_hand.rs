//! What `docs/invalidating-from-elsewhere.md` says about messages and commands by hand, on real
//! servers: the test runs the commands of the page.

use std::time::Instant;

use lazy_layers_cache::{
    EventBus, FailSafe, NatsConnection, NatsOptions, NatsTransport, RedisStore, RedisTransport,
    WireCodec,
};
use redis::cmd;
use tokio::time::sleep;

use crate::support::{Broken, Cache, ms, nats::NatsServer, redis::RedisServer};

const PAGE: &str = include_str!("../../docs/invalidating-from-elsewhere.md");

/// The words of the command of the page that begins so; quoted words are one.
fn command(start: &str) -> Vec<&'static str> {
    let line = PAGE.lines().find(|line| line.starts_with(start)).expect(start);
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(number, part)| match number % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
        .collect()
}

fn cache(redis: &RedisServer, bus: impl Into<EventBus>) -> Cache {
    let builder = Cache::builder().name("users").ttl(ms(60_000)).fail_safe(FailSafe::enabled());
    let builder = builder.l2(RedisStore::at(redis.url()).build().unwrap(), WireCodec::new());
    builder.event_bus(bus, WireCodec::new()).build().unwrap()
}

fn exists(redis: &RedisServer, name: &str) -> bool {
    cmd("EXISTS").arg(name).query(&mut redis.connect()).unwrap()
}

/// Waits until both levels have lost the key.
async fn is_gone(cache: &Cache, redis: &RedisServer) {
    let begun = Instant::now();
    while cache.get_l1("7").is_some() || exists(redis, "users:cache:7") {
        assert!(begun.elapsed() < ms(10_000), "{}", cache.explain("7").await);
        sleep(ms(5)).await;
    }
    assert_eq!(cache.stats().events_refused, 0);
}

#[tokio::test]
async fn a_message_by_hand_deletes_from_l1_and_from_l2() {
    let (redis, nats) = (RedisServer::start(), NatsServer::start());
    let cache_on_redis = cache(&redis, RedisTransport::at(redis.url()).build().unwrap());
    cache_on_redis.ready().await.unwrap();
    cache_on_redis.set("7", 1).await.unwrap();
    let words = command("redis-cli PUBLISH");
    cmd(words[1]).arg(&words[2..]).exec(&mut redis.connect()).unwrap();
    is_gone(&cache_on_redis, &redis).await;
    cache_on_redis.close().await;

    let connection = NatsConnection::default().servers([nats.url()]);
    let transport = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let cache_on_nats = cache(&redis, transport);
    cache_on_nats.ready().await.unwrap();
    cache_on_nats.set("7", 1).await.unwrap();
    let words = command("nats pub");
    let client = async_nats::connect(nats.url()).await.unwrap();
    client.publish(words[2], words[3].into()).await.unwrap();
    client.flush().await.unwrap();
    is_gone(&cache_on_nats, &redis).await;
}

#[tokio::test]
async fn a_del_lets_a_load_write_the_old_value_and_the_longer_command_does_not() {
    for (words, writes) in [
        // In a table of the page.
        (vec!["DEL", "users:cache:7"], true),
        (command("redis-cli UNLINK").split_off(1), false),
    ] {
        assert!(PAGE.contains(&words.join(" ")));
        let redis = RedisServer::start();
        let store = RedisStore::at(redis.url()).build().unwrap();
        let builder = Cache::builder().name("users").l2(store, WireCodec::new());
        let cache = builder.fail_safe(FailSafe::enabled()).build().unwrap();
        cache.set("7", 1).await.unwrap();
        assert!(exists(&redis, "users:cache:__copy:{users:cache:7}"));
        let mut connection = redis.connect();
        let delete = words.clone();
        let load = || async move {
            cmd(delete[0]).arg(&delete[1..]).exec(&mut connection).unwrap();
            Ok::<_, Broken>(2)
        };
        cache.get_or_set("7", load).refresh().await.unwrap();
        assert_eq!(exists(&redis, "users:cache:7"), writes, "{words:?}");
        assert!(!exists(&redis, "users:cache:__lease:{users:cache:7}"));
    }
}
