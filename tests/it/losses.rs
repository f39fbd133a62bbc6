//! An operator learns of each loss in three ways: one warning, one event, one counter.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use lazy_layers_cache::{
    Event, EventBusOptions, L2Timeouts, LocalTransport, Store, WireCodec,
    testing::{BusFaults, ForwardStore, SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::sleep;
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::support::{Cache, Log, log::listen, ms, on_tokio_time};

/// The part that each warning names.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Part<'a>(&'a mut Vec<String>);

impl tracing::field::Visit for Part<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "part" {
            self.0.push(format!("{value:?}").trim_matches('"').to_owned());
        }
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            event.record(&mut Part(&mut self.0.lock().unwrap()));
        }
    }
}

/// The world of one loss: all that an operator could learn of it.
struct Observed {
    warnings: Warnings,
    log: Log,
    cache: Cache,
    _listening: tracing::subscriber::DefaultGuard,
}

impl Observed {
    fn new(cache: Cache) -> Self {
        let warnings = Warnings::default();
        let listening = listen(warnings.clone());
        Self { warnings, log: Log::of(&cache), cache, _listening: listening }
    }

    /// Forgets what happened so far.
    fn forget(&self) {
        self.warnings.0.lock().unwrap().clear();
        self.log.take();
    }

    fn assert_told_once(&self, part: &str, event: &str, counter: &str) {
        assert_eq!(*self.warnings.0.lock().unwrap(), [part], "one warning");
        let events = self.log.take();
        assert_eq!(events.iter().filter(|name| *name == event).count(), 1, "{events:?}");
        let stats = self.cache.stats();
        let (_, count) = stats.iter().find(|(name, _)| *name == counter).unwrap();
        assert_eq!(count, 1, "{counter}");
    }
}

/// A store that can be told to say that it has removed all keys.
struct Emptied(SharedStore, Arc<AtomicU64>);

impl ForwardStore for Emptied {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn times_emptied(&self) -> u64 {
        self.1.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_empties_l2_is_told_once() {
    let times = Arc::new(AtomicU64::new(3));
    let store = Emptied(SharedStore::new(TokioClock::new()), Arc::clone(&times));
    let cache = on_tokio_time().l2(store, WireCodec::new()).build().unwrap();
    let observed = Observed::new(cache);
    observed.cache.get("k").await;
    assert_eq!(observed.cache.stats().l2_emptied, 0, "it was emptied before this cache");
    observed.forget();
    times.fetch_add(1, Ordering::SeqCst);
    for key in ["a", "b", "c"] {
        observed.cache.get(key).await;
    }
    observed.assert_told_once("l2", "l2:emptied", "l2_emptied");
}

fn over_l2() -> (SharedStore, Observed) {
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time().l2(store.clone(), WireCodec::new()).build().unwrap();
    (store, Observed::new(cache))
}

#[tokio::test(start_paused = true)]
async fn pending_deletes_that_become_one_of_all_keys_are_told_once() {
    let (store, observed) = over_l2();
    store.set_fault(StoreFault::Fails);
    for key in 0..10_000 {
        observed.cache.delete(&key.to_string()).await.unwrap();
    }
    assert_eq!(observed.cache.stats().l2_pending_overflows, 0);
    observed.forget();
    for key in 10_000..10_010 {
        observed.cache.delete(&key.to_string()).await.unwrap();
    }
    observed.assert_told_once("l2", "l2:pending-overflow", "l2_pending_overflows");
}

#[tokio::test(start_paused = true)]
async fn an_outbox_that_overflows_is_told_once() {
    let bus = SharedBus::new(1);
    let link = bus.link();
    let few = EventBusOptions::default().outbox_max_entries(5);
    let builder = on_tokio_time().name("losses").event_bus(link.clone(), WireCodec::new());
    let observed = Observed::new(builder.event_bus_options(few).build().unwrap());
    observed.cache.ready().await.unwrap();
    link.cut();
    sleep(ms(100)).await;
    observed.forget();
    for key in 0..50 {
        observed.cache.delete(&key.to_string()).await.unwrap();
    }
    observed.assert_told_once("event_bus", "event-bus:widened", "bus_widened");
}

#[tokio::test(start_paused = true)]
async fn invalidations_that_a_close_loses_are_told_once() {
    let (store, observed) = over_l2();
    store.set_fault(StoreFault::Fails);
    observed.cache.delete("k").await.unwrap();
    observed.forget();
    observed.cache.close().await;
    observed.cache.close().await;
    // The retries fail meanwhile, so that the circuit may open.
    observed.warnings.0.lock().unwrap().retain(|part| part != "l2");
    observed.assert_told_once("close", "close:lost", "invalidations_lost");
}

/// Two writes outlast the close, and one caller does not wait for the end of its own.
#[tokio::test(start_paused = true)]
async fn invalidations_that_are_lost_after_a_close_are_told_of_too() {
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time()
        .name("losses")
        .event_bus(LocalTransport::new(), WireCodec::new())
        .l2(store.clone(), WireCodec::new())
        .l2_timeouts(L2Timeouts::default().write(ms(10_000)))
        .close_timeout(ms(100))
        .build()
        .unwrap();
    cache.ready().await.unwrap();
    let lost = Arc::new(Mutex::new(Vec::new()));
    let _guard = cache.on({
        let lost = Arc::clone(&lost);
        move |event| {
            if let Event::CloseLost { l2, bus, .. } = event {
                lost.lock().unwrap().push((*l2, *bus));
            }
        }
    });
    let lost = || std::mem::take(&mut *lost.lock().unwrap());
    store.set_fault(StoreFault::Fails);
    cache.delete("before").await.unwrap();
    store.set_fault(StoreFault::Hangs);
    let late = |key: &'static str| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.delete(key).await })
    };
    let (late, dropped) = (late("late"), late("dropped"));
    sleep(ms(1)).await;
    cache.close().await;
    assert_eq!(lost(), [(1, 0)], "peers have got this one");
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let (_, of_bus) = lost().into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert_eq!(of_bus, 1);
    assert!(!late.await.unwrap().unwrap().is_complete());
    let stats = cache.stats().invalidations_lost;
    cache.close().await;
    // Three that have not reached L2, and the last two not the bus.
    assert_eq!((stats, cache.stats().invalidations_lost), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_once() {
    let bus = SharedBus::new(1);
    let build = || on_tokio_time().name("losses").event_bus(bus.link(), WireCodec::new()).build();
    let peer = build().unwrap();
    let link = bus.link();
    let builder = on_tokio_time().name("losses").event_bus(link.clone(), WireCodec::new());
    let observed = Observed::new(builder.build().unwrap());
    peer.ready().await.unwrap();
    observed.cache.ready().await.unwrap();
    peer.delete("a").await.unwrap();
    sleep(ms(1_000)).await;
    observed.forget();
    assert_eq!(observed.cache.stats().bus_gaps, 0);
    link.drop_incoming();
    peer.delete("b").await.unwrap();
    sleep(ms(10)).await;
    link.restore();
    peer.delete("c").await.unwrap();
    sleep(ms(10_000)).await;
    observed.assert_told_once("event_bus", "event-bus:gap", "bus_gaps");
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_accepts_no_messages_is_told_once_and_its_return_too() {
    let bus = SharedBus::new(1);
    let builder = on_tokio_time().name("losses").event_bus(bus.link(), WireCodec::new());
    let observed = Observed::new(builder.build().unwrap());
    observed.cache.ready().await.unwrap();
    observed.forget();
    bus.set_faults(BusFaults { fails: 1.0, ..BusFaults::default() });
    observed.cache.delete("a").await.unwrap();
    sleep(ms(1_000)).await;
    assert!(observed.cache.stats().bus_errors >= 3);
    assert_eq!(*observed.warnings.0.lock().unwrap(), ["event_bus"]);
    bus.set_faults(BusFaults::default());
    sleep(ms(40_000)).await;
    assert!(!observed.cache.health().event_bus.unwrap().publishing_skipped);
    assert_eq!(*observed.warnings.0.lock().unwrap(), ["event_bus"]);
}
