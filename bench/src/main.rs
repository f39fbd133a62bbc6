//! The figures: this cache beside its peers, in one process, interleaved, as medians and ratios.
//!
//! `cargo run --release -p bench` runs all tables; names of tables after `--` select tables, and
//! `--write <folder>` writes a page: `-- --write docs/figures` makes docs/figures.md and its
//! pictures. Tables of L2 need the program redis-server, and `payloads` needs python3, whose zlib
//! is the one in C. A ratio that exceeds its limit is marked and fails the program.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot run may stop"
)]

mod bus;
mod cancelled_load;
mod drop_probe;
mod growth;
mod hit;
mod l2_hit;
mod measure;
mod memory;
mod miss;
mod payloads;
mod peers;
mod plot;
mod policy;
mod redis_process;
mod redis_stalled;
mod report;
mod round_trips;
mod sample_payloads;
mod server_counters;
mod shop;
mod stampede;

use report::Report;

type Table = (&'static str, fn(&mut Report));

const TABLES: [Table; 14] = [
    ("hit", hit::run),
    ("miss", miss::run),
    ("abandoned", cancelled_load::run),
    ("stampede", stampede::run),
    ("memory", memory::run),
    ("policy", policy::run),
    ("growth", growth::run),
    ("bus", bus::run),
    ("caches", bus::run_caches),
    ("shared", l2_hit::run),
    ("trips", round_trips::run),
    ("shop", shop::run),
    ("payloads", payloads::run),
    ("frozen", redis_stalled::run),
];

/// What a child process measures, by its first argument.
type Measure = (&'static str, fn(&str) -> Vec<f64>);

const MEASURES: [Measure; 3] =
    [(memory::HOLD, memory::hold), (bus::BURST, bus::burst), (bus::EMPTY, bus::empty)];

const WRITE: &str = "--write";
const MADE_BY: &str = "Made by `cargo run --release -p bench -- --write docs/figures`, which makes \
     them again: on another machine, other figures. Only ratios within one table travel.";

fn main() -> std::process::ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [measure, argument] = &wanted[..]
        && let Some((_, run)) = MEASURES.iter().find(|(name, _)| name == measure)
    {
        run(argument).iter().for_each(|figure| println!("{figure}"));
        return std::process::ExitCode::SUCCESS;
    }
    if let [child, contender, url, number, changes] = &wanted[..]
        && child == shop::CHILD
    {
        shop::serve(contender, url, number, changes);
        return std::process::ExitCode::SUCCESS;
    }
    let folder = wanted.iter().position(|word| word == WRITE).map(|at| {
        wanted.remove(at);
        assert!(at < wanted.len(), "a folder belongs behind {WRITE}");
        wanted.remove(at)
    });
    if let Some(unknown) = wanted.iter().find(|name| !TABLES.iter().any(|(table, _)| table == name))
    {
        eprintln!("no table `{unknown}`; there are {:?}", TABLES.map(|(name, _)| name));
        return std::process::ExitCode::FAILURE;
    }
    let preface = format!(
        "lazy-layers-cache beside {}. {} processors; medians of interleaved rounds; lower is \
         better unless it says otherwise.",
        peers::versions(),
        processors(),
    );
    println!("{preface}\n");
    let mut report = Report::default();
    for (name, run) in TABLES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run(&mut report);
        }
    }
    if let Some(folder) = folder {
        report.write(folder.as_ref(), &format!("{MADE_BY}\n\n{preface}"));
    }
    report.verdict()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
