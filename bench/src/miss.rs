//! A miss whose loader is ready at once: distinct keys, room for all.

use lazy_layers_cache::{L1Options, LazyLayersCache};

use crate::{
    measure::{Contender, block_on, key, rounds, value},
    report::{AtMost, Report},
};

const KEYS: usize = 200_000;
const ROUNDS: usize = 7;

pub(crate) fn run(report: &mut Report) {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let keys = &keys;
    let contenders = [
        Contender::new("moka get_with_by_ref(..).await", |_| {
            block_on(async {
                let moka = moka::future::Cache::new(2 * KEYS as u64);
                for key in keys {
                    moka.get_with_by_ref(key, async { value() }).await;
                }
            });
        }),
        Contender::new("quick_cache get_or_insert_async", |_| {
            block_on(async {
                let quick = quick_cache::sync::Cache::<String, _>::new(2 * KEYS);
                for key in keys {
                    let load = async { Ok::<_, String>(value()) };
                    quick.get_or_insert_async(key, load).await.expect("loads");
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
    let figures = rounds(&contenders, 0, 1, KEYS, ROUNDS);
    for (at, (contender, figure)) in contenders.iter().zip(&figures).enumerate() {
        let limit = AtMost { limit: 0.6, of: "moka" };
        let limit = (at == 2).then_some(&limit);
        report.row(contender.name, figure.median, "ns", figure.ratio, limit);
    }
    report.end();
}
