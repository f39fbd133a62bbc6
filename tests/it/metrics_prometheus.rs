//! Feature `metrics`: a Prometheus recorder is scraped after known calls.

use std::{collections::BTreeMap, sync::Arc};

use lazy_layers_cache::{
    CacheManager, ErrorKind, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::sleep;

use crate::support::{Broken, Cache, Gate, Origin, SLOW, ms, on_tokio_time};

/// The rows of a scrape: the name without its prefix, with all labels, and the value.
type Rows = BTreeMap<String, f64>;

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new().set_buckets(&[0.1, 0.3, 1.0]).unwrap();
    builder.build_recorder()
}

fn scrape(handle: &PrometheusHandle) -> Rows {
    let text = handle.render();
    let rows = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    rows.map(|row| {
        let (name, value) = row.rsplit_once(' ').unwrap();
        let name = name.strip_prefix("lazy_layers_cache_").expect(row);
        (name.to_owned(), value.parse().unwrap())
    })
    .collect()
}

/// The value of a metric with only the label `cache`.
fn value(rows: &Rows, name: &str, cache: &str) -> Option<f64> {
    rows.get(&format!("{name}{{cache=\"{cache}\"}}")).copied()
}

#[tokio::test(start_paused = true)]
async fn a_scrape_has_exactly_what_a_cache_did() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
    let builder = on_tokio_time().name("scraped").l2(store.clone(), WireCodec::new());
    let cache = builder.event_bus(bus.link(), WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    let origin = Origin::default();
    for _ in 0..3 {
        cache.get_or_set("k", origin.load(Gate::Slow)).await.unwrap();
    }
    cache.get_or_set("broken", origin.load(Gate::Err)).await.unwrap_err();
    assert_eq!(cache.get_or_set("none", origin.load(Gate::None)).await.unwrap(), None);
    sleep(ms(50)).await;
    cache.delete("k").await.unwrap();
    sleep(ms(50)).await;
    let operations = store.operations();
    store.set_fault(StoreFault::Fails);
    cache.delete("secret").await.unwrap();
    cache.export_metrics();

    let handle = recorder.handle();
    let rows = scrape(&handle);
    let value = |name: &str| value(&rows, name, "scraped");
    for (name, expected) in [
        ("l1_hits_total", 2.0),
        ("misses_total", 3.0),
        ("loads_total", 3.0),
        ("load_failures_total", 1.0),
        ("l2_hits_total", 0.0),
        ("bus_values_sent_total", 0.0),
        ("bus_values_not_sent_total", 1.0),
        ("bus_gaps_total", 0.0),
        ("l1_entries", 0.0),
        ("load_running", 0.0),
        ("origin_failing", 0.0),
        ("l2_circuit_open", 0.0),
        ("l2_errors_total", (store.operations() - operations) as f64),
        ("l2_pending_invalidations", 1.0),
        ("bus_subscribed", 1.0),
        ("bus_l1_trusted", 1.0),
        ("bus_circuit_open", 0.0),
        ("bus_publishing_refused", 0.0),
        ("closed", 0.0),
        ("load_duration_seconds_count", 3.0),
        ("load_duration_seconds_sum", SLOW.as_secs_f64()),
        ("l2_call_duration_seconds_count", store.operations() as f64),
        // The deletes, that of "secret" perhaps not yet.
        ("bus_publish_duration_seconds_count", 2.0 - value("bus_outbox_waiting").unwrap()),
    ] {
        assert_eq!(value(name), Some(expected), "{name} in {rows:#?}");
    }
    let bucket = |bound: &str| {
        rows.get(&format!("load_duration_seconds_bucket{{cache=\"scraped\",le=\"{bound}\"}}"))
    };
    assert_eq!([bucket("0.1"), bucket("0.3"), bucket("+Inf")], [&2.0, &3.0, &3.0].map(Some));
    let all_counters = cache.stats().iter().map(|(_, value)| value as f64).sum::<f64>();
    let exported = rows.iter().filter(|(name, _)| name.contains("_total{"));
    assert_eq!(exported.map(|(_, value)| value).sum::<f64>(), all_counters, "entries are none");

    let text = handle.render();
    assert!(text.contains("# TYPE lazy_layers_cache_l1_hits_total counter"), "{text}");
    assert!(text.contains("# HELP lazy_layers_cache_l1_hits_total Reads answered by"), "{text}");
    assert!(!text.contains("secret") && !text.contains("broken"), "a key is never a label");
}

#[tokio::test(start_paused = true)]
async fn a_cache_alone_exports_neither_l2_nor_bus_gauges() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let cache = on_tokio_time().name("alone").build().unwrap();
    cache.set("k", 1).await.unwrap();
    cache.export_metrics();
    let rows = scrape(&recorder.handle());
    assert_eq!(value(&rows, "l1_entries", "alone"), Some(1.0));
    assert_eq!(value(&rows, "l1_weight", "alone"), Some(1.0));
    for absent in ["l2_circuit_open", "l2_pending_invalidations", "bus_subscribed"] {
        assert_eq!(value(&rows, absent, "alone"), None, "{absent}");
    }
    cache.close().await;
    cache.export_metrics();
    let rows = scrape(&recorder.handle());
    assert_eq!(value(&rows, "l1_entries", "alone"), Some(0.0));
    assert_eq!(value(&rows, "closed", "alone"), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn fifty_caches_do_not_mix() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let manager = CacheManager::builder().clock(TokioClock::new()).build().unwrap();
    let caches: Vec<Cache> = (0..50)
        .map(|number| manager.memory_cache(&format!("many-{number}")).build().unwrap())
        .collect();
    let origin = Origin::default();
    for (number, cache) in caches.iter().enumerate() {
        for _ in 0..=number {
            cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
        }
    }
    manager.export_metrics();
    caches.iter().for_each(Cache::export_metrics);
    let rows = scrape(&recorder.handle());
    for number in 0..50 {
        let cache = &*format!("many-{number}");
        assert_eq!(value(&rows, "l1_hits_total", cache), Some(f64::from(number)));
        assert_eq!(value(&rows, "load_duration_seconds_count", cache), Some(1.0));
    }
    assert_eq!(rows.keys().filter(|name| name.starts_with("l1_hits_total{")).count(), 50);
}

#[tokio::test(start_paused = true)]
async fn caches_of_one_name_have_labels_of_their_own_and_a_new_one_continues() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let build = || on_tokio_time().name("twin").build().unwrap();
    let (first, second) = (build(), build());
    for _ in 0..5 {
        first.get("k").await;
    }
    second.get("k").await;
    first.export_metrics();
    second.export_metrics();
    let rows = scrape(&recorder.handle());
    assert_eq!(value(&rows, "misses_total", "twin"), Some(5.0));
    assert_eq!(value(&rows, "misses_total", "twin#2"), Some(1.0));
    drop(first);
    let third = build();
    third.get("k").await;
    third.export_metrics();
    let rows = scrape(&recorder.handle());
    assert_eq!(value(&rows, "misses_total", "twin"), Some(6.0), "an absolute value never falls");
}

#[tokio::test(start_paused = true)]
async fn the_export_ends_with_its_handle_or_with_the_cache() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let cache = on_tokio_time().name("regular").build().unwrap();
    let misses = || value(&scrape(&recorder.handle()), "misses_total", "regular").unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let export = cache.export_metrics_every(ms(10_000)).unwrap();
    assert_eq!(misses(), 0.0, "it exports at once");
    cache.get("k").await;
    sleep(ms(9_999)).await;
    assert_eq!(misses(), 0.0);
    sleep(ms(2)).await;
    assert_eq!(misses(), 1.0);
    drop(export);
    cache.get("k").await;
    sleep(ms(30_000)).await;
    assert_eq!((misses(), tasks()), (1.0, 0));

    let export = cache.export_metrics_every(ms(0)).unwrap();
    cache.get("k").await;
    sleep(ms(101)).await;
    assert_eq!((misses(), tasks()), (3.0, 1));
    drop(cache);
    sleep(ms(101)).await;
    assert_eq!(tasks(), 0, "it does not keep the cache alive");
    drop(export);
}

#[tokio::test(start_paused = true)]
async fn a_manager_exports_later_caches_too_until_it_is_dropped() {
    let recorder = recorder();
    let _local = metrics::set_default_local_recorder(&recorder);
    let manager = CacheManager::builder().clock(TokioClock::new()).build().unwrap();
    let misses = || value(&scrape(&recorder.handle()), "misses_total", "later");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let export = manager.export_metrics_every(ms(10_000)).unwrap();
    let cache: Cache = manager.memory_cache("later").build().unwrap();
    cache.get("k").await;
    assert_eq!(misses(), None);
    sleep(ms(10_001)).await;
    assert_eq!((misses(), tasks()), (Some(1.0), 1));
    drop(manager);
    cache.get("k").await;
    sleep(ms(10_001)).await;
    assert_eq!((misses(), tasks()), (Some(1.0), 0), "it does not keep the manager alive");
    drop(export);
}

#[test]
fn a_regular_export_needs_a_runtime() {
    let cache = Cache::builder().build().unwrap();
    let refused = cache.export_metrics_every(ms(10_000)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoRuntime);
    let without_timer = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = without_timer.enter();
    assert!(cache.export_metrics_every(ms(10_000)).is_err());
}

struct PanickingRecorder;

impl metrics::Recorder for PanickingRecorder {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::from_arc(Arc::new(Panics))
    }
}

struct Panics;

impl metrics::HistogramFn for Panics {
    fn record(&self, _: f64) {
        panic!("the recorder panics on purpose");
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_ends_no_load() {
    let recorder = PanickingRecorder;
    let _local = metrics::set_default_local_recorder(&recorder);
    let cache = on_tokio_time().l2(SharedStore::new(TokioClock::new()), WireCodec::new());
    let cache = cache.build().unwrap();
    let loaded = cache.get_or_set("k", || async { Ok::<_, Broken>(1) }).await.unwrap();
    assert_eq!((*loaded, cache.stats().l2_errors), (1, 0));
}
