//! A process of the shop.

use std::{
    io::stdin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    contenders::Shop,
    workload::{CHANGE, Changes, FAILURES, LOADS, PROCESSES},
};
use crate::measure::{Numbers, workers};

pub(crate) const CHILD: &str = "--shop";
const PRODUCTS: usize = 50_000;
const IN_MEMORY: usize = 10_000;
const TASKS: usize = 128;
const WARM_UP: Duration = Duration::from_millis(2_000);
const OPEN: Duration = Duration::from_millis(3_000);
/// One request in 100 changes a product.
const READS_PER_WRITE: usize = 100;
/// Requests generated beforehand, so that generating them is not measured; each task begins at a
/// different one.
const TRACE: usize = 1 << 18;

/// Reports when the cache is warm, serves for three seconds on a command, and reports the result.
pub(crate) fn serve(contender: &str, url: &str, number: &str, changes: &str) {
    let runtime = workers(1);
    let number: usize = number.parse().expect("a number");
    let keys: Arc<[String]> = (0..PRODUCTS).map(|product| format!("product:{product}")).collect();
    let popular = zipf(number);
    let mut numbers = Numbers::new(number);
    let changed = match Changes::said(changes) {
        Changes::Popular => popular.clone(),
        Changes::Any => popular.iter().map(|_| numbers.below(PRODUCTS) as u32).collect(),
    };
    let trace = Arc::new(Trace { asked: popular, changed });
    runtime.block_on(async {
        let contender = contender.parse().expect("a number");
        // All products are in Redis, as in a shop that has been open for long. A cache of its own,
        // with capacity for all products, fills it, so that no eviction is measured.
        let filling = Shop::open(contender, url, PRODUCTS).await;
        fill(&filling, &keys, number).await;
        drop(filling);
        let shop = Shop::open(contender, url, IN_MEMORY).await;
        traffic(&shop, &keys, &trace, WARM_UP).await;
        println!("ready");
        tokio::task::spawn_blocking(|| stdin().read_line(&mut String::new()))
            .await
            .expect("no panic")
            .expect("the parent lives");
        let (begun, before) = (Instant::now(), LOADS.load(Ordering::Relaxed));
        let latencies = traffic(&shop, &keys, &trace, OPEN).await;
        let (seconds, loads) = (begun.elapsed(), LOADS.load(Ordering::Relaxed) - before);
        let failures = FAILURES.load(Ordering::Relaxed);
        let (requests, seconds) = (latencies.count(), seconds.as_secs_f64());
        println!("{requests} {seconds} {loads} {failures} {}", latencies.say());
        // The parent reads the counters of this process, and ends it.
        std::thread::sleep(Duration::from_secs(60));
    });
}

/// Fills the share of this process.
async fn fill(shop: &Shop, keys: &Arc<[String]>, number: usize) {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (shop, keys) = (shop.clone(), Arc::clone(keys));
            tokio::spawn(async move {
                let own = (task * PROCESSES + number..PRODUCTS).step_by(TASKS * PROCESSES);
                for product in own {
                    shop.price(&keys[product]).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
}

async fn traffic(
    shop: &Shop,
    keys: &Arc<[String]>,
    trace: &Arc<Trace>,
    how_long: Duration,
) -> Histogram {
    let end = Instant::now() + how_long;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (shop, keys, trace) = (shop.clone(), Arc::clone(keys), Arc::clone(trace));
            tokio::spawn(async move {
                let mut latencies = Histogram::default();
                let mut next = task * (TRACE / TASKS);
                loop {
                    next += 1;
                    let asked = Instant::now();
                    if next % READS_PER_WRITE == task % READS_PER_WRITE {
                        let key = &keys[trace.changed[next % TRACE] as usize];
                        tokio::time::sleep(CHANGE).await;
                        shop.changed(key).await;
                    } else {
                        let key = &keys[trace.asked[next % TRACE] as usize];
                        assert!(shop.price(key).await > 0, "a product costs something");
                    }
                    let answered = Instant::now();
                    latencies.count_in(answered - asked);
                    if answered > end {
                        return latencies;
                    }
                    // A server also yields to its other tasks between two requests.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut all = Histogram::default();
    for task in tasks {
        all.add(&task.await.expect("no panic"));
    }
    all
}

/// The sequence of requests.
struct Trace {
    asked: Vec<u32>,
    changed: Vec<u32>,
}

fn zipf(seed: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=PRODUCTS)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let mut numbers = Numbers::new(seed);
    (0..TRACE)
        .map(|_| {
            let at = numbers.fraction() * sum;
            cumulative.partition_point(|&upto| upto < at) as u32
        })
        .collect()
}

/// Latencies, in buckets that are 4 % wide.
pub(super) struct Histogram([u64; 600]);

const WIDTH: f64 = 0.04;

impl Default for Histogram {
    fn default() -> Self {
        Self([0; 600])
    }
}

impl Histogram {
    fn count_in(&mut self, latency: Duration) {
        let bucket = ((latency.as_nanos() as f64).max(1.0).ln() / WIDTH) as usize;
        self.0[bucket.min(599)] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, other)| *own += other);
    }

    fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// In microseconds.
    pub(super) fn quantile(&self, of_all: f64) -> f64 {
        let mut left = self.count() as f64 * of_all;
        let bucket = self.0.iter().position(|&count| {
            left -= count as f64;
            left <= 0.0
        });
        ((bucket.unwrap_or(599) as f64 + 0.5) * WIDTH).exp() / 1e3
    }

    fn say(&self) -> String {
        self.0.map(|count| count.to_string()).join(" ")
    }

    pub(super) fn said<'a>(words: impl Iterator<Item = &'a str>) -> Self {
        let mut histogram = Self::default();
        for (bucket, word) in histogram.0.iter_mut().zip(words) {
            *bucket = word.parse().expect("a number");
        }
        histogram
    }
}
