//! Twenty thousand deletes while the broker is killed and restarted. On a durable bus each
//! confirmed delete arrives; on any bus no instance serves an old value afterwards.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lazy_layers_cache::{BusEffect, Event, EventBusOptions, HandlerGuard, L1Options, WireCodec};
use tokio::{
    task::{JoinSet, block_in_place},
    time::sleep,
};

use super::{Broken, Cache, broker::Broker, ms, version_oracle::VersionOracle};

const KEYS: usize = 20_000;
const DELETERS: usize = 64;

pub(crate) async fn storm(broker: &mut Broker, outage: Duration) {
    let caches: Vec<Cache> = ["storm-0", "storm-1", "storm-2"]
        .map(|instance| {
            let options = EventBusOptions::default().confirm_deletes(true);
            Cache::builder()
                .ttl(ms(600_000))
                .l1(L1Options::default().max_entries(10 * KEYS))
                .name("storm")
                .event_bus(broker.transport(instance), WireCodec::new())
                .event_bus_options(options)
                .broadcast_set(false)
                .build()
                .unwrap()
        })
        .into();
    for cache in &caches {
        cache.ready().await.unwrap();
    }
    let received: Vec<Received> = caches.iter().map(Received::of).collect();
    let truth = Arc::new(VersionOracle::new(KEYS));
    for cache in &caches {
        for key in 0..KEYS {
            cache.get_or_set(&name(key), || async { Ok::<_, Broken>(0u32) }).await.unwrap();
        }
    }

    let next = Arc::new(AtomicUsize::new(0));
    let confirmed: Arc<Mutex<HashMap<String, (Instant, usize)>>> = Arc::default();
    let mut deleters = JoinSet::new();
    for deleter in 0..DELETERS {
        // The third instance only receives.
        let by = deleter % 2;
        let (cache, truth, next) = (caches[by].clone(), Arc::clone(&truth), Arc::clone(&next));
        let confirmed = Arc::clone(&confirmed);
        deleters.spawn(async move {
            loop {
                let key = next.fetch_add(1, Ordering::SeqCst);
                if key >= KEYS {
                    return;
                }
                truth.write(key);
                let name = name(key);
                if cache.delete(&name).await.unwrap().bus == BusEffect::Confirmed {
                    confirmed.lock().unwrap().insert(name, (Instant::now(), by));
                } else {
                    // The delete stays in the outbox. The pause keeps the loop from spinning.
                    sleep(ms(100)).await;
                }
            }
        });
    }
    while next.load(Ordering::SeqCst) < KEYS / 4 {
        sleep(ms(1)).await;
    }
    let (begun, at) = (Instant::now(), next.load(Ordering::SeqCst));
    block_in_place(|| broker.kill());
    sleep(outage).await;
    let meanwhile = next.load(Ordering::SeqCst) - at;
    block_in_place(|| broker.restart());
    let back = Instant::now();
    while let Some(deleter) = deleters.join_next().await {
        deleter.unwrap();
    }
    let done = Instant::now();
    let kind = broker.kind;
    loop {
        let all = caches.iter().flat_map(|cache| (0..KEYS).map(move |key| (cache, key)));
        let mut old = all.filter(|(cache, key)| {
            cache.get_l1(&name(*key)).is_some_and(|held| *held < truth.version(*key))
        });
        let Some((_, key)) = old.next() else { break };
        let late = done.max(back).elapsed();
        assert!(late < ms(6_000), "{kind:?}, storm: {key} and {} more are old", old.count());
        sleep(ms(20)).await;
    }
    let recovered = done.max(back).elapsed();
    let confirmed = confirmed.lock().unwrap().clone();
    let is_missing = |received: &Received, key: &str, at: Instant| !received.has(key, at);
    let missing = || {
        let all = confirmed.iter().flat_map(|(key, (at, by))| {
            let others = received.iter().enumerate().filter(move |(it, _)| it != by);
            others.map(move |(_, received)| (key, *at, received))
        });
        all.filter(|(key, at, received)| is_missing(received, key, *at)).count()
    };
    while kind.keeps() && missing() > 0 {
        let late = back.elapsed();
        assert!(late < ms(20_000), "{kind:?}, storm: {} confirmed ones are lost", missing());
        sleep(ms(50)).await;
    }
    println!(
        "{kind:?}, storm: {KEYS} deletes, {} confirmed, {meanwhile} during {outage:?} without; \
         {} of the confirmed ones lost; away {:.2?}, current {recovered:.2?} after it",
        confirmed.len(),
        missing(),
        back - begun,
    );
    for (instance, cache) in caches.iter().enumerate() {
        let gaps = received[instance].losses.load(Ordering::SeqCst);
        assert!(gaps > 0, "{kind:?}, storm: {instance} noticed nothing");
        cache.close().await;
    }
}

fn name(key: usize) -> String {
    format!("storm:{key}")
}

/// The invalidations that an instance received, and how often it noticed a loss.
struct Received {
    keys: Arc<Mutex<HashMap<String, Instant>>>,
    losses: Arc<AtomicUsize>,
    _guard: HandlerGuard,
}

impl Received {
    fn of(cache: &Cache) -> Self {
        let keys: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let losses = Arc::new(AtomicUsize::new(0));
        let (log, lost) = (Arc::clone(&keys), Arc::clone(&losses));
        let guard = cache.on(move |event| match event {
            Event::InvalidationReceived { keys, pattern, .. } => {
                let now = Instant::now();
                let named = keys.iter().copied().chain(*pattern);
                log.lock().unwrap().extend(named.map(|it| (it.to_owned(), now)));
            }
            Event::BusGap { .. } | Event::BusDisconnected => {
                lost.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        });
        Self { keys, losses, _guard: guard }
    }

    /// Returns whether a delete of the key arrived, or a delete of all keys not long before it was
    /// confirmed.
    fn has(&self, key: &str, confirmed: Instant) -> bool {
        let keys = self.keys.lock().unwrap();
        // A message may arrive before the publisher receives its confirmation.
        let about_then = |at: &Instant| *at + ms(2_000) > confirmed;
        keys.contains_key(key) || keys.get("*").is_some_and(about_then)
    }
}
