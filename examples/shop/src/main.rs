//! A shop with a real database, a cache in front, and readers: what the cache does for it on a
//! good day and on bad ones. Every number that is printed was measured in this run.
//!
//! `cargo run --release -p shop`, and with Redis as the level that two processes share
//! `cargo run --release -p shop -- redis`

mod catalogue;
mod database;
mod fleet;
mod scenes;
mod screen;
mod traffic;

use std::{error::Error, time::Instant};

use database::Database;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => shop().await,
        ["redis"] => fleet::play().await,
        [fleet::CHILD, folder, place] => fleet::child(folder, place).await,
        _ => Err("write nothing, or `redis`".into()),
    }
}

async fn shop() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    screen::banner("lazy-layers-cache: a shop with 50,000 products and a cache in front");
    let folder = tempfile::tempdir()?;
    let database = Database::create(folder.path())?;

    scenes::busy_day::play(&database).await?;
    scenes::stampede::play(&database).await?;
    scenes::missing::play(&database).await?;
    scenes::outage::play(&database).await?;
    scenes::slow_day::play(&database).await?;
    scenes::memory::play(&database).await?;

    println!(
        "\nAll of it in {:.0} s, measured just now on this machine.",
        begun.elapsed().as_secs_f64()
    );
    println!("Read on: README.md, or the code of these scenes in examples/shop/src/scenes/.");
    Ok(())
}
