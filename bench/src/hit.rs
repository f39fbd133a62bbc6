//! A hit: 10,000 resident keys asked for at random.

use std::{collections::HashMap, hint::black_box};

use lazy_layers_cache::{L1Options, LazyLayersCache};

use crate::{
    measure::{Contender, Numbers, Value, block_on, key, rounds, value},
    report::{AtMost, Report},
};

const KEYS: usize = 10_000;
const WALK: usize = 100_000;
const ROUNDS: usize = 101;
/// Which contender the ratios are to.
const BASE: usize = 1;

/// Asks for random keys. A macro, so that nothing stands between the loop and the await: a closure
/// that is async is a future of its own, which sync contenders do not pay for.
macro_rules! walk {
    ($thread:expr, $keys:expr, |$key:ident| $get:expr) => {
        let mut numbers = Numbers::new($thread);
        for _ in 0..WALK {
            let $key = $keys[numbers.below($keys.len())].as_str();
            black_box($get);
        }
    };
}

pub(crate) fn run(report: &mut Report) {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let map: HashMap<String, Value, foldhash::fast::RandomState> =
        keys.iter().map(|key| (key.clone(), value())).collect();
    let quick = quick_cache::sync::Cache::<String, Value>::new(2 * KEYS);
    let moka = moka::future::Cache::<String, Value>::new(2 * KEYS as u64);
    let ours = LazyLayersCache::<String, [u8; 100]>::builder()
        .ttl(std::time::Duration::from_secs(3_600))
        .l1(L1Options::default().max_entries(2 * KEYS))
        .build()
        .expect("valid options");
    block_on(async {
        for key in &keys {
            quick.insert(key.clone(), value());
            moka.insert(key.clone(), value()).await;
            ours.set(key, value()).await.expect("open");
        }
    });

    let keys = &keys;
    let contenders = [
        Contender::new("unlocked HashMap (floor)", |thread| {
            walk!(thread, keys, |key| map.get(key).expect("resident").clone());
        }),
        Contender::new("quick_cache get", |thread| {
            walk!(thread, keys, |key| quick.get(key).expect("resident"));
        }),
        Contender::new("lazy-layers get_l1", |thread| {
            walk!(thread, keys, |key| ours.get_l1(key).expect("resident"));
        }),
        Contender::new("lazy-layers get(..).await", |thread| {
            block_on(async {
                walk!(thread, keys, |key| ours.get(key).await.expect("resident"));
            });
        }),
        Contender::new("lazy-layers get_or_set(..).await", |thread| {
            block_on(async {
                let load = || async { Ok::<_, String>(value()) };
                walk!(thread, keys, |key| ours.get_or_set(key, load).await.expect("a hit"));
            });
        }),
        Contender::new("moka get(..).await", |thread| {
            block_on(async {
                walk!(thread, keys, |key| moka.get(key).await.expect("resident"));
            });
        }),
        Contender::new("moka get_with_by_ref(..).await", |thread| {
            block_on(async {
                walk!(thread, keys, |key| moka.get_with_by_ref(key, async { value() }).await);
            });
        }),
    ];
    for threads in [1, 2] {
        report.title(&format!("hit, ns per operation and thread, {threads} thread(s)"));
        let figures = rounds(&contenders, BASE, threads, WALK, ROUNDS);
        for (contender, figure) in contenders.iter().zip(figures) {
            let limit = AtMost { limit: 1.5, of: "quick_cache" };
            let limited = contender.name.starts_with("lazy-layers get");
            report.row(
                contender.name,
                figure.median,
                "ns",
                figure.ratio,
                limited.then_some(&limit),
            );
        }
        report.end();
    }
}
