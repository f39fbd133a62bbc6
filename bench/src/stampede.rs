//! A stampede: 10,000 tasks request one cold key, whose loader takes 20 ms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cached::macros::cached;
use lazy_layers_cache::LazyLayersCache;
use multi_tier_cache::{Bytes, CacheManager, CacheStrategy};
use tokio::sync::OnceCell;

use crate::{
    measure::{Value, median, ratio, value, workers},
    peers,
    report::{AtMost, Report},
};

const TASKS: usize = 10_000;
const ROUNDS: usize = 9;
pub(crate) const NAMES: [&str; 8] = [
    "OnceCell (floor)",
    "quick_cache get_or_insert_async",
    "moka get_with_by_ref",
    "amalgam get_or_set",
    "foyer get_or_fetch",
    "cached #[cached(sync_writes = \"by_key\")]",
    "multi-tier get_or_compute_with",
    "lazy-layers get_or_set",
];
pub(crate) const OURS: usize = NAMES.len() - 1;

pub(crate) fn run(report: &mut Report) {
    let mut samples = vec![Vec::new(); NAMES.len()];
    let mut most_loads = [0; NAMES.len()];
    let runtime = workers(2);
    for round in 0..=ROUNDS {
        for (contender, samples) in samples.iter_mut().enumerate() {
            let loads = Arc::new(AtomicUsize::new(0));
            let contenders = Contenders::new(Load(Arc::clone(&loads)), round);
            let took = runtime.block_on(stampede(contender, contenders, TASKS));
            most_loads[contender] = most_loads[contender].max(loads.load(Ordering::Relaxed));
            if round > 0 {
                samples.push(took.as_secs_f64() * 1e3);
            }
        }
    }
    report.title("10,000 tasks on one cold key, loader 20 ms: wall time until all have it");
    for (at, (name, row)) in NAMES.iter().zip(&samples).enumerate() {
        let limit = AtMost { limit: 1.3, of: "OnceCell" };
        let limit = (at == OURS).then_some(&limit);
        report.row(name, median(row.clone()), "ms", ratio(row, &samples[0]), limit);
    }
    report.line(&format!("most loads in a round, in this order: {most_loads:?}"));
    let what = format!("lazy-layers: loads in the worst round: {}", most_loads[OURS]);
    report.check(&what, most_loads[OURS] == 1);
    report.bars("stampede", "ms");
    report.note("Memory alone. The value is an Arc, and bytes in multi-tier.");
    report.end();
}

/// One cold cache of each kind, made anew for each round.
#[derive(Clone)]
pub(crate) struct Contenders {
    load: Load,
    cell: Arc<OnceCell<Value>>,
    quick: Arc<quick_cache::sync::Cache<String, Value>>,
    moka: moka::future::Cache<String, Value>,
    amalgam: amalgam::Cache<Value>,
    foyer: foyer_memory::Cache<String, Value>,
    round: usize,
    tiers: Arc<CacheManager>,
    ours: LazyLayersCache<String, [u8; 100]>,
}

impl Contenders {
    pub(crate) fn new(load: Load, round: usize) -> Self {
        Self {
            load,
            cell: Arc::new(OnceCell::new()),
            quick: Arc::new(quick_cache::sync::Cache::new(100)),
            moka: moka::future::Cache::new(100),
            amalgam: peers::amalgam(100),
            foyer: peers::foyer(100),
            round,
            tiers: peers::multi_tier(100),
            ours: LazyLayersCache::builder().build().expect("valid options"),
        }
    }

    async fn get(self, contender: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Self { load, .. } = self;
        match contender {
            0 => drop(self.cell.get_or_try_init(|| load.run()).await?.clone()),
            1 => drop(self.quick.get_or_insert_async("key", load.run()).await?),
            2 => {
                let load = async { load.run().await.expect("loads") };
                drop(self.moka.get_with_by_ref("key", load).await);
            }
            3 => {
                let get = self.amalgam.get_or_set("key", |_| load.run());
                drop(get.await?);
            }
            4 => {
                let get = self.foyer.get_or_fetch("key", || load.run());
                drop(get.await?);
            }
            5 => drop(by_macro(self.round, load).await?),
            6 => {
                let load = || async move {
                    load.run().await.expect("loads");
                    Ok(Bytes::from_static(&[7; 100]))
                };
                let get = self.tiers.get_or_compute_with("key", CacheStrategy::MediumTerm, load);
                drop(get.await?);
            }
            _ => {
                let get = self.ours.get_or_set("key", move || async move { load.run().await });
                drop(get.await?);
            }
        }
        Ok(())
    }
}

type Failed = std::fmt::Error;

/// Takes 20 ms, and counts its runs.
#[derive(Clone)]
pub(crate) struct Load(pub(crate) Arc<AtomicUsize>);

impl Load {
    async fn run(self) -> Result<Value, Failed> {
        self.0.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(value())
    }
}

/// The macro's cache is a static, so its keys are the rounds.
#[cached(max_size = 1_000, key = "usize", convert = "{ _round }", sync_writes = "by_key")]
async fn by_macro(_round: usize, load: Load) -> Result<Value, Failed> {
    load.run().await
}

pub(crate) async fn stampede(contender: usize, all: Contenders, waiters: usize) -> Duration {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..waiters).map(|_| tokio::spawn(all.clone().get(contender))).collect();
    for task in tasks {
        task.await.expect("no panic").expect("a value");
    }
    begun.elapsed()
}
