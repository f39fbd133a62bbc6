//! A cache with another name of the manager of an instance. It comes and goes while the cache under
//! test stays, and shares its bus session and its circuit breaker of L2.

use lazy_layers_cache::CacheManager;
use tokio::{task::JoinSet, time::sleep};

use crate::{caller::ms, instance_clock::InstanceClock, neighbour::Calls, recorder::Recorder};

/// The name of the cache.
pub(crate) const NAME: &str = "neighbour";

/// Makes calls until it is dropped.
pub(crate) struct Sibling(JoinSet<()>);

impl Sibling {
    pub(crate) fn start(
        manager: &CacheManager,
        clock: &InstanceClock,
        seed: u64,
        recorder: &Recorder,
    ) -> Self {
        let mut calls = JoinSet::new();
        let random = fastrand::Rng::with_seed(seed);
        calls.spawn(live(manager.clone(), clock.clone(), random, recorder.clone()));
        Self(calls)
    }

    /// Waits until the cache was dropped.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

async fn live(
    manager: CacheManager,
    clock: InstanceClock,
    random: fastrand::Rng,
    recorder: Recorder,
) {
    let mut calls = Calls::new(random, recorder);
    loop {
        let builder = manager.cache::<String, u64>(NAME).close_timeout(ms(500));
        let cache = builder.build().expect("sound options");
        for _ in 0..calls.random.u32(5..150) {
            sleep(ms(calls.random.u64(1..300))).await;
            // A frozen process makes no calls.
            if !clock.is_frozen() {
                calls.make(&cache).await;
            }
        }
        if calls.random.bool() {
            cache.close().await;
        }
    }
}
