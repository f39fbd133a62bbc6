//! A cache with another name on the bus session of an instance. It joins and leaves the session
//! while the cache under test stays.

use lazy_layers_cache::{WireCodec, testing::SharedBusSession};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    caller::{Cache, ms},
    instance_clock::InstanceClock,
    neighbour::Calls,
    recorder::Recorder,
};

/// Makes calls until it is dropped.
pub(crate) struct Sibling(JoinSet<()>);

impl Sibling {
    pub(crate) fn start(
        session: &SharedBusSession,
        clock: &InstanceClock,
        seed: u64,
        recorder: &Recorder,
    ) -> Self {
        let mut calls = JoinSet::new();
        let random = fastrand::Rng::with_seed(seed);
        calls.spawn(live(session.clone(), clock.clone(), random, recorder.clone()));
        Self(calls)
    }

    /// Waits until the cache was dropped.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

async fn live(
    session: SharedBusSession,
    clock: InstanceClock,
    random: fastrand::Rng,
    recorder: Recorder,
) {
    let mut calls = Calls::new(random, recorder);
    loop {
        let builder = Cache::builder().name("neighbour").close_timeout(ms(500));
        let cache = session.give(builder, WireCodec::new()).build().expect("its name is free");
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
