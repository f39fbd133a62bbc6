//! Log lines and spans of the feature `tracing`: one line per change of state, not one per failure.

use std::sync::{Arc, Mutex};

use lazy_layers_cache::{
    NegativeCache, WireCodec,
    testing::{SharedStore, StoreFault, TokioClock},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::support::{Gate, Origin, log::listen, on_tokio_time};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event).into_iter().flatten();
        let within: Vec<&str> = scope.map(|span| span.name()).collect();
        let within = within.join(" in ");
        self.0.lock().unwrap().push(format!("{} {within}", event.metadata().level()));
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_logs_one_warning_and_its_end_one_line() {
    let lines = Lines::default();
    let _default = listen(lines.clone());
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    for key in ["a", "b", "c", "a", "b"] {
        cache.get_or_set(key, origin.load(Gate::Err)).await.unwrap_err();
    }
    cache.get_or_set("d", origin.load(Gate::Panic)).await.unwrap_err();
    assert_eq!(*lines.0.lock().unwrap(), ["WARN "]);
    for key in ["a", "b", "c"] {
        cache.get_or_set(key, origin.load(Gate::Ok)).await.unwrap();
    }
    assert_eq!(*lines.0.lock().unwrap(), ["WARN ", "INFO "]);
}

#[tokio::test(start_paused = true)]
async fn an_overflow_of_pending_deletes_logs_one_warning() {
    let lines = Lines::default();
    let _default = listen(lines.clone());
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time().l2(store.clone(), WireCodec::new()).build().unwrap();
    store.set_fault(StoreFault::Fails);
    for key in 0..10_000 {
        cache.delete(&key.to_string()).await.unwrap();
    }
    assert_eq!(*lines.0.lock().unwrap(), ["WARN "], "the circuit has opened");
    cache.delete("one more").await.unwrap();
    assert_eq!(*lines.0.lock().unwrap(), ["WARN ", "WARN "]);
}

#[tokio::test(start_paused = true)]
async fn log_lines_of_a_loader_are_in_the_span_of_its_load_which_is_in_that_of_its_caller() {
    use tracing::Instrument as _;
    let lines = Lines::default();
    let _default = listen(lines.clone());
    let store = || SharedStore::new(TokioClock::new());
    let with_l2 = on_tokio_time().l2(store(), WireCodec::new());
    let with_lock = on_tokio_time().l2(store(), WireCodec::new());
    let with_lock = with_lock.distributed_lock(lazy_layers_cache::DistributedLock::enabled());
    for cache in [on_tokio_time(), with_l2, with_lock] {
        let cache = cache.build().unwrap();
        let loading = cache.get_or_set("k", || async {
            tracing::info!("before");
            tokio::task::yield_now().await;
            tracing::info!("after");
            Ok::<_, std::io::Error>(1)
        });
        loading.into_future().instrument(tracing::info_span!("request")).await.unwrap();
        tracing::info!("outside");
        let logged = std::mem::take(&mut *lines.0.lock().unwrap());
        let within = "INFO lazy_layers.load in request";
        assert_eq!(logged, [within, within, "INFO "]);
    }
}

#[tokio::test(start_paused = true)]
async fn health_reports_since_when_loads_fail() {
    use lazy_layers_cache::OriginHealth;
    let (cache, origin) = (on_tokio_time().build().unwrap(), Origin::default());
    assert_eq!(cache.health().origin, OriginHealth::Answering);
    cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    tokio::time::advance(crate::support::ms(1_500)).await;
    cache.get_or_set("k", origin.load(Gate::Err)).await.unwrap_err();
    let OriginHealth::Failing { since, .. } = cache.health().origin else { panic!("it fails") };
    assert_eq!(since, crate::support::ms(1_500));
    cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
    assert_eq!(cache.health().origin, OriginHealth::Answering);
}

#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

struct CacheField<'a>(&'a mut Vec<String>);

impl tracing::field::Visit for CacheField<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "cache" {
            self.0.push(format!("{value:?}"));
        }
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Names {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut CacheField(&mut self.0.lock().unwrap()));
    }

    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        attributes.record(&mut CacheField(&mut self.0.lock().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn each_span_and_log_line_names_its_cache() {
    let names = Names::default();
    let _default = listen(names.clone());
    let store = SharedStore::new(TokioClock::new());
    let cache = on_tokio_time().name("users").l2(store.clone(), WireCodec::new()).build().unwrap();
    let guard = cache.on(|_| panic!("on purpose"));
    cache.delete("k").await.unwrap();
    drop(guard);
    store.set_fault(StoreFault::Fails);
    for key in 0..10_001 {
        cache.delete(&key.to_string()).await.unwrap();
    }
    cache.get_or_set("k", Origin::default().load(Gate::Err)).await.unwrap_err();
    let names = names.0.lock().unwrap();
    assert!(names.len() >= 5 && names.iter().all(|name| name == "\"users\""), "{names:?}");
}

#[tokio::test(start_paused = true)]
async fn without_l1_negative_entries_live_in_l2_and_the_log_says_so() {
    let lines = Lines::default();
    let _default = listen(lines.clone());
    let store = SharedStore::new(TokioClock::new());
    let builder = || on_tokio_time().without_l1().negative_cache(NegativeCache::enabled());
    let shared = || builder().l2(store.clone(), WireCodec::new()).build().unwrap();
    let (alone, one, other) = (builder().build().unwrap(), shared(), shared());
    assert_eq!(*lines.0.lock().unwrap(), ["WARN ", "WARN ", "WARN "]);
    let origin = Origin::default();
    for cache in [&one, &other, &one] {
        assert_eq!(cache.get_or_set("k", origin.load(Gate::None)).await.unwrap(), None);
    }
    assert_eq!(origin.loads(), 1, "the entry is in L2");
    for _ in 0..2 {
        assert_eq!(alone.get_or_set("k", origin.load(Gate::None)).await.unwrap(), None);
    }
    assert_eq!(origin.loads(), 3, "the entry is nowhere");
    one.set("k", 5).await.unwrap();
    assert_eq!(other.get("k").await.as_deref(), Some(&5));
    one.delete("k").await.unwrap();
    assert_eq!(other.get("k").await, None);
}
