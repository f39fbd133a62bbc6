//! A cache in memory: two callers share one load, later calls are hits, a delete makes the next
//! call load again.
//!
//!     cargo run --example quickstart

use std::{error::Error, io, time::Duration};

use lazy_layers_cache::LazyLayersCache;

/// Stands for a query of your database.
async fn find_user(id: u64) -> Result<String, io::Error> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(format!("user {id}"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let users = LazyLayersCache::<u64, String>::builder().ttl(Duration::from_secs(60)).build()?;

    let first = users.get_or_set(&7, || find_user(7));
    let second = users.get_or_set(&7, || find_user(7));
    let (first, second) = tokio::try_join!(first, second)?;
    println!("two callers got {first:?} and {second:?} from {} load", users.stats().loads);

    let hit = users.get_or_set(&7, || find_user(7)).outcome().await?;
    println!("the next call got {:?} from {:?}", hit.value, hit.source);

    // After a change: commit it to the database first, then delete the key here.
    users.delete(&7).await?;
    let fresh = users.get_or_set(&7, || find_user(7)).outcome().await?;
    println!("after the delete, the value came from {:?}", fresh.source);
    Ok(())
}
