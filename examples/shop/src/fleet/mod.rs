//! Two processes of the shop and one Redis: a page that one of them loaded serves the other.

mod process;
mod redis;

use std::{
    error::Error,
    time::{Duration, Instant},
};

pub(crate) use self::process::{CHILD, child};
use self::{
    process::{ALONE, Process, Report},
    redis::Redis,
};
use crate::{
    database::Database,
    screen::{banner, count, percent, progress, scene, table, time},
    traffic::READERS,
};

const REQUESTS: usize = 40_000;
/// The requests of the process in scene 2.
const FIRST: usize = REQUESTS / 4;
/// The time to live of a page in L1, in scene 3.
const MEMORY: Duration = Duration::from_secs(1);
const PRODUCT: u64 = 7;

type Outcome = Result<(), Box<dyn Error>>;

/// The parent: starts copies of this program, which make the requests.
pub(crate) async fn play() -> Outcome {
    let begun = Instant::now();
    let redis = Redis::find()?;
    banner("lazy-layers-cache: two processes of a shop, and one Redis");
    println!("   Redis: {}", redis.description());
    let folder = tempfile::tempdir()?;
    let database = Database::create(folder.path())?;
    let start = |place: &str| Process::start(folder.path(), place);

    scene(
        1,
        "Two processes on a busy day",
        &format!(
            "Each has {READERS} readers, which make {} requests; its L1 holds 10,000 pages.",
            count(REQUESTS)
        ),
    );
    progress("each with its own memory only");
    let mut alone = [start(ALONE)?, start(ALONE)?];
    let alone_seen = busy(&mut alone)?;
    progress("with Redis");
    let mut together = [start(redis.url())?, start(redis.url())?];
    let together_seen = busy(&mut together)?;
    let rows = [("memory only", &alone_seen), ("with Redis", &together_seen)];
    let rows = rows.iter().flat_map(|(name, seen)| {
        let row = |at: usize, report| row(&format!("{name}, process {}", at + 1), report);
        seen.iter().enumerate().map(move |(at, report)| row(at, report)).collect::<Vec<_>>()
    });
    table(&COLUMNS, &rows.collect::<Vec<_>>());
    let loads = |seen: &[Report; 2]| seen.iter().map(|report| report.loads).sum::<u64>();
    println!(
        "   Database loads of both processes: {} with memory only, {} with Redis.",
        count(loads(&alone_seen)),
        count(loads(&together_seen)),
    );

    scene(
        2,
        "A new process starts",
        &format!("Its L1 is empty. It makes the first {} requests of process 1.", count(FIRST)),
    );
    progress("a cold start");
    let (mut cold, mut warm) = (start(ALONE)?, start(redis.url())?);
    let rows =
        [row("memory only", &cold.read(0, FIRST)?), row("on a warm Redis", &warm.read(0, FIRST)?)];
    table(&COLUMNS, &rows);

    scene(
        3,
        "A price changes",
        "Process 1 calls delete or set; the L1 of process 2 may keep the old page for 1 s.",
    );
    let [writer, reader] = &mut together;
    let mut rows = Vec::new();
    for (price, verb) in [(1_111, "delete"), (2_222, "set")] {
        let before = reader.price(PRODUCT)?;
        database.reprice(PRODUCT, price).await?;
        let changed = Instant::now();
        if verb == "delete" {
            writer.delete(PRODUCT)?;
        } else {
            writer.set(PRODUCT)?;
        }
        let at_writer = writer.price(PRODUCT)?;
        let at_once = reader.price(PRODUCT)?;
        let mut now = at_once.clone();
        while now.0 != price {
            if changed.elapsed() > 10 * MEMORY {
                return Err("process 2 never read the new price".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            now = reader.price(PRODUCT)?;
        }
        let text = |(price, source): &(u64, String)| format!("{price} ({source})");
        rows.push(vec![
            verb.to_owned(),
            text(&before),
            text(&at_writer),
            text(&at_once),
            text(&now),
            time(changed.elapsed()),
        ]);
    }
    table(
        &["process 1 calls", "2 had", "1 reads", "2 reads at once", "2 reads later", "after"],
        &rows,
    );
    println!("   Process 1 never serves the old price again, and no process reads it from Redis.");
    println!("   Process 2 serves it until its L1 entry expires. An event bus deletes the entry.");

    let keys = warm.clear()?;
    println!(
        "\nThe {} pages were removed from Redis. The tour took {:.0} s, all measured in this run.",
        count(keys),
        begun.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// Runs both processes at the same time, each with readers of its own.
fn busy(processes: &mut [Process; 2]) -> Result<[Report; 2], Box<dyn Error>> {
    let [one, two] = processes;
    one.begin_to_read(0, REQUESTS)?;
    two.begin_to_read(1, REQUESTS)?;
    Ok([one.report()?, two.report()?])
}

const COLUMNS: [&str; 7] =
    ["", "database loads", "from memory", "from Redis", "p50", "p99", "requests/s"];

fn row(name: &str, report: &Report) -> Vec<String> {
    let share = |hits: u64| percent(hits as f64 / report.requests as f64);
    vec![
        name.to_owned(),
        count(report.loads),
        share(report.l1_hits),
        share(report.l2_hits),
        time(Duration::from_nanos(report.p50)),
        time(Duration::from_nanos(report.p99)),
        count(report.per_second),
    ]
}
