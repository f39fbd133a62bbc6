//! A cache with another name on the bus of the fleet. Its keys have the same names, and other
//! values: no call of one cache may return a value of the other.

use lazy_layers_cache::{EventBusOptions, WireCodec, testing::SharedBus};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    caller::{Cache, ms},
    faulty_store::{parts, value},
    instance_clock::InstanceClock,
    plan::{KEYS, PATTERNS},
    recorder::Recorder,
};

/// The write that all values of the neighbour name. The numbers below it are for more caches.
pub(crate) const FOREIGN: usize = u32::MAX as usize;
/// Keys that the neighbour deletes at a time: a flood.
const FLOOD: usize = 200;

/// Returns whether the value is one of the neighbour, or of up to 999 more caches.
pub(crate) fn is_foreign(value: u64) -> bool {
    parts(value).1 > FOREIGN - 1_000
}

/// Two instances of the other cache, which make calls until they are closed.
pub(crate) struct Neighbour {
    caches: Vec<Cache>,
    calls: JoinSet<()>,
}

impl Neighbour {
    pub(crate) fn start(bus: &SharedBus, seed: u64, recorder: &Recorder) -> Self {
        let (mut caches, mut calls) = (Vec::new(), JoinSet::new());
        for number in 0..2 {
            let builder = Cache::builder()
                .clock(InstanceClock::new())
                .name("neighbour")
                .event_bus(bus.link(), WireCodec::new())
                .event_bus_options(EventBusOptions::default());
            let cache = builder.build().expect("sound options");
            caches.push(cache.clone());
            let random = fastrand::Rng::with_seed(seed ^ number);
            let mut made = Calls::new(random, recorder.clone());
            calls.spawn(async move {
                loop {
                    sleep(ms(made.random.u64(1..300))).await;
                    made.make(&cache).await;
                }
            });
        }
        Self { caches, calls }
    }

    pub(crate) async fn close(mut self) {
        self.calls.shutdown().await;
        for cache in self.caches {
            cache.close().await;
        }
    }
}

/// Random calls of a cache with another name.
pub(crate) struct Calls {
    pub(crate) random: fastrand::Rng,
    recorder: Recorder,
    version: u32,
}

impl Calls {
    pub(crate) fn new(random: fastrand::Rng, recorder: Recorder) -> Self {
        Self { random, recorder, version: 0 }
    }

    pub(crate) async fn make(&mut self, cache: &Cache) {
        self.version += 1;
        let own = value(self.version, FOREIGN);
        let load = move || async move { Ok::<_, &str>(own) };
        let key = KEYS[self.random.usize(..KEYS.len())];
        match self.random.u32(0..100) {
            0..=39 => {
                let found = cache.get_or_set(key, load).await;
                match found.map(|found| is_foreign(*found)) {
                    Ok(true) => {}
                    other => {
                        let said = format!("the neighbour gets {other:?}");
                        self.recorder.violation("names", said);
                    }
                }
            }
            40..=69 => drop(cache.set(key, own).await),
            70..=89 => drop(cache.delete(key).await),
            90..=94 => drop(cache.delete_by_pattern(PATTERNS[0].0).await),
            95..=97 => drop(cache.clear().await),
            _ => {
                for number in 0..FLOOD {
                    drop(cache.delete(&format!("flood:{number}")).await);
                }
            }
        }
    }
}
