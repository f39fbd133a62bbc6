//! The shop: three processes request products, popular ones more often, and one request in a
//! hundred changes a product. Ours, the two nearest peers, Redis alone and the floor, each on a
//! redis-server of its own, one after another in each round.

mod bare;
mod child;
mod contenders;
mod floor;
mod process;
mod workload;

use crate::{
    measure::median,
    redis_process::Server,
    report::Report,
    server_counters::{Counted, cpu_seconds},
};

pub(crate) use self::child::{CHILD, serve};
use self::{
    contenders::{AMALGAM, BARE, FLOOR, NAMES, OURS},
    process::Process,
    workload::{Changes, PROCESSES},
};

const ROUNDS: usize = 3;

/// The result of one contender in one round.
struct Seen {
    per_second: f64,
    /// In microseconds.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Per request, as the following fields.
    loads: f64,
    trips: f64,
    commands: f64,
    bytes: f64,
    cpu_micros: f64,
    redis_cpu_micros: f64,
    /// Changes that did not reach Redis, in all.
    failures: f64,
}

pub(crate) fn run(report: &mut Report) {
    for changes in [Changes::Any, Changes::Popular] {
        days(report, changes);
    }
}

fn days(report: &mut Report, changes: Changes) {
    let mut rounds: Vec<Vec<Seen>> = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((0..NAMES.len()).map(|contender| day(contender, changes)).collect());
    }
    let column = |at: usize, of: fn(&Seen) -> f64| {
        median(rounds.iter().map(|round| of(&round[at])).collect())
    };
    report.title(&format!(
        "a shop: 3 processes, Zipf 1.0 over 50,000 products, 1 % changes of {} products",
        changes.say()
    ));
    report.line(&format!(
        "{:<24} {:>10} {:>8} {:>8} {:>8} {:>8} {:>7} {:>9} {:>6} {:>7} {:>9}",
        "",
        "requests/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "loads",
        "reads",
        "commands",
        "bytes",
        "CPU us",
        "Redis CPU"
    ));
    for (at, name) in NAMES.iter().enumerate() {
        report.line(&format!(
            "{name:<24} {:>10.0} {:>8.1} {:>8.0} {:>8.0} {:>8.4} {:>7.3} {:>9.3} {:>6.0} {:>7.2} \
             {:>9.2}",
            column(at, |seen| seen.per_second),
            column(at, |seen| seen.p50),
            column(at, |seen| seen.p99),
            column(at, |seen| seen.p999),
            column(at, |seen| seen.loads),
            column(at, |seen| seen.trips),
            column(at, |seen| seen.commands),
            column(at, |seen| seen.bytes),
            column(at, |seen| seen.cpu_micros),
            column(at, |seen| seen.redis_cpu_micros),
        ));
        report.bar(name, column(at, |seen| seen.per_second));
    }
    let failures: Vec<f64> = (0..NAMES.len()).map(|at| column(at, |seen| seen.failures)).collect();
    report.line(&format!("changes whose delete failed, in this order: {failures:?}"));
    // Ratios to the faster of the peers with two tiers.
    let speed = |at: &usize| column(*at, |seen| seen.per_second);
    let tiers = (0..NAMES.len()).filter(|at| ![BARE, OURS, FLOOR].contains(at));
    let nearest = tiers.max_by(|one, other| speed(one).total_cmp(&speed(other)));
    let nearest = nearest.expect("two peers");
    let ratio = |at: usize, base: usize, of: fn(&Seen) -> f64| {
        median(rounds.iter().map(|round| of(&round[at]) / of(&round[base])).collect())
    };
    let to = |of: fn(&Seen) -> f64| ratio(OURS, nearest, of);
    let name = NAMES[nearest];
    let amalgam = ratio(OURS, AMALGAM, |seen| seen.per_second);
    report.line(&format!("requests/s to amalgam: {amalgam:.1}x"));
    let floor = ratio(FLOOR, nearest, |seen| seen.per_second);
    report.line(&format!("requests/s of the floor to {name}: {floor:.2}x"));
    report.at_least(&format!("requests/s to {name}"), to(|seen| seen.per_second), 2.0);
    report.at_most(&format!("p99.9 to {name}"), to(|seen| seen.p999), 1.0);
    report.at_most(&format!("Redis commands a request to {name}"), to(|seen| seen.commands), 1.0);
    report.at_most(&format!("bytes a request to {name}"), to(|seen| seen.bytes), 1.0);
    report.bars(&format!("shop-{}", changes.say()), "requests/s");
    report.note(
        "Everything but the latencies is per request: reads are those of the server from its \
         clients (many requests may share one), commands those that it ran, scripts' own included. \
         Each process has one worker thread and 128 \
         tasks that ask one after the other, after a warm-up that is not counted; memory holds \
         10,000 of the 50,000 products (about 450 bytes of MessagePack each); the database takes \
         2 ms. A change deletes the key from the cache. Ours sends loaded values to the other \
         processes, by default; amalgam has its L2, its markers and its backplane, multi-tier its \
         invalidation by Pub/Sub, and decodes MessagePack on each hit; Redis alone coalesces \
         nothing and has no memory; the floor is quick_cache, the bare client and Pub/Sub, which \
         promise nothing. More requests a second mean more changes a second too. Each load of ours \
         takes a lease, and a script stores its value only if no change came between; multi-tier \
         stores without asking.",
    );
    report.end();
}

/// Runs one contender.
fn day(contender: usize, changes: Changes) -> Seen {
    let server = Server::start();
    let url = server.url();
    let start = |number: usize| Process::start(contender, &url, number, changes);
    let mut processes: Vec<Process> = (0..PROCESSES).map(start).collect();
    processes.iter_mut().for_each(Process::ready);
    let before = (Counted::at(&server), cpu_of_all(&processes));
    processes.iter_mut().for_each(Process::open);
    let reports: Vec<_> = processes.iter_mut().map(Process::report).collect();
    let after = (Counted::at(&server), cpu_of_all(&processes));
    let requests: f64 = reports.iter().map(|report| report.requests).sum();
    let counted = |of: fn(&Counted) -> f64| (of(&after.0) - of(&before.0)) / requests;
    let latencies = reports.iter().fold(child::Histogram::default(), |mut all, report| {
        all.add(&report.latencies);
        all
    });
    Seen {
        per_second: reports.iter().map(|report| report.requests / report.seconds).sum(),
        p50: latencies.quantile(0.5),
        p99: latencies.quantile(0.99),
        p999: latencies.quantile(0.999),
        loads: reports.iter().map(|report| report.loads).sum::<f64>() / requests,
        trips: counted(|counted| counted.trips),
        commands: counted(|counted| counted.commands),
        bytes: counted(|counted| counted.bytes),
        cpu_micros: (after.1 - before.1) * 1e6 / requests,
        failures: reports.iter().map(|report| report.failures).sum(),
        redis_cpu_micros: counted(|counted| counted.cpu_seconds) * 1e6,
    }
}

fn cpu_of_all(processes: &[Process]) -> f64 {
    processes.iter().map(|process| cpu_seconds(process.id())).sum()
}
