//! The growth of cost: with other resident entries and loads in flight, here; with keys, waiters,
//! instances, bytes and deletes, in the other files of this folder.

mod deletes;
mod instances;
mod keys;
mod patterns;
mod sizes;
mod waiters;

use std::{future::pending, hint::black_box};

use lazy_layers_cache::{L1Options, LazyLayersCache};

use crate::{
    measure::{Contender, Numbers, key, rounds, value},
    report::{AtMost, Report},
};

type Cache = LazyLayersCache<String, [u8; 100]>;

/// Requested keys. Few enough for the processor's cache, so that the table measures the code and
/// not the memory.
const ASKED: usize = 256;
const WALK: usize = 250_000;
const ROUNDS: usize = 41;

pub(crate) fn run(report: &mut Report) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let caches: Vec<Cache> =
        [10_000, 100_000, 1_000_000].map(|resident| runtime.block_on(filled(resident))).into();
    let busy = runtime.block_on(async {
        let cache = filled(10_000).await;
        for number in 0..10_000 {
            let cache = cache.clone();
            tokio::spawn(async move {
                let never = || async { pending::<Result<[u8; 100], String>>().await };
                let _ = cache.get_or_set(&format!("never:{number}"), never).await;
            });
        }
        while cache.stats().loads_in_flight < 10_000 {
            tokio::task::yield_now().await;
        }
        cache
    });
    let asked: Vec<String> = (0..ASKED).map(key).collect();
    let asked = &asked;
    let contender = |name, cache: Cache| {
        Contender::new(name, move |thread| {
            let mut numbers = Numbers::new(thread);
            for _ in 0..WALK {
                black_box(cache.get_l1(&asked[numbers.below(ASKED)]).expect("resident"));
            }
        })
    };
    let mut caches = caches.into_iter();
    let mut next = |name| contender(name, caches.next().expect("one for each name"));
    let contenders = [
        next("10,000 resident keys"),
        next("100,000 resident keys"),
        next("1,000,000 resident keys"),
        contender("10,000 resident keys, 10,000 loads in flight", busy),
    ];
    report.title("a hit among more and more, ns (get_l1, 256 keys asked for)");
    let figures = rounds(&contenders, 0, 1, WALK, ROUNDS);
    for (at, (contender, figure)) in contenders.iter().zip(&figures).enumerate() {
        let limit = AtMost { limit: 1.3, of: "the first" };
        let limit = (at > 0).then_some(&limit);
        report.row(contender.name, figure.median, "ns", figure.ratio, limit);
    }
    report.end();
    drop(contenders);
    keys::run(report);
    waiters::run(report);
    sizes::run(report);
    instances::run(report);
    deletes::run(report);
    patterns::run(report);
}

async fn filled(resident: usize) -> Cache {
    let cache = Cache::builder()
        .ttl(std::time::Duration::from_secs(3_600))
        .l1(L1Options::default().max_entries(resident * 2))
        .build()
        .expect("valid options");
    for number in 0..resident {
        cache.set(&key(number), value()).await.expect("open");
    }
    cache
}
