//! Hits to be counted in instructions, which no other guest of the machine can change:
//! `scripts/instructions` runs this under callgrind, twice each, and takes the difference.
//!
//! `instructions quick_cache|get_l1|get_or_set <hits>`

#![expect(clippy::expect_used, reason = "a bench that cannot run may stop")]

use std::{hint::black_box, sync::Arc, time::Duration};

use lazy_layers_cache::LazyLayersCache;

const KEYS: usize = 1_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().expect("what is to be counted");
    let hits: usize = arguments.next().and_then(|hits| hits.parse().ok()).expect("how many hits");
    let keys: Vec<String> = (0..KEYS).map(|number| format!("product:{number:08}")).collect();
    let value = Arc::new([7_u8; 100]);
    let quick = quick_cache::sync::Cache::<String, Arc<[u8; 100]>>::new(2 * KEYS);
    let ours = LazyLayersCache::<String, [u8; 100]>::builder()
        .ttl(Duration::from_secs(3_600))
        .build()
        .expect("valid options");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for key in &keys {
            quick.insert(key.clone(), Arc::clone(&value));
            ours.set(key, Arc::clone(&value)).await.expect("open");
        }
        let asked = keys.iter().map(String::as_str).cycle().take(hits);
        match what.as_str() {
            "quick_cache" => asked.for_each(|key| {
                black_box(quick.get(key).expect("resident"));
            }),
            "get_l1" => asked.for_each(|key| {
                black_box(ours.get_l1(key).expect("resident"));
            }),
            _ => {
                // Never called: all are hits.
                let load = || async { Err::<[u8; 100], _>("a miss") };
                for key in asked {
                    black_box(ours.get_or_set(key, load).await.expect("a hit"));
                }
            }
        }
    });
}
