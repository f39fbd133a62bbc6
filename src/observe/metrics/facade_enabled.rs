//! With the feature `metrics`: exports to the recorder of the `metrics` facade.
//!
//! Counters and gauges are read and written when they are exported. A duration is recorded when it
//! ends, because a histogram of the facade takes nothing but samples. The recorder is asked for
//! each time: it may be installed after the cache was built.

use std::{sync::Arc, time::Duration};

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit, with_recorder};

use super::{
    table::{LABEL, MetricSource, NAMED, SECONDS, Value, histograms},
    timed::Timed,
};

static METADATA: Metadata<'static> = Metadata::new("lazy_layers_cache", Level::INFO, None);

/// The names of the histograms of one cache, each with its label.
pub(super) struct FacadeDurations(Vec<(Timed, Key)>);

impl FacadeDurations {
    pub(super) const ARE_RECORDED: bool = true;

    pub(super) fn new(label: &Arc<str>) -> Self {
        Self(histograms().map(|(timed, name, _)| (timed, key(name, label))).collect())
    }

    pub(super) fn record(&self, timed: Timed, took: Duration) {
        let Some((_, key)) = self.0.iter().find(|(other, _)| *other == timed) else { return };
        with_recorder(|recorder| {
            recorder.register_histogram(key, &METADATA).record(took.as_secs_f64());
        });
    }
}

/// Writes the counters and gauges of one cache to the recorder of this thread, else to that of the
/// process.
pub(crate) fn export(source: &dyn MetricSource) {
    with_recorder(|recorder| {
        describe(recorder);
        let (label, snapshot) = (source.label(), source.snapshot());
        for (number, (name, metric)) in NAMED.iter().enumerate() {
            match metric.value {
                Value::Counter(read) => {
                    let total = label.total(number, read(&snapshot.stats));
                    let key = key(name, label.text());
                    recorder.register_counter(&key, &METADATA).absolute(total);
                }
                Value::Gauge(read) => {
                    if let Some(value) = read(&snapshot) {
                        let key = key(name, label.text());
                        recorder.register_gauge(&key, &METADATA).set(value as f64);
                    }
                }
                Value::Histogram(_) => {}
            }
        }
    });
}

/// Describes the metrics, each time: the recorder may be another one than the last time.
fn describe(recorder: &dyn Recorder) {
    for (name, metric) in NAMED.iter() {
        let (name, text) = (name.as_str().into(), SharedString::from(metric.description));
        let unit = match metric.unit {
            SECONDS => Some(Unit::Seconds),
            "" => None,
            _ => Some(Unit::Count),
        };
        match metric.value {
            Value::Counter(_) => recorder.describe_counter(name, unit, text),
            Value::Gauge(_) => recorder.describe_gauge(name, unit, text),
            Value::Histogram(_) => recorder.describe_histogram(name, unit, text),
        }
    }
}

fn key(name: &'static str, label: &Arc<str>) -> Key {
    let label = SharedString::from(Arc::clone(label));
    Key::from_parts(name, vec![Label::new(LABEL, label)])
}
