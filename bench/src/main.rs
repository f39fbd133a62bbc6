//! The figures: this cache beside its peers, in one process, interleaved, as medians and ratios.
//!
//! `cargo run --release -p bench` runs all of it; names of tables after `--` run those only.
//! Tables of the shared level need the program redis-server, and `payloads` python3, whose zlib is
//! the one in C.
//! A ratio with a limit that does not hold is marked, and the exit code says so.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a bench that cannot run may stop"
)]

mod bus;
mod frozen;
mod growth;
mod hit;
mod listings;
mod measure;
mod memory;
mod miss;
mod payloads;
mod policy;
mod report;
mod server;
mod shared;
mod stampede;
mod trips;

use report::Report;

type Table = (&'static str, fn(&mut Report));

const TABLES: [Table; 11] = [
    ("hit", hit::run),
    ("miss", miss::run),
    ("stampede", stampede::run),
    ("memory", memory::run),
    ("policy", policy::run),
    ("growth", growth::run),
    ("bus", bus::run),
    ("shared", shared::run),
    ("trips", trips::run),
    ("payloads", payloads::run),
    ("frozen", frozen::run),
];

fn main() -> std::process::ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [child, what] = &wanted[..]
        && child == memory::CHILD
    {
        memory::hold(what);
        return std::process::ExitCode::SUCCESS;
    }
    if let Some(unknown) = wanted.iter().find(|name| !TABLES.iter().any(|(table, _)| table == name))
    {
        eprintln!("no table `{unknown}`; there are {:?}", TABLES.map(|(name, _)| name));
        return std::process::ExitCode::FAILURE;
    }
    println!("this cache beside quick_cache 0.7, moka 0.12 and lru 0.19");
    println!("{} processors; medians of interleaved rounds; lower is better\n", processors());
    let mut report = Report::default();
    for (name, run) in TABLES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run(&mut report);
        }
    }
    report.verdict()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
