//! The soak test: three instances over one Redis and its Pub/Sub, with traffic, deletes and faults.
//! Every ten seconds the resources of the process are recorded; a resource that grows, leaks.
//!
//! `cargo run --release -p bench --bin soak -- 30` runs for 30 minutes, which is the default.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a command that cannot run may stop"
)]

#[path = "../redis_process.rs"]
mod redis_process;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    DistributedLock, EventBusOptions, FailSafe, L1Options, LazyLayersCache, NegativeCache,
    RedisTransport, Timeouts, WireCodec,
};
use redis_process::Server;
use tokio::{runtime::Handle, time::sleep};

type Cache = LazyLayersCache<u64, Vec<u8>>;

type Of = fn(&Holding) -> f64;

const INSTANCES: usize = 3;
const WORKERS: u64 = 6;
const KEYS: u64 = 20_000;
const EVERY: Duration = Duration::from_secs(10);
/// The growth that is allowed from the first third, after the warm-up, to the last third.
const GROWTH: f64 = 1.15;

/// The resources of the process.
#[derive(Debug, Clone, Copy)]
struct Holding {
    mib: f64,
    tasks: f64,
    files: f64,
    threads: f64,
}

fn main() -> ExitCode {
    let minutes = std::env::args().nth(1).map_or(30, |it| it.parse().expect("minutes"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let server = Arc::new(Server::start());
    let (samples, left) = runtime.block_on(soak(&server, Duration::from_secs(minutes * 60)));
    let third = samples.len() / 3;
    let mut is_flat = left <= 1;
    println!("\n{left} tasks are left after all caches are closed (one is the fault's own)");
    let figures: [(&str, Of); 4] = [
        ("MiB", |it| it.mib),
        ("tasks", |it| it.tasks),
        ("files", |it| it.files),
        ("threads", |it| it.threads),
    ];
    for (name, of) in figures {
        let mean = |part: &[Holding]| part.iter().map(of).sum::<f64>() / part.len().max(1) as f64;
        let (first, last) = (mean(&samples[..third]), mean(&samples[samples.len() - third..]));
        let kept = last <= first * GROWTH + 2.0;
        is_flat &= kept;
        println!("{name:>8}: {first:.1} at first, {last:.1} at last: {}", verdict(kept));
    }
    if is_flat { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn soak(server: &Arc<Server>, time: Duration) -> (Vec<Holding>, usize) {
    let caches: Vec<Cache> = (0..INSTANCES).map(|_| build(server)).collect();
    let until = Instant::now() + time;
    let workers: Vec<_> = (0..WORKERS)
        .map(|seed| tokio::spawn(work(caches[seed as usize % INSTANCES].clone(), seed, until)))
        .collect();
    let faults = tokio::spawn(trouble(Arc::clone(server), until));
    println!("    time      MiB  tasks  files  threads  loads/s  hits %  events  gaps  errors");
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut loads_before = 0;
    while Instant::now() + EVERY < until {
        sleep(EVERY).await;
        let holding = holding();
        let total = |of: fn(&lazy_layers_cache::Stats) -> u64| {
            caches.iter().map(|cache| of(&cache.stats())).sum::<u64>()
        };
        let (loads, hits) = (total(|it| it.loads), total(|it| it.l1_hits));
        let reads = hits + total(|it| it.l2_hits) + loads;
        println!(
            "{:>6} s {:>8.1} {:>6} {:>6} {:>8} {:>8} {:>7.1} {:>7} {:>5} {:>7}",
            begun.elapsed().as_secs(),
            holding.mib,
            holding.tasks,
            holding.files,
            holding.threads,
            (loads - loads_before) / EVERY.as_secs(),
            hits as f64 * 100.0 / reads.max(1) as f64,
            total(|it| it.events_received),
            total(|it| it.bus_gaps),
            total(|it| it.l2_errors + it.bus_errors),
        );
        loads_before = loads;
        samples.push(holding);
    }
    for worker in workers {
        worker.await.expect("no call panics");
    }
    for cache in caches {
        cache.close().await;
    }
    let left = Handle::current().metrics().num_alive_tasks();
    faults.abort();
    (samples, left)
}

fn build(server: &Server) -> Cache {
    Cache::builder()
        .ttl(Duration::from_secs(20))
        .l1(L1Options::default().max_entries(5_000).ttl(Duration::from_secs(5)))
        .l2(server.store(), WireCodec::new())
        .name("bench")
        .event_bus(RedisTransport::at(server.url()).build().expect("a URL"), WireCodec::new())
        .event_bus_options(EventBusOptions::default().trust_timeout(Duration::from_secs(1)))
        .distributed_lock(DistributedLock::enabled())
        .negative_cache(NegativeCache::enabled())
        .fail_safe(FailSafe::enabled())
        .timeouts(Timeouts::none().soft(Duration::from_millis(50)).hard(Duration::from_secs(2)))
        .build()
        .expect("valid options")
}

/// Reads, some of them cancelled, and at times a write, a delete or a pattern delete.
async fn work(cache: Cache, seed: u64, until: Instant) {
    let mut random = seed + 1;
    let mut next = move |bound: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    while Instant::now() < until {
        let key = next(KEYS) * next(KEYS) / KEYS;
        match next(1_000) {
            0 => drop(cache.delete_by_pattern(&format!("{key}*")).await),
            1..=10 => drop(cache.delete(&key).await),
            11..=15 => drop(cache.set(&key, vec![7; 200]).await),
            what => {
                let (size, slow) = (next(1_000), next(50) == 0);
                let load = move || async move {
                    if slow {
                        sleep(Duration::from_millis(100)).await;
                    }
                    match size {
                        0..=9 => Ok(None),
                        10..=29 => Err(std::io::Error::other("the database is busy")),
                        _ => Ok(Some(vec![7; size as usize])),
                    }
                };
                let read = cache.get_or_set(&key, load);
                if what < 100 {
                    // A caller that drops its future.
                    let _ = tokio::time::timeout(Duration::from_millis(1), read).await;
                } else {
                    let _ = read.await;
                }
            }
        }
        if next(20) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Connections are killed, and the server is frozen.
async fn trouble(server: Arc<Server>, until: Instant) {
    while Instant::now() < until {
        sleep(Duration::from_secs(7)).await;
        let mut connection = server.connect();
        for kind in ["pubsub", "normal"] {
            let mut kill = redis::cmd("CLIENT");
            let _ = kill.arg("KILL").arg("TYPE").arg(kind).exec(&mut connection);
        }
        sleep(Duration::from_secs(13)).await;
        server.freeze();
        sleep(Duration::from_secs(2)).await;
        server.thaw();
    }
}

fn holding() -> Holding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        number.unwrap_or(f64::NAN)
    };
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Holding {
        mib: field("VmRSS:") / 1024.0,
        tasks: Handle::current().metrics().num_alive_tasks() as f64,
        files: files as f64,
        threads: field("Threads:"),
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "flat" } else { "GROWS" }
}
