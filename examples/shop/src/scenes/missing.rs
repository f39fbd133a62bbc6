//! Repeated requests for products that do not exist.

use std::time::Duration;

use lazy_layers_cache::NegativeCache;

use super::{Outcome, Pages};
use crate::{
    catalogue::PRODUCTS,
    database::Database,
    screen::{count, progress, scene, table},
};

const LINKS: u64 = 50;
const ROUNDS: u64 = 200;

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        3,
        "Dead links",
        &format!("A crawler follows {LINKS} links to products that do not exist, {ROUNDS} times."),
    );
    let mut rows = Vec::new();
    for (name, negative) in [
        ("without negative caching", NegativeCache::default()),
        ("with negative caching", NegativeCache::enabled().ttl(Duration::from_secs(60))),
    ] {
        progress(name);
        let cache = Pages::builder().negative_cache(negative).build()?;
        database.take_queries();
        let mut found = 0u64;
        for product in (0..ROUNDS).flat_map(|_| PRODUCTS..PRODUCTS + LINKS) {
            let database = database.clone();
            let load = move || async move { database.page(product).await };
            found += u64::from(cache.get_or_set(&product, load).await?.is_some());
        }
        rows.push(vec![
            name.to_owned(),
            count(LINKS * ROUNDS),
            count(found),
            count(database.take_queries()),
            count(cache.stats().negative_hits),
        ]);
    }
    table(&["", "requests", "found", "database queries", "answered from memory"], &rows);
    Ok(())
}
