//! A hit: random requests for 10,000 resident keys.

use std::{collections::HashMap, hint::black_box};

use lazy_layers_cache::{L1Options, LazyLayersCache};
use multi_tier_cache::{Bytes, CacheError, CacheStrategy};

use crate::{
    measure::{Contender, Numbers, Value, block_on, key, median, ratio, sampled, value},
    peers::{AN_HOUR, amalgam, foyer, multi_tier},
    report::{AtMost, Report},
};

const KEYS: usize = 10_000;
const WALK: usize = 100_000;
const ROUNDS: usize = 61;
/// The contender that ratios refer to.
const BASE: usize = 1;
/// The contender that most limits apply to; it stands before the peers.
const OURS: usize = 4;

/// Requests random keys. A macro, since an async closure would add a future of its own to the loop,
/// which sync contenders do not have.
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
        .ttl(AN_HOUR)
        .l1(L1Options::default().max_entries(2 * KEYS))
        .build()
        .expect("valid options");
    let amalgam = amalgam(2 * KEYS);
    let foyer = foyer(2 * KEYS);
    let cached = cached::ShardedLruTtlCache::<String, Value>::new(2 * KEYS, AN_HOUR);
    // It stores bytes; the typed call decodes JSON, here a text of 100 characters.
    let tiers = multi_tier(2 * KEYS);
    let json = Bytes::from(format!("\"{}\"", "x".repeat(100)));
    block_on(async {
        for key in &keys {
            quick.insert(key.clone(), value());
            moka.insert(key.clone(), value()).await;
            ours.set(key, value()).await.expect("open");
            amalgam.set(key, value()).await.expect("open");
            foyer.insert(key.clone(), value());
            cached.set(key.clone(), value());
            let stored = tiers.set_with_strategy(key, json.clone(), CacheStrategy::MediumTerm);
            stored.await.expect("it has room");
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
        Contender::new("amalgam get_or_set(..).await", |thread| {
            block_on(async {
                let load = |_| async { Ok::<_, std::convert::Infallible>(value()) };
                walk!(thread, keys, |key| amalgam.get_or_set(key, load).await.expect("a hit"));
            });
        }),
        Contender::new("foyer get_or_fetch(..).await", |thread| {
            block_on(async {
                let load = || async { Ok::<_, std::fmt::Error>(value()) };
                walk!(thread, keys, |key| foyer.get_or_fetch(key, load).await.expect("a hit"));
            });
        }),
        Contender::new("cached ShardedLruTtlCache get", |thread| {
            walk!(thread, keys, |key| cached.get(key).expect("resident"));
        }),
        Contender::new("multi-tier get_or_compute_with(..).await", |thread| {
            block_on(async {
                let load = || async { Err::<Bytes, _>(CacheError::NotFound) };
                walk!(thread, keys, |key| {
                    let hit = tiers.get_or_compute_with(key, CacheStrategy::MediumTerm, load);
                    hit.await.expect("a hit")
                });
            });
        }),
        Contender::new("multi-tier get_or_compute_typed(..).await", |thread| {
            block_on(async {
                let load = || async { Err::<String, _>(CacheError::NotFound) };
                walk!(thread, keys, |key| {
                    let hit = tiers.get_or_compute_typed(key, CacheStrategy::MediumTerm, load);
                    hit.await.expect("a hit")
                });
            });
        }),
    ];
    for threads in [1, 2] {
        report.title(&format!("hit, ns per operation and thread, {threads} thread(s)"));
        let samples = sampled(&contenders, threads, WALK, ROUNDS);
        for (at, (contender, row)) in contenders.iter().zip(&samples).enumerate() {
            let limit = AtMost { limit: if at == OURS { 1.3 } else { 1.5 }, of: "quick_cache" };
            let limited = (2..=OURS).contains(&at);
            report.row(
                contender.name,
                median(row.clone()),
                "ns",
                ratio(row, &samples[BASE]),
                limited.then_some(&limit),
            );
        }
        let against = |peer: usize| ratio(&samples[OURS], &samples[peer]);
        report.at_most("get_or_set to moka's get_with_by_ref", against(6), 1.0 / 5.0);
        report.at_most("get_or_set to multi-tier's typed", against(11), 1.0 / 10.0);
        let closest = (5..contenders.len()).map(against).fold(0.0, f64::max);
        report.at_most("get_or_set to the fastest peer that expires or loads", closest, 1.0);
        report.bars(&format!("hit-{threads}"), "ns");
        report.note(
            "quick_cache, moka, foyer here and the map have no time to live; ours, amalgam, cached \
             and multi-tier check one. All hand out a clone of an Arc, but multi-tier: it clones a \
             handle to bytes, and its typed call decodes JSON each time.",
        );
        report.end();
    }
}
