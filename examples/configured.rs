//! The caches of a service from a configuration file, with environment variables over it.
//!
//!     SHOP__CACHES__USERS__TTL=1m cargo run --example configured
//!
//! It runs without Redis too: the caches then use their memory, and Redis as soon as it answers.

use std::error::Error;

use config::{Config, Environment, File, FileFormat};
use lazy_layers_cache::{CacheManager, LazyLayersCache, ManagerOptions};

/// The caches of the service. A manager keeps no cache alive: its service does.
struct Caches {
    manager: CacheManager,
    users: LazyLayersCache<u64, String>,
    prices: LazyLayersCache<str, f64>,
}

/// Reads the file, and over it variables such as `SHOP__REDIS__URL`. Two underscores separate the
/// names of sections and options, which contain single ones; they stand behind the prefix too, so
/// that `SHOP_PORT`, which Kubernetes sets for a Service named `shop`, is no section. The values
/// stay texts: the options turn them into numbers, so a password of digits remains what it is.
fn read(file: &str, environment: Environment) -> Result<ManagerOptions, Box<dyn Error>> {
    let variables = environment.prefix("SHOP").prefix_separator("__").separator("__");
    let sources = Config::builder()
        .add_source(File::from_str(file, FileFormat::Toml))
        .add_source(variables)
        .build()?;
    Ok(sources.try_deserialize()?)
}

fn build(options: ManagerOptions) -> Result<Caches, Box<dyn Error>> {
    let manager = CacheManager::builder().options(options).build()?;
    let users = manager.cache("users").build()?;
    let prices = manager.cache("prices").build()?;
    Ok(Caches { manager, users, prices })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = read(include_str!("configured.toml"), Environment::default())?;
    println!("{options:#?}");
    let Caches { manager, users, prices } = build(options)?;

    let user = users.get_or_set(&7, || async { Ok::<_, std::io::Error>("Ada".to_owned()) }).await?;
    let price = prices.get_or_set("tea", || async { Ok::<_, std::io::Error>(3.5) }).await?;
    println!("{user} buys tea for {price}");
    println!("{:#?}", manager.health());

    manager.close().await;
    Ok(())
}
