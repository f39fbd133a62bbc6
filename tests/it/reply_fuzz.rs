//! Replies of a real Redis, and of sentinels, with random bytes changed in transit. Every call must
//! end in time, and the cache must recover once the connection is sound again.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    L2Effect, L2Timeouts, LazyLayersCache, RedisOptions, RedisStore, RedisTransport, Transport,
    WireCodec,
};
use tokio::time::{sleep, timeout};

use crate::support::{
    fake_sentinel::FakeSentinel,
    ms,
    proxy::{Mode, Proxy},
    redis::RedisServer,
};

type Cache = LazyLayersCache<String, u32>;

/// Limit for every call: its deadlines, and the delay of a busy machine.
const SOON: Duration = Duration::from_secs(10);
const GARBLED: Duration = ms(1_500);

fn cache(store: RedisStore, bus: impl Transport) -> Cache {
    Cache::builder()
        .without_l1()
        .l2_timeouts(L2Timeouts::default().read(ms(100)).write(ms(100)).pattern(ms(100)))
        .l2(store, WireCodec::new())
        .name("test")
        .event_bus(bus, WireCodec::new())
        .build()
        .unwrap()
}

fn short_timeouts() -> RedisOptions {
    let mut options = RedisOptions::default();
    options.connect_timeout = ms(200);
    options
}

async fn call_everything(cache: &Cache, turn: u32) {
    let load = move || async move { Ok::<_, std::io::Error>(turn) };
    let calls = async {
        assert!(cache.get_or_set("k", load).await.is_ok());
        let _ = cache.set(&format!("k{}", turn % 7), turn).await;
        let _ = (cache.get("k").await, cache.has("q").await, cache.size().await);
        let _ = (cache.delete("k").await, cache.delete_by_pattern("k[0-3]*").await);
    };
    assert!(timeout(SOON, calls).await.is_ok(), "a call does not return");
}

/// Makes calls while replies are garbled, and then checks that the cache recovers.
async fn survives(cache: &Cache, proxies: &[&Proxy]) {
    for rate in [400, 60, 8] {
        proxies.iter().for_each(|proxy| proxy.set(Mode::Garble(rate)));
        let begun = Instant::now();
        let mut turn = 0;
        while begun.elapsed() < GARBLED / 3 {
            call_everything(cache, turn).await;
            turn += 1;
        }
    }
    // Close the connections whose replies are out of step.
    for mode in [Mode::Reset, Mode::Pass] {
        proxies.iter().for_each(|proxy| proxy.set(mode));
    }
    let begun = Instant::now();
    loop {
        cache.delete("k").await.unwrap();
        let report = cache.set("k", 70_007).await.unwrap();
        if report.l2 == L2Effect::Done && cache.get("k").await.as_deref() == Some(&70_007) {
            break;
        }
        assert!(begun.elapsed() < 3 * SOON, "the cache does not recover: {:?}", cache.health());
        sleep(ms(20)).await;
    }
    timeout(3 * SOON, cache.ready()).await.expect("the cache subscribes again").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_recovers_from_garbled_replies_of_redis() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let store = RedisStore::at(&*url).options(short_timeouts()).build().unwrap();
    let bus = RedisTransport::at(&*url).connect_timeout(ms(200)).build().unwrap();
    survives(&cache(store, bus), &[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_recovers_from_garbled_replies_of_sentinels() {
    let server = RedisServer::start();
    let sentinel = FakeSentinel::naming(server.port(), 1);
    let port = sentinel.url().trim_end_matches('/').rsplit_once(':').unwrap().1.parse().unwrap();
    let proxy = Proxy::to(port);
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let (store, bus) = (
        RedisStore::sentinel([&*url], "redis://main/").options(short_timeouts()).build().unwrap(),
        RedisTransport::sentinel([&*url], "redis://main/").connect_timeout(ms(200)),
    );
    survives(&cache(store, bus.build().unwrap()), &[&proxy]).await;
}
