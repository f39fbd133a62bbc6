//! A hit through hitbox, beside ours and quick_cache's, as in the table `hit` of the bench:
//! `cargo run --release --manifest-path bench/hitbox/Cargo.toml`.

#[path = "../../src/measure.rs"]
#[allow(dead_code, reason = "a file of the bench")]
mod measure;

use std::{hint::black_box, time::Duration};

use hitbox_fn::{CacheableResponse, KeyExtract, cached, prelude::PolicyConfig};
use hitbox_moka::MokaBackend;
use lazy_layers_cache::{L1Options, LazyLayersCache};
use measure::{Contender, Numbers, block_on, key, median, ratio, sampled};
use serde::{Deserialize, Serialize};

const KEYS: usize = 10_000;
const WALK: usize = 20_000;
const ROUNDS: usize = 31;
const AN_HOUR: Duration = Duration::from_secs(3_600);
/// The limit of our hit's time, as a share of hitbox's.
const LIMIT: f64 = 0.1;

#[derive(Clone, Serialize, Deserialize, CacheableResponse)]
struct Product {
    name: String,
}

#[derive(Clone, KeyExtract)]
struct Id(#[key_extract(name = "id")] String);

#[cached]
async fn product(id: Id) -> Result<Product, std::fmt::Error> {
    drop(id);
    Ok(Product { name: "x".repeat(100) })
}

fn main() -> std::process::ExitCode {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let quick = quick_cache::sync::Cache::<String, measure::Value>::new(2 * KEYS);
    let ours = LazyLayersCache::<String, [u8; 100]>::builder()
        .ttl(AN_HOUR)
        .l1(L1Options::default().max_entries(2 * KEYS))
        .build()
        .expect("valid options");
    let backend = MokaBackend::builder().max_entries(2 * KEYS as u64).build();
    let hitbox = hitbox_fn::Cache::builder()
        .backend(backend)
        .policy(PolicyConfig::builder().ttl(AN_HOUR).build())
        .build();
    block_on(async {
        for key in &keys {
            quick.insert(key.clone(), measure::value());
            ours.set(key, measure::value()).await.expect("open");
            product(Id(key.clone())).cache(&hitbox).await.expect("it loads");
        }
    });
    let keys = &keys;
    let contenders = [
        Contender::new("quick_cache get", |thread| {
            let mut numbers = Numbers::new(thread);
            for _ in 0..WALK {
                black_box(quick.get(keys[numbers.below(KEYS)].as_str()).expect("resident"));
            }
        }),
        Contender::new("lazy-layers get_or_set(..).await", |thread| {
            let mut numbers = Numbers::new(thread);
            block_on(async {
                let load = || async { Ok::<_, String>(measure::value()) };
                for _ in 0..WALK {
                    let key = keys[numbers.below(KEYS)].as_str();
                    black_box(ours.get_or_set(key, load).await.expect("a hit"));
                }
            });
        }),
        Contender::new("hitbox #[cached], moka behind it", |thread| {
            let mut numbers = Numbers::new(thread);
            block_on(async {
                for _ in 0..WALK {
                    let id = Id(keys[numbers.below(KEYS)].clone());
                    black_box(product(id).cache(&hitbox).await.expect("a hit"));
                }
            });
        }),
    ];
    println!("hit, ns per operation, 1 thread");
    let samples = sampled(&contenders, 1, WALK, ROUNDS);
    for (contender, row) in contenders.iter().zip(&samples) {
        let (own, to_base) = (median(row.clone()), ratio(row, &samples[0]));
        println!("  {:<44} {own:>9.1} ns {to_base:>6.2}x", contender.name);
    }
    println!("  (each hit of hitbox builds its key and decodes JSON; the others return an Arc)");
    let own = ratio(&samples[1], &samples[2]);
    let kept = own <= LIMIT;
    let mark = if kept { "ok" } else { "MISSED" };
    println!("  get_or_set to hitbox: {own:.2}x, at most {LIMIT:.2}x: {mark}");
    if kept { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
