//! The other caches of a manager. Their keys have the same names in all of them, and each value
//! names its cache: no cache may return a value of another one.

use std::rc::Rc;

use lazy_layers_cache::CacheManager;
use tokio::time::sleep;

use crate::{
    caller::{Cache, Caller, ms},
    faulty_store::{parts, value},
    neighbour::FOREIGN,
};

/// With the cache under test, fifty caches.
const SIBLINGS: usize = 49;
const KEYS: usize = 8;

/// Builds the caches.
pub(super) fn build(manager: &CacheManager, cache: &str) -> Vec<Cache> {
    let build = |number| manager.cache(&format!("{cache}-{number}")).build();
    (0..SIBLINGS).map(|number| build(number).expect("sound options")).collect()
}

/// Calls one of them after the other.
pub(super) async fn call_at_random(
    caches: Rc<[Cache]>,
    caller: Rc<Caller>,
    is_running: impl Fn() -> bool,
    mut random: fastrand::Rng,
) {
    let mut version = 0;
    while is_running() {
        version += 1;
        let number = random.usize(..SIBLINGS);
        let (cache, own) = (&caches[number], value(version, FOREIGN - number));
        let key = format!("h{}", random.usize(..KEYS));
        match random.u32(0..100) {
            0..=59 => {
                let load = move || async move { Ok::<_, &str>(own) };
                match cache.get_or_set(&key, load).await {
                    Ok(found) if parts(*found).1 == FOREIGN - number => {}
                    other => {
                        let said = format!("cache {number} gets {other:?} for {key}");
                        caller.recorder.violation("names", said);
                    }
                }
            }
            60..=79 => drop(cache.set(&key, own).await),
            80..=97 => drop(cache.delete(&key).await),
            98 => drop(cache.delete_by_pattern("h[0-3]").await),
            _ => drop(cache.clear().await),
        }
        sleep(ms(random.u64(..40))).await;
    }
}
