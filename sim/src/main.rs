//! `sim [--seeds n] [--from n] [--calls n] [--threads n] [--for seconds] [--only digits]
//! [--continue 1]` or `sim --seed n [--calls n]`: see `scripts/simulate`.

#![expect(clippy::expect_used, clippy::panic, reason = "a simulation that cannot go on may stop")]

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use sim::{check::check, history::Violation, plan::Plan, run, shrink::shrink};

struct Args {
    from: u64,
    seeds: u64,
    calls: usize,
    threads: usize,
    /// Run only this seed, and print its history.
    seed: Option<u64>,
    /// The digits of the rules that count; 0: all rules.
    only: u64,
    /// Whether to continue after a failure.
    continue_after_failure: bool,
    /// No history starts after this.
    limit: Duration,
}

fn args() -> Args {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limit = Duration::MAX;
    let mut args = Args {
        from: 0,
        seeds: 2_000,
        calls: 2_000,
        threads,
        seed: None,
        only: 0,
        continue_after_failure: false,
        limit,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let number: u64 = words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("{name} what?"));
        match &*name {
            "--from" => args.from = number,
            "--seeds" => args.seeds = number,
            "--calls" => args.calls = usize::try_from(number).expect("a number"),
            "--threads" => args.threads = usize::try_from(number).expect("a number"),
            "--seed" => args.seed = Some(number),
            "--only" => args.only = number,
            "--continue" => args.continue_after_failure = number > 0,
            "--for" => args.limit = Duration::from_secs(number),
            _ => panic!("there is no {name}"),
        }
    }
    args
}

fn main() -> ExitCode {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&"as the plan wants") {
            before(panic);
        }
    }));
    let args = args();
    if let Some(seed) = args.seed {
        return replay(seed, args.calls);
    }
    let begun = Instant::now();
    let (next, done, calls) = (AtomicU64::new(args.from), AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while (args.continue_after_failure || !failed.load(Ordering::Relaxed))
                    && begun.elapsed() < args.limit
                {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds {
                        return;
                    }
                    let history = run(&Plan::new(seed, args.calls));
                    done.fetch_add(1, Ordering::Relaxed);
                    calls.fetch_add(history.calls, Ordering::Relaxed);
                    let violations = check(&history);
                    let counts = |violation: &&Violation| {
                        let only = args.only.to_string();
                        args.only == 0 || only.chars().any(|it| violation.rule.ends_with(it))
                    };
                    if let Some(first) = violations.iter().find(counts) {
                        if args.continue_after_failure || !failed.load(Ordering::Relaxed) {
                            report(seed, args.calls, first);
                        }
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!(
        "{} histories, {} calls, {:.1} s",
        done.load(Ordering::Relaxed),
        calls.load(Ordering::Relaxed),
        begun.elapsed().as_secs_f64()
    );
    if failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(seed: u64, calls: usize, violation: &Violation) {
    println!("seed {seed} breaks {} at {} ms:\n  {}", violation.rule, violation.at, violation.how);
    println!("replay: cargo run --release -p sim -- --seed {seed} --calls {calls}");
}

/// Runs one seed; if it fails, shrinks its plan and prints what happened.
fn replay(seed: u64, calls: usize) -> ExitCode {
    let plan = Plan::new(seed, calls);
    println!("{:?}", plan.setup);
    let history = run(&plan);
    println!("digest {:016x}, {} calls", history.digest(), history.calls);
    let violations = check(&history);
    let Some(first) = violations.first() else { return ExitCode::SUCCESS };
    report(seed, calls, first);
    println!("and {} more; shrinking", violations.len() - 1);
    let shorter = shrink(&plan, &first.rule);
    for step in &shorter.steps {
        println!("  {:>7} {:?}", step.at, step.action);
    }
    let history = run(&shorter);
    for violation in check(&history) {
        println!("{} at {} ms: {}", violation.rule, violation.at, violation.how);
    }
    for read in &history.reads {
        println!("{read:?}");
    }
    for (number, change) in history.changes.iter().enumerate() {
        println!("change {number}: {change:?}");
    }
    for (number, write) in history.writes.iter().enumerate() {
        println!("write {number}: {write:?}");
    }
    ExitCode::FAILURE
}
