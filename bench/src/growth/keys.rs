//! A hit among 1,000 to 10,000,000 keys, beside quick_cache that holds the same.

use std::hint::black_box;

use super::{ASKED, filled};
use crate::{
    measure::{Contender, Numbers, key, median, ratio, sampled, value},
    plot::Line,
    report::Report,
};

const WALK: usize = 100_000;
const ROUNDS: usize = 15;

pub(super) fn run(report: &mut Report) {
    let mut lines = ["quick_cache get", "lazy-layers get_l1"]
        .map(|name| Line { name: name.to_owned(), points: Vec::new() });
    report.title("a hit among 1,000 to 10,000,000 keys, ns");
    for power in 3..=7 {
        let resident = 10_usize.pow(power);
        let ours = crate::measure::block_on(filled(resident));
        let quick = quick_cache::sync::Cache::<String, _>::new(resident * 2);
        (0..resident).for_each(|number| quick.insert(key(number), value()));
        // Spread over all keys.
        let asked: Vec<String> = (0..ASKED).map(|at| key(at * resident / ASKED)).collect();
        let (asked, quick, ours) = (&asked, &quick, &ours);
        let contenders = [
            Contender::new("quick_cache", |thread| {
                let mut numbers = Numbers::new(thread);
                for _ in 0..WALK {
                    let key = asked[numbers.below(ASKED)].as_str();
                    black_box(quick.get(key).expect("resident"));
                }
            }),
            Contender::new("ours", |thread| {
                let mut numbers = Numbers::new(thread);
                for _ in 0..WALK {
                    let key = asked[numbers.below(ASKED)].as_str();
                    black_box(ours.get_l1(key).expect("resident"));
                }
            }),
        ];
        let samples = sampled(&contenders, 1, WALK, ROUNDS);
        let medians = [0, 1].map(|at: usize| median(samples[at].clone()));
        for (line, median) in lines.iter_mut().zip(medians) {
            line.points.push((resident as f64, median));
        }
        let what = format!(
            "{resident:>10} keys: quick_cache {:>7.1} ns, lazy-layers {:>7.1} ns",
            medians[0], medians[1]
        );
        report.at_most(&what, ratio(&samples[1], &samples[0]), 1.5);
    }
    report.lines("growth-keys", "keys in memory", "ns a hit", &lines);
    report.note("256 keys are asked for, spread over all; quick_cache's entries have no time.");
    report.end();
}
