//! The database is slow: queries wait for a lock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{ErrorKind, FailSafe, Timeouts};

use super::{Outcome, Pages};
use crate::{
    database::Database,
    screen::{count, progress, scene, table, time},
    traffic::{Until, Zipf, read},
};

const SHOWN: u64 = 200;
const SOFT: Duration = Duration::from_millis(20);
const HARD: Duration = Duration::from_millis(1_500);
const LOCKED: Duration = Duration::from_millis(700);

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        5,
        "The database is slow",
        "A lock is held for 0.7 s of every second, so that queries wait instead of failing.",
    );
    database.wait_for_locks(Duration::from_secs(5)).await?;
    let zipf = Zipf::new(SHOWN, 0.8);
    let mut rows = Vec::new();
    for (name, timeouts) in [
        ("no timeouts", Timeouts::none()),
        ("soft timeout 20 ms", Timeouts::none().soft(SOFT).hard(HARD)),
    ] {
        progress(name);
        let cache = Pages::builder()
            .ttl(Duration::from_millis(200))
            .fail_safe(FailSafe::enabled())
            .timeouts(timeouts)
            .build()?;
        for product in 0..SHOWN {
            let database = database.clone();
            cache.get_or_set(&product, move || async move { database.page(product).await }).await?;
        }
        let lock = RepeatedLock::begin(database.clone());
        let (pages, origin) = (cache.clone(), database.clone());
        let seen = read(&zipf, Until::Elapsed(Duration::from_secs(3)), move |product| {
            let (pages, origin) = (pages.clone(), origin.clone());
            async move {
                let load = move || async move { origin.page(product).await };
                pages.get_or_set(&product, load).await.map(drop)
            }
        })
        .await;
        lock.end().await?;
        let stats = cache.stats();
        rows.push(vec![
            name.to_owned(),
            count(seen.requests),
            time(seen.latency(0.99)),
            time(seen.latency(1.0)),
            count(stats.stale_hits),
            count(stats.loads - stats.load_failures),
            count(seen.errors),
        ]);
    }
    table(&["", "requests", "p99", "slowest", "stale copies", "loads", "errors"], &rows);
    hard_timeout(database).await
}

/// A page that was never loaded has no stale copy, so the hard timeout applies.
async fn hard_timeout(database: &Database) -> Outcome {
    let limit = Duration::from_millis(300);
    let cache = Pages::builder().timeouts(Timeouts::none().hard(limit)).build()?;
    let lock = database.lock()?;
    let asked = Instant::now();
    let origin = database.clone();
    let answer = cache.get_or_set(&1, move || async move { origin.page(1).await }).await;
    let took = asked.elapsed();
    drop(lock);
    match answer {
        Err(error) if error.kind() == ErrorKind::HardTimeout => {
            println!(
                "   A page without a stale copy, hard timeout 300 ms: the call failed after {}:",
                time(took)
            );
            println!("   \"{error}\"");
            Ok(())
        }
        other => Err(format!("the hard timeout did not hold: {other:?}").into()),
    }
}

/// Locks the database again and again, in a task that `end` ends.
struct RepeatedLock {
    ended: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<(), rusqlite::Error>>,
}

impl RepeatedLock {
    fn begin(database: Database) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        // A blocking thread: the lock waits for running queries.
        let task = tokio::task::spawn_blocking(move || {
            while !stop.load(Ordering::Relaxed) {
                let lock = database.lock()?;
                std::thread::sleep(LOCKED);
                drop(lock);
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        });
        Self { ended, task }
    }

    async fn end(self) -> Outcome {
        self.ended.store(true, Ordering::Relaxed);
        Ok(self.task.await??)
    }
}
