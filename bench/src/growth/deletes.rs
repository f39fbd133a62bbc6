//! Deletes at 100 to 10,000 a second on one instance: the cost of hits on other keys at a peer, and
//! the delay of the peer.

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use lazy_layers_cache::{LazyLayersCache, RedisTransport, WireCodec};

use super::ASKED;
use crate::{
    measure::{Numbers, block_on, key, median, workers},
    plot::Line,
    redis_process::Server,
    report::Report,
};

type Cache = LazyLayersCache<String, String>;

const SECONDS: f64 = 2.0;
const WALK: usize = 20_000;

pub(super) fn run(report: &mut Report) {
    let server = Server::start();
    let runtime = workers(1);
    let (deletes, hears) = runtime.block_on(async {
        let build = || {
            let transport = RedisTransport::at(server.url()).build().expect("valid options");
            let built = Cache::builder().ttl(Duration::from_secs(3_600));
            let built =
                built.name("bench").event_bus(transport, WireCodec::new()).broadcast_set(false);
            built.build().expect("valid options")
        };
        let (deletes, hears) = (build(), build());
        deletes.ready().await.expect("it listens");
        hears.ready().await.expect("it listens");
        for number in 0..ASKED {
            let load = || async { Ok::<_, std::fmt::Error>("x".repeat(100)) };
            hears.get_or_set(&key(number), load).await.expect("it loads");
        }
        (deletes, hears)
    });
    let mut line = Line { name: "lazy-layers get_or_set".to_owned(), points: Vec::new() };
    report.title("deletes a second at one instance, and hits at the one that hears of them");
    let mut idle = 0.0;
    for rate in [1.0, 100.0, 1_000.0, 10_000.0] {
        let done = AtomicBool::new(false);
        let (reached, behind, hits) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&hears, &done));
            let (reached, behind) = runtime.block_on(delete(&deletes, &hears, rate));
            done.store(true, Ordering::Relaxed);
            (reached, behind, median(reader.join().expect("no panic")))
        });
        if line.points.is_empty() {
            idle = hits;
        }
        line.points.push((rate, hits));
        report.line(&format!(
            "{rate:>6.0} a second: {reached:>6.0} reached, the last heard of {:>6.1} ms later; \
             a hit {hits:>6.1} ns, {:>5.2}x of that at 1 a second; {} gaps",
            behind.as_secs_f64() * 1e3,
            hits / idle,
            hears.stats().bus_gaps,
        ));
        if rate > 9_999.0 {
            report.at_least("of 10,000 deletes a second", reached / rate, 0.9);
            report.check("and heard of within 100 ms", behind < Duration::from_millis(100));
        }
    }
    report.lines("growth-deletes", "deletes a second", "ns a hit", &[line]);
    report.note(
        "Two instances in one process over Redis Pub/Sub, no L2. A hit's figure is the \
         median of walks of 20,000, so it says what the deletes cost their neighbours, processors \
         shared.",
    );
    report.end();
}

/// Nanoseconds per hit of each walk.
fn read(cache: &Cache, done: &AtomicBool) -> Vec<f64> {
    let asked: Vec<String> = (0..ASKED).map(key).collect();
    let mut numbers = Numbers::new(1);
    let mut walks = Vec::new();
    block_on(async {
        // The loader runs if L1 is untrusted because the bus was silent for too long.
        let load = || async { Ok::<_, std::fmt::Error>("x".repeat(100)) };
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            for _ in 0..WALK {
                let key = asked[numbers.below(ASKED)].as_str();
                black_box(cache.get_or_set(key, load).await.expect("a value"));
            }
            walks.push(begun.elapsed().as_nanos() as f64 / WALK as f64);
        }
    });
    walks
}

/// Deletes per second, and the time from the last delete until the peer had applied it.
async fn delete(deletes: &Cache, hears: &Cache, rate: f64) -> (f64, Duration) {
    let all = (rate * SECONDS) as usize;
    // The last delete removes this entry.
    let last = format!("deleted:{}", all - 1);
    let load = || async { Ok::<_, std::fmt::Error>("x".repeat(100)) };
    hears.get_or_set(&last, load).await.expect("it loads");
    let begun = Instant::now();
    let mut number = 0;
    while number < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let due = (begun.elapsed().as_secs_f64() * rate) as usize + 1;
        while number < due.min(all) {
            deletes.delete(&format!("deleted:{number}")).await.expect("open");
            number += 1;
        }
    }
    let reached = all as f64 / begun.elapsed().as_secs_f64();
    let told = Instant::now();
    while hears.get_l1(&last).is_some() {
        assert!(told.elapsed() < Duration::from_secs(30), "the other never heard of it");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (reached, told.elapsed())
}
