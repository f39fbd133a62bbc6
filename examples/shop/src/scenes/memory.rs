//! L1 is bounded, by entries or by weight, for any sequence of requests.

use lazy_layers_cache::L1Options;

use super::{Outcome, Pages};
use crate::{
    catalogue::PRODUCTS,
    database::{Database, Page},
    screen::{count, progress, scene, table},
};

const MOST_ENTRIES: usize = 2_000;
const MOST_BYTES: u64 = 1024 * 1024;

pub(crate) async fn play(database: &Database) -> Outcome {
    scene(
        6,
        "A crawler reads the whole shop",
        &format!(
            "The crawler requests each of the {} pages once, through two small caches.",
            count(PRODUCTS)
        ),
    );
    let by_entries = Pages::builder().l1(L1Options::default().max_entries(MOST_ENTRIES)).build()?;
    let by_weight = Pages::builder()
        .l1(L1Options::default().max_weight(MOST_BYTES))
        .weigher(|_, page: &Page| page.bytes())
        .build()?;
    let mut most = (0, 0);
    for product in 0..PRODUCTS {
        let database = database.clone();
        let load = move || async move { database.page(product).await };
        if let Some(page) = by_entries.get_or_set(&product, load).await? {
            by_weight.set(&product, page).await?;
        }
        if product % 500 == 0 {
            progress(&format!("{} pages read", count(product)));
            most.0 = most.0.max(by_entries.stats().l1_entries);
            most.1 = most.1.max(by_weight.stats().l1_weight);
        }
    }
    let (entries, weight) = (by_entries.stats(), by_weight.stats());
    table(
        &["limit", "maximum", "at the end", "evicted"],
        &[
            vec![
                format!("{} entries", count(MOST_ENTRIES as u64)),
                format!("{} entries", count(most.0.max(entries.l1_entries))),
                format!("{} entries", count(entries.l1_entries)),
                count(entries.l1_evictions),
            ],
            vec![
                format!("{} bytes", count(MOST_BYTES)),
                format!("{} bytes", count(most.1.max(weight.l1_weight))),
                format!("{} entries", count(weight.l1_entries)),
                count(weight.l1_evictions),
            ],
        ],
    );
    Ok(())
}
