//! With the feature `opentelemetry`: instruments of OpenTelemetry, by its API alone.
//!
//! Counters and gauges are observable instruments, whose callbacks read the cache when they are
//! collected. A duration is recorded when it ends: the API has no histogram that is read.
//!
//! Alternatives considered: durations in buckets of the library, which both features would read.
//! Refused, because neither API takes buckets; and a load, a call of L2 and a publication take so
//! much more time than a record that nothing is gained.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Histogram, Meter},
};

use super::{
    label::Label,
    table::{LABEL, MetricSource, NAMED, Value, histograms},
    timed::Timed,
};

/// Upper bounds of the buckets, in seconds: from a call within the machine to a load that hangs.
const BOUNDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The histograms of one cache, once it is registered.
pub(crate) struct OtelDurations(OnceLock<Registered>);

struct Registered {
    histograms: Vec<(Timed, Histogram<f64>)>,
    attributes: [KeyValue; 1],
}

impl OtelDurations {
    pub(super) const fn new() -> Self {
        Self(OnceLock::new())
    }

    pub(super) fn are_recorded(&self) -> bool {
        self.0.get().is_some()
    }

    pub(super) fn record(&self, timed: Timed, took: Duration) {
        let Some(registered) = self.0.get() else { return };
        for (other, histogram) in &registered.histograms {
            if *other == timed {
                histogram.record(took.as_secs_f64(), &registered.attributes);
            }
        }
    }

    /// Registers the instruments of a cache with a meter, the first time.
    ///
    /// `source` returns the cache as long as it lives: the callbacks live as long as the meter.
    pub(crate) fn register<S: MetricSource + 'static>(
        &self,
        meter: &Meter,
        label: &Label,
        source: impl Fn() -> Option<Arc<S>> + Clone + Send + Sync + 'static,
    ) {
        let attributes = [KeyValue::new(LABEL, Arc::clone(label.text()))];
        let mut is_new = false;
        self.0.get_or_init(|| {
            is_new = true;
            Registered { histograms: build_histograms(meter), attributes: attributes.clone() }
        });
        if !is_new {
            return;
        }
        for (number, (_, metric)) in NAMED.iter().enumerate() {
            let (source, attributes) = (source.clone(), attributes.clone());
            let (name, unit) = (metric.name, metric.unit);
            match metric.value {
                Value::Counter(read) => {
                    let builder = meter.u64_observable_counter(name).with_unit(unit);
                    let builder = builder.with_description(metric.description);
                    builder
                        .with_callback(move |observer| {
                            if let Some(source) = source() {
                                let total =
                                    source.label().total(number, read(&source.snapshot().stats));
                                observer.observe(total, &attributes);
                            }
                        })
                        .build();
                }
                Value::Gauge(read) => {
                    let builder = meter.u64_observable_gauge(name).with_unit(unit);
                    let builder = builder.with_description(metric.description);
                    builder
                        .with_callback(move |observer| {
                            let value = source().and_then(|source| read(&source.snapshot()));
                            if let Some(value) = value {
                                observer.observe(value, &attributes);
                            }
                        })
                        .build();
                }
                Value::Histogram(_) => {}
            }
        }
    }
}

fn build_histograms(meter: &Meter) -> Vec<(Timed, Histogram<f64>)> {
    histograms()
        .map(|(timed, _, metric)| {
            let builder = meter.f64_histogram(metric.name).with_unit(metric.unit);
            let builder = builder.with_description(metric.description);
            (timed, builder.with_boundaries(BOUNDS.to_vec()).build())
        })
        .collect()
}
