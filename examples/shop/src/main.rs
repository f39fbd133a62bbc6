//! A shop with a real database, a cache in front of it, and readers: with and without faults. Every
//! printed number was measured in this run.
//!
//! `cargo run --release -p shop`, and for two processes that share a Redis
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
        _ => Err("unknown arguments: pass none, or `redis`".into()),
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
        "\nThe tour took {:.0} s. Every number was measured in this run, on this machine.",
        begun.elapsed().as_secs_f64()
    );
    println!("Read on: README.md, or the code of these scenes in examples/shop/src/scenes/.");
    Ok(())
}
