//! A miss whose loader is ready at once: distinct keys, with capacity for all.

use lazy_layers_cache::{L1Options, LazyLayersCache};
use multi_tier_cache::{Bytes, CacheStrategy};

use crate::{
    cancelled_load::survives_its_caller,
    measure::{Contender, block_on, key, median, ratio, sampled, value},
    peers::{amalgam, foyer, multi_tier},
    report::{AtMost, Report},
};

const KEYS: usize = 50_000;
const ROUNDS: usize = 15;
/// In the order of the contenders, which is that of `cancelled_load` too.
const MOKA: usize = 1;
const OURS: usize = 5;

pub(crate) fn run(report: &mut Report) {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let keys = &keys;
    let contenders = [
        Contender::new("quick_cache get_or_insert_async", |_| {
            block_on(async {
                let quick = quick_cache::sync::Cache::<String, _>::new(2 * KEYS);
                for key in keys {
                    let load = async { Ok::<_, String>(value()) };
                    quick.get_or_insert_async(key, load).await.expect("loads");
                }
            });
        }),
        Contender::new("moka get_with_by_ref(..).await", |_| {
            block_on(async {
                let moka = moka::future::Cache::new(2 * KEYS as u64);
                for key in keys {
                    moka.get_with_by_ref(key, async { value() }).await;
                }
            });
        }),
        Contender::new("amalgam get_or_set(..).await", |_| {
            let amalgam = amalgam(2 * KEYS);
            block_on(async {
                for key in keys {
                    let load = |_| async { Ok::<_, std::convert::Infallible>(value()) };
                    amalgam.get_or_set(key, load).await.expect("loads");
                }
            });
        }),
        Contender::new("foyer get_or_fetch(..).await", |_| {
            let foyer = foyer(2 * KEYS);
            block_on(async {
                for key in keys {
                    let load = || async { Ok::<_, std::fmt::Error>(value()) };
                    foyer.get_or_fetch(key, load).await.expect("loads");
                }
            });
        }),
        Contender::new("multi-tier get_or_compute_with(..).await", |_| {
            let tiers = multi_tier(2 * KEYS);
            block_on(async {
                for key in keys {
                    let load = || async { Ok(Bytes::from(vec![7; 100])) };
                    let miss = tiers.get_or_compute_with(key, CacheStrategy::MediumTerm, load);
                    miss.await.expect("loads");
                }
            });
        }),
        Contender::new("lazy-layers get_or_set(..).await", |_| {
            block_on(async {
                let ours = LazyLayersCache::<String, [u8; 100]>::builder()
                    .l1(L1Options::default().max_entries(2 * KEYS))
                    .build()
                    .expect("valid options");
                for key in keys {
                    let load = || async { Ok::<_, String>(value()) };
                    ours.get_or_set(key, load).await.expect("loads");
                }
            });
        }),
    ];
    report.title("miss with an immediate loader, room for all, building and dropping included");
    let samples = sampled(&contenders, 1, KEYS, ROUNDS);
    for (at, (contender, row)) in contenders.iter().zip(&samples).enumerate() {
        let limit = AtMost { limit: 0.4, of: "moka" };
        let limit = (at == OURS).then_some(&limit);
        report.row(contender.name, median(row.clone()), "ns", ratio(row, &samples[MOKA]), limit);
    }
    for (peer, survives) in survives_its_caller().into_iter().enumerate() {
        if survives && peer != OURS {
            let what =
                format!("to {}, whose loads survive their callers too", contenders[peer].name);
            report.at_most(&what, ratio(&samples[OURS], &samples[peer]), 1.0);
        }
    }
    report.bars("miss", "ns");
    report.note(
        "All coalesce. The loads of quick_cache, moka and multi-tier end with the caller that \
         began them (table `abandoned`); foyer spawns every load as a task, ours and amalgam \
         only a load that is not ready at once.",
    );
    report.end();
}
