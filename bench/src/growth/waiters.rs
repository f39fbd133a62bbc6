//! One cold key and 1 to 10,000 waiting callers.

use std::sync::{Arc, atomic::AtomicUsize};

use crate::{
    measure::{median, ratio, workers},
    plot::Line,
    report::Report,
    stampede::{Contenders, Load, NAMES, OURS, stampede},
};

const ROUNDS: usize = 7;

pub(super) fn run(report: &mut Report) {
    let runtime = workers(2);
    let mut lines =
        NAMES.map(|name| Line { name: name.replace(" (floor)", ""), points: Vec::new() });
    report.title("1 to 10,000 waiters for one load of 20 ms, ms until all have it");
    for waiters in [1, 10, 100, 1_000, 10_000] {
        let mut samples = vec![Vec::new(); NAMES.len()];
        for round in 0..ROUNDS {
            for (contender, samples) in samples.iter_mut().enumerate() {
                // The macro's cache is a static, so each round has keys of its own.
                let number = 1_000 * waiters + round;
                let contenders = Contenders::new(Load(Arc::new(AtomicUsize::new(0))), number);
                let took = runtime.block_on(stampede(contender, contenders, waiters));
                samples.push(took.as_secs_f64() * 1e3);
            }
        }
        for (line, row) in lines.iter_mut().zip(&samples) {
            line.points.push((waiters as f64, median(row.clone())));
        }
        let what = format!("{waiters:>6} waiters: lazy-layers to OnceCell");
        report.at_most(&what, ratio(&samples[OURS], &samples[0]), 1.3);
    }
    report.lines("growth-waiters", "waiters", "ms", &lines);
    report.note("As in the table of the stampede.");
    report.end();
}
