//! The same traffic without a cache and with one.

use super::{Outcome, Pages};
use crate::{
    catalogue::PRODUCTS,
    database::Database,
    screen::{count, percent, progress, scene, table, time},
    traffic::{READERS, Seen, Until, Zipf, read},
};

const REQUESTS: usize = 100_000;

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        1,
        "A busy day",
        &format!(
            "{READERS} readers make {} requests; some products are far more popular than others.",
            count(REQUESTS)
        ),
    );
    if let Some(page) = database.page(7).await? {
        println!("   A page: {page}");
    }
    let zipf = Zipf::new(PRODUCTS, 1.0);
    database.take_queries();

    progress("without a cache");
    let direct = database.clone();
    let without = read(&zipf, Until::Requests(REQUESTS), move |product| {
        let database = direct.clone();
        async move { database.page(product).await.map(drop) }
    })
    .await;
    let queries_without = database.take_queries();

    progress("with a cache");
    let cache = Pages::builder().build()?;
    let (pages, origin) = (cache.clone(), database.clone());
    let with = read(&zipf, Until::Requests(REQUESTS), move |product| {
        let (pages, origin) = (pages.clone(), origin.clone());
        async move {
            pages
                .get_or_set(&product, move || async move { origin.page(product).await })
                .await
                .map(drop)
        }
    })
    .await;
    let queries_with = database.take_queries();

    let row = |name: &str, seen: &Seen, queries: u64| {
        let hit_ratio = 1.0 - queries as f64 / seen.requests as f64;
        vec![
            name.to_owned(),
            count(queries),
            percent(hit_ratio),
            time(seen.latency(0.5)),
            time(seen.latency(0.99)),
            count(seen.per_second()),
        ]
    };
    table(
        &["", "database queries", "answered from memory", "p50", "p99", "requests/s"],
        &[
            row("without a cache", &without, queries_without),
            row("with the cache", &with, queries_with),
        ],
    );
    println!(
        "   The cache holds 10,000 of the {} pages and serves {:.1} times the requests per second.",
        count(PRODUCTS),
        with.per_second() as f64 / without.per_second() as f64,
    );
    Ok(())
}
