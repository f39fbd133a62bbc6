//! Hit ratios of the eviction policies on generated traces, measured through each cache's own API.

use std::num::NonZero;

use lazy_layers_cache::{L1Options, LazyLayersCache};

use crate::{measure::Numbers, report::Report};

const REQUESTS: usize = 1_000_000;
const KEYS: usize = 500_000;
const CAPACITY: usize = 10_000;

pub(crate) fn run(report: &mut Report) {
    report.title("hit ratio in %, 1,000,000 requests, room for 10,000 of 500,000 keys");
    report.line(&format!(
        "{:<24} {:>12} {:>12} {:>12} {:>12}",
        "trace", "lazy-layers", "quick_cache", "moka", "plain LRU"
    ));
    for (name, exponent, scans) in
        [("zipf 0.9", 0.9, false), ("zipf 1.1", 1.1, false), ("zipf 0.9 with scans", 0.9, true)]
    {
        let trace = trace(exponent, scans);
        let (ours, quick, moka, lru) = (ours(&trace), quick(&trace), moka(&trace), lru(&trace));
        report.line(&format!("{name:<24} {ours:>12.2} {quick:>12.2} {moka:>12.2} {lru:>12.2}"));
        report.check(
            &format!("{name}: within 0.5 points of quick_cache and above LRU"),
            ours >= quick - 0.5 && ours > lru,
        );
    }
    report.end();
}

/// Zipf-distributed keys; with scans, 20,000 keys that are requested once after each 80,000.
fn trace(exponent: f64, scans: bool) -> Vec<usize> {
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=KEYS)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut numbers = Numbers::new(42);
    let mut next_scanned = KEYS;
    (0..REQUESTS)
        .map(|at| {
            if scans && at % 100_000 >= 80_000 {
                next_scanned += 1;
                return next_scanned;
            }
            let at = numbers.fraction() * sum;
            cumulative.partition_point(|&upto| upto < at)
        })
        .collect()
}

fn percent(hits: usize) -> f64 {
    hits as f64 / REQUESTS as f64 * 100.0
}

fn ours(trace: &[usize]) -> f64 {
    let cache = LazyLayersCache::<u64, ()>::builder()
        .l1(L1Options::default().max_entries(CAPACITY))
        .build()
        .expect("valid options");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for &key in trace {
            cache.get_or_set(&(key as u64), || async { Ok::<_, String>(()) }).await.expect("loads");
        }
    });
    percent(REQUESTS - cache.stats().loads as usize)
}

fn quick(trace: &[usize]) -> f64 {
    let cache = quick_cache::sync::Cache::<u64, ()>::new(CAPACITY);
    percent(count_hits(trace, |key| cache.get(&key).is_some(), |key| cache.insert(key, ())))
}

fn moka(trace: &[usize]) -> f64 {
    let cache = moka::sync::Cache::<u64, ()>::new(CAPACITY as u64);
    percent(count_hits(trace, |key| cache.get(&key).is_some(), |key| cache.insert(key, ())))
}

fn lru(trace: &[usize]) -> f64 {
    let cache = lru::LruCache::new(NonZero::new(CAPACITY).expect("not zero"));
    let cache = std::cell::RefCell::new(cache);
    percent(count_hits(
        trace,
        |key| cache.borrow_mut().get(&key).is_some(),
        |key| {
            cache.borrow_mut().put(key, ());
        },
    ))
}

fn count_hits(trace: &[usize], get: impl Fn(u64) -> bool, insert: impl Fn(u64)) -> usize {
    let hit = |key: u64| {
        get(key) || {
            insert(key);
            false
        }
    };
    trace.iter().filter(|&&key| hit(key as u64)).count()
}
