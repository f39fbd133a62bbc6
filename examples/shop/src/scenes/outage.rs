//! The database fails for a while.

use std::time::Duration;

use lazy_layers_cache::{FailSafe, OriginHealth};

use super::{Outcome, Pages};
use crate::{
    database::Database,
    screen::{count, progress, scene, table, time},
    traffic::{Seen, Until, Zipf, read},
};

/// Products on display: few enough for all of them to be in L1 when the outage begins.
const SHOWN: u64 = 500;
const OUTAGE: Duration = Duration::from_secs(2);

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        4,
        "The database fails",
        "A migration locks it for 2 s, so that every query fails. Pages are fresh for 0.2 s.",
    );
    let zipf = Zipf::new(SHOWN, 0.8);
    let mut rows = Vec::new();
    for (name, fail_safe) in [
        ("without fail-safe", FailSafe::default()),
        ("with fail-safe", FailSafe::enabled().throttle(Duration::from_millis(500))),
    ] {
        progress(name);
        let cache =
            Pages::builder().ttl(Duration::from_millis(200)).fail_safe(fail_safe).build()?;
        let readers = |until| {
            let (cache, database) = (cache.clone(), database.clone());
            let zipf = &zipf;
            async move {
                read(zipf, until, move |product| {
                    let (cache, database) = (cache.clone(), database.clone());
                    async move {
                        let load = move || async move { database.page(product).await };
                        cache.get_or_set(&product, load).await.map(drop)
                    }
                })
                .await
            }
        };
        for product in 0..SHOWN {
            let database = database.clone();
            cache.get_or_set(&product, move || async move { database.page(product).await }).await?;
        }
        database.wait_for_locks(Duration::ZERO).await?;
        let lock = database.lock()?;
        database.take_queries();
        let during = readers(Until::Elapsed(OUTAGE)).await;
        let failing = matches!(cache.health().origin, OriginHealth::Failing { .. });
        drop(lock);
        rows.push(row(name, &during, database.take_queries(), cache.stats().stale_hits, failing));
        readers(Until::Elapsed(Duration::from_millis(600))).await;
        if cache.health().origin != OriginHealth::Answering {
            return Err("the cache did not notice that the database is back".into());
        }
    }
    table(&["", "requests", "errors", "stale served", "queries tried", "p99", "health"], &rows);
    println!(
        "   The cache retried each page once in 0.5 s, and loaded again when the lock was gone."
    );
    Ok(())
}

fn row(name: &str, seen: &Seen, queries: u64, stale: u64, failing: bool) -> Vec<String> {
    vec![
        name.to_owned(),
        count(seen.requests),
        count(seen.errors),
        count(stale),
        count(queries),
        time(seen.latency(0.99)),
        if failing { "failing" } else { "answering" }.to_owned(),
    ]
}
