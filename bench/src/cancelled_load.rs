//! A caller that drops its future during its load, without other callers: does the load complete,
//! and does the next caller get its value?

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::LazyLayersCache;
use multi_tier_cache::{Bytes, CacheStrategy};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    measure::{Value, value, workers},
    peers::{amalgam, foyer, multi_tier},
    report::Report,
};

/// In the order of the contenders of `miss`.
const NAMES: [&str; 6] = [
    "quick_cache get_or_insert_async",
    "moka get_with_by_ref",
    "amalgam get_or_set",
    "foyer get_or_fetch",
    "multi-tier get_or_compute_with",
    "lazy-layers get_or_set",
];
const LOAD: Duration = Duration::from_millis(20);
/// A load that has not completed by then was dropped with its caller.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) fn run(report: &mut Report) {
    report.title("a caller goes away in the middle of its load");
    let survives = survives_its_caller();
    for (name, survives) in NAMES.iter().zip(survives) {
        let said = if survives { "the load goes on" } else { "the load is dropped" };
        report.line(&format!("{name:<34} {said}"));
    }
    report.check("lazy-layers: the load goes on", survives[5]);
    report.note("Each as it is by default, with a loader that sleeps 20 ms.");
    report.end();
}

/// Measured anew in each run.
pub(crate) fn survives_its_caller() -> [bool; NAMES.len()] {
    let tiers = multi_tier(10);
    let amalgam = amalgam(10);
    let runtime = workers(2);
    runtime.block_on(async {
        let quick = Arc::new(quick_cache::sync::Cache::<String, Value>::new(10));
        let moka = moka::future::Cache::<String, Value>::new(10);
        let foyer = foyer(10);
        let ours = LazyLayersCache::<String, [u8; 100]>::builder().build().expect("valid options");
        // Callers have clones: a cache may stop its loads when its last handle is dropped.
        [
            ends(|load| {
                let quick = Arc::clone(&quick);
                tokio::spawn(async move {
                    let load = async { Ok::<_, String>(load.run().await) };
                    drop(quick.get_or_insert_async("key", load).await);
                })
                .abort_handle()
            })
            .await,
            ends(|load| {
                let moka = moka.clone();
                tokio::spawn(async move {
                    moka.get_with_by_ref("key", load.run()).await;
                })
                .abort_handle()
            })
            .await,
            ends(|load| {
                let amalgam = amalgam.clone();
                tokio::spawn(async move {
                    let load = |_| async move { Ok::<_, std::fmt::Error>(load.run().await) };
                    drop(amalgam.get_or_set("key", load).await);
                })
                .abort_handle()
            })
            .await,
            ends(|load| {
                let foyer = foyer.clone();
                tokio::spawn(async move {
                    let load = || async move { Ok::<_, std::fmt::Error>(load.run().await) };
                    drop(foyer.get_or_fetch("key", load).await);
                })
                .abort_handle()
            })
            .await,
            ends(|load| {
                let tiers = tiers.clone();
                tokio::spawn(async move {
                    let load = || async move {
                        load.run().await;
                        Ok(Bytes::new())
                    };
                    drop(tiers.get_or_compute_with("key", CacheStrategy::MediumTerm, load).await);
                })
                .abort_handle()
            })
            .await,
            ends(|load| {
                let ours = ours.clone();
                tokio::spawn(async move {
                    let load = || async move { Ok::<_, String>(load.run().await) };
                    drop(ours.get_or_set("key", load).await);
                })
                .abort_handle()
            })
            .await,
        ]
    })
}

#[derive(Clone, Default)]
struct Load {
    began: Arc<Notify>,
    ended: Arc<Notify>,
    times: Arc<AtomicUsize>,
}

impl Load {
    async fn run(self) -> Value {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.began.notify_one();
        sleep(LOAD).await;
        self.ended.notify_one();
        value()
    }
}

/// Returns whether the load completes after its caller was aborted.
async fn ends(call: impl FnOnce(Load) -> AbortHandle) -> bool {
    let load = Load::default();
    let caller = call(load.clone());
    load.began.notified().await;
    caller.abort();
    let ended = timeout(PATIENCE, load.ended.notified()).await.is_ok();
    assert_eq!(load.times.load(Ordering::SeqCst), 1, "one caller, one load");
    ended
}
