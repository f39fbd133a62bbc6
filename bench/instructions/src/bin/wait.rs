//! Makes calls that wait for a load beside others, to be counted as those of `instructions`; a
//! program of its own, so that the compiler treats the calls there as if these did not exist.
//!
//! `wait quick_cache|get_or_set <calls> <callers>`: `callers` tasks ask for a key at once, whose
//! loader waits until all of them have asked; then for the next key, until all calls are made. The
//! figure contains the task of the caller.

#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot run may stop")]

use std::{hint::black_box, sync::Arc};

use instructions::{Ours, Quick, ROOM, StandingClock, Value, ours};
use tokio::task::{JoinSet, yield_now};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, calls, callers] = &*arguments else { panic!("three arguments") };
    let calls: usize = calls.parse().expect("how many calls");
    let callers: usize = callers.parse().expect("how many callers");
    let quick = Arc::new(Quick::new(ROOM));
    let ours = ours().clock(StandingClock).build().expect("valid options");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        for number in 0..calls / callers {
            let key = format!("product:{number:08}");
            match what.as_str() {
                "quick_cache" => wait(callers, || from_quick(&quick, &key)).await,
                "get_or_set" => wait(callers, || from_ours(&ours, &key)).await,
                other => panic!("{other}: nothing to wait for"),
            }
        }
    });
}

/// Makes one call in each of `callers` tasks, and waits for all of them.
async fn wait<F>(callers: usize, call: impl Fn() -> F)
where
    F: Future<Output = Value> + Send + 'static,
{
    let mut tasks: JoinSet<Value> = (0..callers).map(|_| call()).collect();
    while let Some(value) = tasks.join_next().await {
        black_box(value.expect("no panic"));
    }
}

fn from_quick(cache: &Arc<Quick>, key: &str) -> impl Future<Output = Value> + use<> {
    let (cache, key) = (Arc::clone(cache), key.to_owned());
    async move { cache.get_or_insert_async(&key, load()).await.expect("a value") }
}

fn from_ours(cache: &Ours, key: &str) -> impl Future<Output = Value> + use<> {
    let (cache, key) = (cache.clone(), key.to_owned());
    async move { cache.get_or_set(&key, load).await.expect("a value") }
}

/// A loader that gives way twice: by then all tasks have asked.
async fn load() -> Result<Value, &'static str> {
    yield_now().await;
    yield_now().await;
    Ok(Arc::new([7; 100]))
}
