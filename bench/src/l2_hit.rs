//! A hit in L2 with an empty L1, beside the bare client that makes the same requests and beside the
//! peers that have a Redis behind their memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amalgam::provider::{MessagePackSerializer, RedisDistributedCache};
use lazy_layers_cache::{L2Timeouts, LazyLayersCache, WireCodec};
use multi_tier_cache::{CacheManager, CacheStrategy, RedisCache};
use redis::aio::MultiplexedConnection;

use crate::{
    measure::{Numbers, key, median, workers},
    peers::{AN_HOUR, tiers_of},
    redis_process::Server,
    report::Report,
};

type Cache = LazyLayersCache<String, String>;

const KEYS: usize = 10_000;
const ROUNDS: usize = 15;
const PATIENCE: Duration = Duration::from_secs(20);
const NAMES: [&str; 5] = [
    "bare client: GET and PTTL in a pipeline",
    "lazy-layers get(..).await",
    "lazy-layers get_or_set(..).await",
    "amalgam try_get(..).await",
    "multi-tier get(..).await",
];
const GET: usize = 1;

/// The measurements of one contender in one round.
struct Seen {
    per_second: f64,
    p99_micros: f64,
}

pub(crate) fn run(report: &mut Report) {
    let server = Server::start();
    let runtime = workers(2);
    let (bare, ours, amalgam, tiers) = runtime.block_on(async {
        let mut bare =
            server.client().get_multiplexed_async_connection().await.expect("it answers");
        bare.set_response_timeout(PATIENCE);
        let ours = Cache::builder()
            .ttl(Duration::from_secs(3_600))
            .without_l1()
            .l2(server.store(), WireCodec::new())
            // Generous limits, so that no call times out on a busy machine: the bare client has
            // none.
            .l2_timeouts(L2Timeouts::default().read(PATIENCE).write(PATIENCE))
            .build()
            .expect("valid options");
        let amalgam = amalgam(&server).await;
        let redis = RedisCache::with_url(&server.url()).await.expect("it answers");
        let tiers = tiers_of(Arc::new(redis)).await;
        for number in 0..KEYS {
            let (key, value) = (key(number), "x".repeat(100));
            let stored = tiers.set_with_strategy(&key, value.clone().into(), LONG);
            stored.await.expect("it answers");
            amalgam.set(&key, value.clone()).await.expect("it answers");
            ours.set(&key, value).await.expect("it answers");
        }
        (bare, ours, amalgam, tiers)
    });
    for (tasks, each) in [(1, 4_000), (64, 400), (512, 60)] {
        let mut rounds: Vec<[Seen; NAMES.len()]> = Vec::new();
        for round in 0..=ROUNDS {
            let seen =
                runtime.block_on(async {
                    [
                        drive(tasks, each, &bare, |bare, key| async move { ask(bare, &key).await })
                            .await,
                        drive(tasks, each, &ours, |ours, key| async move {
                            ours.get(&key).await.is_some()
                        })
                        .await,
                        drive(tasks, each, &ours, |ours, key| async move {
                            let load = || async { Err::<String, _>(std::fmt::Error) };
                            ours.get_or_set(&key, load).await.is_ok()
                        })
                        .await,
                        drive(tasks, each, &amalgam, |amalgam, key| async move {
                            amalgam.try_get(&key).await.expect("it answers").is_some()
                        })
                        .await,
                        drive(tasks, each, &tiers, |tiers: Arc<CacheManager>, key| async move {
                            tiers.get(&key).await.expect("it answers").is_some()
                        })
                        .await,
                    ]
                });
            // The first round warms up.
            if round > 0 {
                rounds.push(seen);
            }
        }
        report.title(&format!(
            "a hit in Redis, none in memory, {tasks} task(s): a second, and p99 in us"
        ));
        let column = |at: usize, of: fn(&Seen) -> f64| {
            let own = median(rounds.iter().map(|seen| of(&seen[at])).collect());
            let ratio = median(rounds.iter().map(|seen| of(&seen[at]) / of(&seen[0])).collect());
            (own, ratio)
        };
        for (at, name) in NAMES.into_iter().enumerate() {
            let (per_second, throughput) = column(at, |seen| seen.per_second);
            let (p99, latency) = column(at, |seen| seen.p99_micros);
            report.line(&format!(
                "{name:<42} {per_second:>8.0}/s {throughput:>5.2}x {p99:>9.0} us {latency:>5.2}x"
            ));
            report.bar(name, per_second);
        }
        // One task waits for the loopback, and 512 for the processors, so 64 have the limit.
        let (throughput, limit) =
            (column(GET, |seen| seen.per_second).1, if tasks == 64 { 0.95 } else { 0.9 });
        report.at_least(&format!("{tasks} task(s): requests/s of get"), throughput, limit);
        if tasks == 64 {
            let p99 = column(GET, |seen| seen.p99_micros).1;
            report.at_most("64 tasks: p99 of get", p99, 1.25);
            let peers = (3..NAMES.len()).map(|peer| column(peer, |seen| seen.per_second).1);
            let best = peers.fold(0.0, f64::max);
            report.at_least("64 tasks: get to the best peer", throughput / best, 1.0);
            report.bars("redis-hit", "/s");
        }
        report.note(
            "100 characters, MessagePack in ours and amalgam, which decode it; bytes in \
             multi-tier. amalgam is set to skip its memory, and reads its markers (GET and HMGET); \
             multi-tier has Redis as its one tier (GET and PTTL). Ours reads value and time of one \
             moment, several keys in one transaction, and no value beyond its limit.",
        );
        report.end();
    }
}

const LONG: CacheStrategy = CacheStrategy::MediumTerm;

async fn amalgam(server: &Server) -> amalgam::Cache<String> {
    let redis = RedisDistributedCache::connect(server.url()).await.expect("it answers");
    let options = amalgam::EntryOptions::new(AN_HOUR).with_skip_memory(true, true);
    amalgam::Cache::builder()
        .distributed(Arc::new(redis))
        .serializer(Arc::new(MessagePackSerializer))
        .default_options(options)
        .try_build()
        .expect("valid options")
}

async fn ask(mut bare: MultiplexedConnection, key: &str) -> bool {
    let name = format!("cache:{key}");
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
    let answer: (Vec<u8>, i64) = pipeline.query_async(&mut bare).await.expect("it answers");
    !answer.0.is_empty() && answer.1 > 0
}

/// Runs `tasks` tasks, each of which requests its keys one after another.
async fn drive<C, F>(
    tasks: usize,
    each: usize,
    client: &C,
    ask: impl Fn(C, String) -> F + Clone + Send + 'static,
) -> Seen
where
    C: Clone + Send + 'static,
    F: Future<Output = bool> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (client, ask) = (client.clone(), ask.clone());
            tokio::spawn(async move {
                let mut numbers = Numbers::new(task);
                let mut latencies = Vec::with_capacity(each);
                for _ in 0..each {
                    let key = key(numbers.below(KEYS));
                    let asked = Instant::now();
                    assert!(ask(client.clone(), key).await, "every key is there");
                    latencies.push(asked.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no panic"));
    }
    let took = begun.elapsed();
    latencies.sort_unstable();
    Seen {
        per_second: latencies.len() as f64 / took.as_secs_f64(),
        p99_micros: latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6,
    }
}
