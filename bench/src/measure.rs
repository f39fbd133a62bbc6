//! Interleaved rounds: each contender once per round, so that a slow minute slows all of them. And
//! measures of memory, each in a process of its own.

use std::{process::Command, sync::Arc, time::Instant};

use tokio::runtime::Runtime;

/// A contender: a name, and a function that makes a number of operations on one thread.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn(usize) + Sync + 'a>,
}

impl<'a> Contender<'a> {
    /// `walk` gets the number of its thread.
    pub(crate) fn new(name: &'static str, walk: impl Fn(usize) + Sync + 'a) -> Self {
        Self { name, run: Box::new(walk) }
    }
}

/// The result of one contender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// The median over the rounds: for `rounds`, nanoseconds per operation and thread.
    pub(crate) median: f64,
    /// The median of its ratio to the base in the same round: steadier than a ratio of medians
    /// where the machine's speed drifts.
    pub(crate) ratio: f64,
}

/// Runs every contender once per round, on `threads` threads.
pub(crate) fn rounds(
    contenders: &[Contender<'_>],
    base: usize,
    threads: usize,
    operations: usize,
    rounds: usize,
) -> Vec<Figure> {
    figures(&sampled(contenders, threads, operations, rounds), base)
}

/// As [`rounds`], with the figures of each round: one row per contender.
pub(crate) fn sampled(
    contenders: &[Contender<'_>],
    threads: usize,
    operations: usize,
    rounds: usize,
) -> Vec<Vec<f64>> {
    let mut samples = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for (contender, samples) in contenders.iter().zip(&mut samples) {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || (contender.run)(thread));
                }
            });
            // The first round warms up.
            if round > 0 {
                samples.push(begun.elapsed().as_nanos() as f64 / operations as f64);
            }
        }
    }
    samples
}

/// The figures of samples taken in rounds, one row per contender.
pub(crate) fn figures(samples: &[Vec<f64>], base: usize) -> Vec<Figure> {
    let figure =
        |row: &Vec<f64>| Figure { median: median(row.clone()), ratio: ratio(row, &samples[base]) };
    samples.iter().map(figure).collect()
}

/// The median of the ratios of the same round.
pub(crate) fn ratio(own: &[f64], base: &[f64]) -> f64 {
    median(own.iter().zip(base).map(|(own, base)| own / base).collect())
}

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a future on a runtime of its own, on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// A runtime with `threads` worker threads.
pub(crate) fn workers(threads: usize) -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(threads).enable_all().build().expect("a runtime")
}

/// Runs one of the measures of memory in a child process, and returns its figures. In this process
/// it would use memory that an earlier table has freed, and nothing would seem to grow.
pub(crate) fn in_a_process(measure: &str, argument: &str) -> Vec<f64> {
    let this = std::env::current_exe().expect("a path to this program");
    let output = Command::new(this).args([measure, argument]).output().expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    let figures: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    figures.ok().filter(|figures| !figures.is_empty()).unwrap_or_else(|| {
        panic!("{measure} {argument}: {text:?}, {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// Bytes of resident memory of this process (Linux).
pub(crate) fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux' /proc");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("pages in /proc/self/statm") * 4096.0
}

/// The value that every cache holds: about 100 bytes behind an `Arc`.
pub(crate) type Value = Arc<[u8; 100]>;

pub(crate) fn value() -> Value {
    Arc::new([7; 100])
}

pub(crate) fn key(number: usize) -> String {
    format!("product:{number:08}")
}

/// Pseudo-random numbers that are the same in each run (a linear congruential generator, taking
/// its upper bits).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: usize) -> Self {
        Self(seed as u64 ^ 0x9E37_79B9_7F4A_7C15)
    }

    #[inline]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    /// From 0 to below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}
