//! Ten thousand callers request one page that is not cached yet.

use std::time::Instant;

use super::{Outcome, Pages};
use crate::{
    database::Database,
    screen::{count, scene, table, time},
};

const CALLERS: usize = 10_000;

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        2,
        "A product in the news",
        &format!(
            "{} callers request one page at the same time; it is not cached yet.",
            count(CALLERS)
        ),
    );
    let cache = Pages::builder().build()?;
    database.take_queries();
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (cache, database) = (cache.clone(), database.clone());
            tokio::spawn(async move {
                cache.get_or_set(&7, move || async move { database.page(7).await }).await.is_ok()
            })
        })
        .collect();
    let mut answered = 0;
    for caller in callers {
        answered += usize::from(caller.await?);
    }
    let stats = cache.stats();
    table(
        &["callers", "answered", "joined the load", "L1 hits", "database queries", "took"],
        &[vec![
            count(CALLERS),
            count(answered),
            count(stats.joined),
            count(stats.l1_hits),
            count(database.take_queries()),
            time(begun.elapsed()),
        ]],
    );
    Ok(())
}
