//! A frozen Redis: once the circuit is open, a load costs no more than its loader.

use std::time::{Duration, Instant};

use lazy_layers_cache::{L2Health, LazyLayersCache, WireCodec};
use tokio::time::sleep;

use crate::{measure::workers, redis_process::Server, report::Report};

type Cache = LazyLayersCache<String, String>;

const LOADER: Duration = Duration::from_millis(5);
const TASKS: usize = 8;
const ROUNDS: usize = 40;

pub(crate) fn run(report: &mut Report) {
    let server = Server::start();
    let runtime = workers(2);
    report.title("Redis frozen, breaker open: get_or_set with a loader of 5 ms");
    let (opened, mut bare, mut ours) = runtime.block_on(async {
        let cache = Cache::builder().l2(server.store(), WireCodec::new()).build();
        let cache = cache.expect("valid options");
        cache.set("warm", String::new()).await.expect("it answers");
        server.freeze();
        let begun = Instant::now();
        let mut tries = 0;
        while cache.health().l2 != Some(L2Health::Skipped) {
            tries += 1;
            get(&cache, format!("opening:{tries}")).await;
        }
        let opened = begun.elapsed();
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        // In turns, since the speed of the machine varies.
        for round in 0..ROUNDS {
            bare.extend(side_by_side(|_| async { drop(load().await) }).await);
            let calls = side_by_side(|number| {
                let (cache, key) = (cache.clone(), format!("{round}:{number}"));
                async move { get(&cache, key).await }
            });
            ours.extend(calls.await);
        }
        assert_eq!(cache.health().l2, Some(L2Health::Skipped), "it was open all the time");
        (opened, bare, ours)
    });
    server.thaw();
    bare.sort_unstable();
    ours.sort_unstable();
    let p99 = |sorted: &[Duration]| sorted[sorted.len() * 99 / 100].as_secs_f64() * 1e3;
    let (floor, own) = (p99(&bare), p99(&ours));
    report.line(&format!("the breaker opened after {:.2} s", opened.as_secs_f64()));
    report.line(&format!("the loader alone: p99 {floor:.2} ms"));
    report.check(
        &format!("get_or_set: p99 {own:.2} ms, at most the loader's and 1 ms"),
        own <= floor + 1.0,
    );
    report.end();
}

async fn load() -> Result<String, std::fmt::Error> {
    sleep(LOADER).await;
    Ok(String::from("x"))
}

async fn get(cache: &Cache, key: String) {
    cache.get_or_set(&key, || async { load().await }).await.expect("it loads");
}

/// The durations of ten calls in each of eight tasks.
async fn side_by_side<F: Future<Output = ()> + Send + 'static>(
    call: impl Fn(usize) -> F,
) -> Vec<Duration> {
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let calls: Vec<F> = (0..10).map(|number| call(task * 10 + number)).collect();
            tokio::spawn(async move {
                let mut took = Vec::new();
                for call in calls {
                    let begun = Instant::now();
                    call.await;
                    took.push(begun.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no panic"));
    }
    took
}
