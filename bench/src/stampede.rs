//! A stampede: 10,000 tasks want one cold key, whose loader takes 20 ms.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::LazyLayersCache;
use tokio::sync::OnceCell;

use crate::{
    measure::{Value, figures, value},
    report::{AtMost, Report},
};

const TASKS: usize = 10_000;
const ROUNDS: usize = 9;

pub(crate) fn run(report: &mut Report) {
    let names = [
        "OnceCell (floor)",
        "quick_cache get_or_insert_async",
        "moka get_with",
        "lazy-layers get_or_set",
    ];
    let mut samples = vec![Vec::new(); names.len()];
    let mut most_loads = vec![0; names.len()];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for round in 0..=ROUNDS {
        for (contender, samples) in samples.iter_mut().enumerate() {
            let loads = Arc::new(AtomicUsize::new(0));
            let took = runtime.block_on(stampede(contender, Arc::clone(&loads)));
            most_loads[contender] = most_loads[contender].max(loads.load(Ordering::Relaxed));
            if round > 0 {
                samples.push(took.as_secs_f64() * 1e3);
            }
        }
    }
    report.title("10,000 tasks on one cold key, loader 20 ms: wall time until all have it");
    for (at, (name, figure)) in names.iter().zip(figures(&samples, 0)).enumerate() {
        let limit = AtMost { limit: 1.3, of: "OnceCell" };
        report.row(name, figure.median, "ms", figure.ratio, (at == 3).then_some(&limit));
    }
    report.check(
        &format!("lazy-layers: loads in the worst round: {}", most_loads[3]),
        most_loads[3] == 1,
    );
    report.end();
}

async fn stampede(contender: usize, loads: Arc<AtomicUsize>) -> Duration {
    let load = async move || -> Result<Value, String> {
        loads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(value())
    };
    let cell = Arc::new(OnceCell::new());
    let quick = Arc::new(quick_cache::sync::Cache::<String, Value>::new(100));
    let moka = moka::future::Cache::<String, Value>::new(100);
    let ours = LazyLayersCache::<String, [u8; 100]>::builder().build().expect("valid options");

    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let load = load.clone();
            let (cell, quick, moka, ours) =
                (Arc::clone(&cell), Arc::clone(&quick), moka.clone(), ours.clone());
            tokio::spawn(async move {
                match contender {
                    0 => cell.get_or_try_init(|| load()).await.cloned(),
                    1 => quick.get_or_insert_async("key", load()).await,
                    2 => Ok(moka
                        .get_with_by_ref("key", async { load().await.expect("loads") })
                        .await),
                    _ => Ok(ours
                        .get_or_set("key", move || async move { load().await })
                        .await
                        .expect("loads")),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("a value");
    }
    begun.elapsed()
}
