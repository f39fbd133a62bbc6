//! Feature `opentelemetry`: the SDK collects the instruments after known calls.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lazy_layers_cache::{
    CacheManager, WireCodec,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality,
        data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics},
        exporter::PushMetricExporter,
    },
};
use tokio::time::sleep;

use crate::support::{Cache, Gate, Origin, SLOW, ms, on_tokio_time};

/// By the name of the metric without its prefix, and the cache: the value, or count and sum.
type Collected = BTreeMap<(String, String), (f64, f64)>;

#[derive(Clone, Default)]
struct Exporter {
    last: Arc<Mutex<Collected>>,
    units: Arc<Mutex<BTreeMap<String, String>>>,
}

impl PushMetricExporter for Exporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut collected = Collected::new();
        for metric in metrics.scope_metrics().flat_map(ScopeMetrics::metrics) {
            let name = metric.name().strip_prefix("lazy_layers_cache.").unwrap();
            self.units.lock().unwrap().insert(name.to_owned(), metric.unit().to_owned());
            let mut add = |attributes: Vec<&opentelemetry::KeyValue>, value: (f64, f64)| {
                let [label] = attributes[..] else { panic!("{attributes:?}") };
                assert_eq!(label.key.as_str(), "cache");
                let point = (name.to_owned(), label.value.as_str().into_owned());
                assert_eq!(collected.insert(point, value), None, "{name} comes twice");
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic());
                    for point in sum.data_points() {
                        add(point.attributes().collect(), (point.value() as f64, 0.0));
                    }
                }
                AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
                    for point in gauge.data_points() {
                        add(point.attributes().collect(), (point.value() as f64, 0.0));
                    }
                }
                AggregatedMetrics::F64(MetricData::Histogram(durations)) => {
                    for point in durations.data_points() {
                        assert_eq!(point.bounds().next(), Some(0.000_1));
                        let value = (point.count() as f64, point.sum());
                        add(point.attributes().collect(), value);
                    }
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        *self.last.lock().unwrap() = collected;
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

struct Sdk {
    provider: SdkMeterProvider,
    exporter: Exporter,
}

impl Sdk {
    fn new() -> Self {
        let exporter = Exporter::default();
        let reader = PeriodicReader::builder(exporter.clone());
        let reader = reader.with_interval(Duration::from_secs(100_000)).build();
        Self { provider: SdkMeterProvider::builder().with_reader(reader).build(), exporter }
    }

    fn meter(&self) -> Meter {
        self.provider.meter("a test")
    }

    fn collect(&self) -> Collected {
        self.provider.force_flush().unwrap();
        self.exporter.last.lock().unwrap().clone()
    }
}

/// The value of a counter or gauge, or the count of a histogram.
fn value(collected: &Collected, name: &str, cache: &str) -> Option<f64> {
    collected.get(&(name.to_owned(), cache.to_owned())).map(|(value, _)| *value)
}

#[tokio::test(start_paused = true)]
async fn the_sdk_collects_exactly_what_a_cache_did_until_it_is_dropped() {
    let sdk = Sdk::new();
    let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
    let builder = on_tokio_time().name("observed").l2(store.clone(), WireCodec::new());
    let cache = builder.event_bus(bus.link(), WireCodec::new()).build().unwrap();
    cache.register_metrics(&sdk.meter());
    cache.register_metrics(&sdk.meter());
    cache.ready().await.unwrap();
    let origin = Origin::default();
    for _ in 0..3 {
        cache.get_or_set("k", origin.load(Gate::Slow)).await.unwrap();
    }
    cache.get_or_set("broken", origin.load(Gate::Err)).await.unwrap_err();
    sleep(ms(50)).await;
    cache.delete("k").await.unwrap();
    sleep(ms(50)).await;
    store.set_fault(StoreFault::Fails);
    cache.delete("other").await.unwrap();

    let collected = sdk.collect();
    let of = |name: &str| value(&collected, name, "observed");
    for (name, expected) in [
        ("l1.hits", 2.0),
        ("misses", 2.0),
        ("loads", 2.0),
        ("load.failures", 1.0),
        ("origin.failing", 1.0),
        ("l2.pending_invalidations", 1.0),
        ("bus.subscribed", 1.0),
        ("bus.l1_trusted", 1.0),
        ("load.duration", 2.0),
        ("l2.call.duration", store.operations() as f64),
        ("bus.publish.duration", 2.0 - of("bus.outbox_waiting").unwrap()),
    ] {
        assert_eq!(of(name), Some(expected), "{name} in {collected:#?}");
    }
    let durations = &collected[&("load.duration".to_owned(), "observed".to_owned())];
    assert_eq!(durations.1, SLOW.as_secs_f64());
    let units = sdk.exporter.units.lock().unwrap().clone();
    assert_eq!((&*units["load.duration"], &*units["l1.hits"]), ("s", "{read}"));
    assert_eq!(sdk.collect(), collected, "nothing is counted by collecting");

    let clone = cache.clone();
    drop(cache);
    assert_eq!(value(&sdk.collect(), "l1.hits", "observed"), Some(2.0), "a handle is left");
    drop(clone);
    let after = sdk.collect();
    assert!(after.keys().all(|(name, _)| name.ends_with(".duration")), "{after:#?}");
}

#[tokio::test(start_paused = true)]
async fn fifty_caches_do_not_mix() {
    let sdk = Sdk::new();
    let manager = CacheManager::builder().clock(TokioClock::new()).build().unwrap();
    let build = |number| manager.memory_cache(&format!("observed-{number}")).build().unwrap();
    let mut caches: Vec<Cache> = (0..25).map(build).collect();
    // Those that live, and those that are built later.
    manager.register_metrics(&sdk.meter());
    caches.extend((25..50).map(build));
    let origin = Origin::default();
    for (number, cache) in caches.iter().enumerate() {
        for _ in 0..=number {
            cache.get_or_set("k", origin.load(Gate::Ok)).await.unwrap();
        }
    }
    let check = |alive: &dyn Fn(i32) -> bool| {
        let collected = sdk.collect();
        for number in 0..50 {
            let cache = &*format!("observed-{number}");
            let expected = alive(number).then(|| f64::from(number));
            assert_eq!(value(&collected, "l1.hits", cache), expected, "{cache}");
            assert_eq!(value(&collected, "l1.entries", cache), expected.map(|_| 1.0), "{cache}");
            assert_eq!(value(&collected, "load.duration", cache), Some(1.0), "{cache}");
        }
    };
    check(&|_| true);
    let kept: Vec<Cache> = caches.into_iter().step_by(2).collect();
    check(&|number| number % 2 == 0);
    drop(kept);
    check(&|_| false);
}
