//! A hit in the shared level, with none in memory, beside the bare client that asks for the same.

use std::time::{Duration, Instant};

use lazy_layers_cache::{LazyLayersCache, WireCodec};
use redis::aio::MultiplexedConnection;

use crate::{
    measure::{Numbers, key, median},
    report::Report,
    server::Server,
};

type Cache = LazyLayersCache<String, String>;

const KEYS: usize = 10_000;
const ROUNDS: usize = 15;
const NAMES: [&str; 3] = [
    "bare client: GET and PTTL in a pipeline",
    "lazy-layers get(..).await",
    "lazy-layers get_or_set(..).await",
];

/// Of one contender in one round.
struct Seen {
    per_second: f64,
    p99_micros: f64,
}

pub(crate) fn run(report: &mut Report) {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (bare, ours) = runtime.block_on(async {
        let bare = server.client().get_multiplexed_async_connection().await.expect("it answers");
        let ours = Cache::builder()
            .ttl(Duration::from_secs(3_600))
            .without_l1()
            .l2(server.store(), WireCodec::new())
            .build()
            .expect("valid options");
        for number in 0..KEYS {
            ours.set(&key(number), "x".repeat(100)).await.expect("it answers");
        }
        (bare, ours)
    });
    for (tasks, each) in [(1, 4_000), (64, 400), (512, 60)] {
        let mut rounds: Vec<[Seen; 3]> = Vec::new();
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
            if at == 1 {
                let what = format!("{tasks} task(s): get {throughput:.2}x, at least 0.90x");
                report.check(&what, throughput >= 0.9);
            }
            if at == 1 && tasks == 64 {
                let what = format!("{tasks} tasks: p99 {latency:.2}x, at most 1.25x");
                report.check(&what, latency <= 1.25);
            }
        }
        report.end();
    }
}

async fn ask(mut bare: MultiplexedConnection, key: &str) -> bool {
    let name = format!("cache:{key}");
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
    let answer: (Vec<u8>, i64) = pipeline.query_async(&mut bare).await.expect("it answers");
    !answer.0.is_empty() && answer.1 > 0
}

/// Lets so many tasks ask for so many keys each, one after the other.
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
