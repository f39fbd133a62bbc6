//! The names, units and descriptions of all metrics, and the value of each. `docs/metrics.md` has
//! the same table; a test compares the two.
//!
//! The names are those of OpenTelemetry. The name for Prometheus follows from it by the rules by
//! which OpenTelemetry's exporters make it, so that one dashboard serves both features.

use std::sync::LazyLock;

use super::{label::Label, timed::Timed};
use crate::observe::{
    health::{Health, L2Health, OriginHealth},
    stats::Stats,
};

/// The only label: the name of the cache. A key is never a label.
pub(super) const LABEL: &str = "cache";

pub(super) const SECONDS: &str = "s";

/// The state of a cache when it is exported.
pub(crate) struct Snapshot {
    pub(crate) stats: Stats,
    pub(crate) health: Health,
    /// `None` without L2.
    pub(crate) pending_invalidations: Option<usize>,
}

/// A cache whose metrics are exported.
pub(crate) trait MetricSource: Send + Sync {
    fn label(&self) -> &Label;

    fn snapshot(&self) -> Snapshot;
}

pub(super) struct Metric {
    pub(super) name: &'static str,
    /// In the notation of OpenTelemetry (UCUM). In braces: a number of these, which is no part of a
    /// name. Empty: a state, 1 for yes and 0 for no; or the unit of the user's weigher.
    pub(super) unit: &'static str,
    pub(super) value: Value,
    pub(super) description: &'static str,
}

#[derive(Clone, Copy)]
pub(super) enum Value {
    /// A total since the cache was built.
    Counter(fn(&Stats) -> u64),
    /// The value now; `None` if the cache has no such part.
    Gauge(fn(&Snapshot) -> Option<u64>),
    /// Durations, which are recorded when they end.
    Histogram(Timed),
}

impl Metric {
    pub(super) fn prometheus_name(&self) -> String {
        let name = self.name.replace('.', "_");
        match self.value {
            Value::Counter(_) => name + "_total",
            _ if self.unit == SECONDS => name + "_seconds",
            _ => name,
        }
    }
}

/// The metrics, each with its name for Prometheus.
pub(super) static NAMED: LazyLock<Vec<(String, &'static Metric)>> =
    LazyLock::new(|| METRICS.iter().map(|metric| (metric.prometheus_name(), metric)).collect());

/// The histograms, each with its name for Prometheus.
pub(super) fn histograms() -> impl Iterator<Item = (Timed, &'static str, &'static Metric)> {
    NAMED.iter().filter_map(|(name, metric)| match metric.value {
        Value::Histogram(timed) => Some((timed, name.as_str(), *metric)),
        _ => None,
    })
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    read: fn(&Stats) -> u64,
    description: &'static str,
) -> Metric {
    Metric { name, unit, value: Value::Counter(read), description }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    read: fn(&Snapshot) -> Option<u64>,
    description: &'static str,
) -> Metric {
    Metric { name, unit, value: Value::Gauge(read), description }
}

const fn durations(name: &'static str, timed: Timed, description: &'static str) -> Metric {
    Metric { name, unit: SECONDS, value: Value::Histogram(timed), description }
}

#[rustfmt::skip]
static METRICS: &[Metric] = &[
    counter("lazy_layers_cache.l1.hits", "{read}", |it| it.l1_hits,
        "Reads answered by a fresh value in L1"),
    counter("lazy_layers_cache.l1.evictions", "{entry}", |it| it.l1_evictions,
        "Entries evicted from L1 by its limit on entries or weight"),
    counter("lazy_layers_cache.l2.hits", "{read}", |it| it.l2_hits,
        "Reads answered by a fresh value in L2"),
    counter("lazy_layers_cache.l2.errors", "{call}", |it| it.l2_errors,
        "Calls of L2 that failed or timed out, or whose value could not be decoded"),
    counter("lazy_layers_cache.l2.refused", "{call}", |it| it.l2_refused,
        "Keys and values that L2 was not asked to hold, because a limit or the codec refused them"),
    counter("lazy_layers_cache.l2.skipped", "{call}", |it| it.l2_skipped,
        "Calls of L2 that were skipped because its circuit was open"),
    counter("lazy_layers_cache.l2.emptied", "{time}", |it| it.l2_emptied,
        "How often L2 had removed all keys, because its server may have lost deletes"),
    counter("lazy_layers_cache.l2.pending_overflows", "{time}", |it| it.l2_pending_overflows,
        "How often pending invalidations were replaced by one of all keys"),
    counter("lazy_layers_cache.negative_hits", "{read}", |it| it.negative_hits,
        "Reads answered by a negative entry"),
    counter("lazy_layers_cache.stale_hits", "{read}", |it| it.stale_hits,
        "Reads answered by a stale copy"),
    counter("lazy_layers_cache.misses", "{read}", |it| it.misses,
        "Reads that neither L1 nor L2 could answer"),
    counter("lazy_layers_cache.loads", "{load}", |it| it.loads,
        "Loads that began"),
    counter("lazy_layers_cache.load.failures", "{load}", |it| it.load_failures,
        "Loads that returned an error, panicked or exceeded the hard timeout"),
    counter("lazy_layers_cache.load.superseded", "{load}", |it| it.superseded,
        "Loads whose result was not cached, because their key was deleted or set while they ran"),
    counter("lazy_layers_cache.load.joined", "{call}", |it| it.joined,
        "Calls that joined a load that another caller had started"),
    counter("lazy_layers_cache.load.bypassed", "{call}", |it| it.bypassed,
        "Calls that loaded outside the single flight, because coalescing was off or full"),
    counter("lazy_layers_cache.invalidations_lost", "{invalidation}", |it| it.invalidations_lost,
        "Invalidations that had not reached L2 or the bus when the cache was closed or dropped"),
    counter("lazy_layers_cache.bus.messages_received", "{message}", |it| it.events_received,
        "Messages of peers that were applied"),
    counter("lazy_layers_cache.bus.messages_duplicate", "{message}", |it| it.events_duplicate,
        "Messages of peers that arrived again and were ignored"),
    counter("lazy_layers_cache.bus.messages_undecodable", "{message}", |it| it.events_refused,
        "Received messages that could not be decoded"),
    counter("lazy_layers_cache.bus.messages_refused", "{message}", |it| it.bus_refused,
        "Messages that the broker refused because of their size, a permission or a policy"),
    counter("lazy_layers_cache.bus.messages_skipped", "{message}", |it| it.bus_skipped,
        "Messages that were queued while the circuit for publishing was open or all were refused"),
    counter("lazy_layers_cache.bus.invalidations_widened", "{invalidation}", |it| it.bus_widened,
        "Invalidations that were replaced by one that covers more keys"),
    counter("lazy_layers_cache.bus.values_sent", "{value}", |it| it.values_sent,
        "Values queued to be published to peers"),
    counter("lazy_layers_cache.bus.values_received", "{value}", |it| it.values_received,
        "Values of peers that were written to L1"),
    counter("lazy_layers_cache.bus.values_not_sent", "{value}", |it| it.values_not_sent,
        "Values that were not published to peers"),
    counter("lazy_layers_cache.bus.errors", "{call}", |it| it.bus_errors,
        "Attempts to publish or to subscribe that failed"),
    counter("lazy_layers_cache.bus.gaps", "{time}", |it| it.bus_gaps,
        "How often messages were lost, or may have been, and L1 was marked untrusted"),
    counter("lazy_layers_cache.bus.shared_instance_ids", "{time}",
        |it| it.bus_shared_instance_ids,
        "How often two live processes with one instance id were noticed"),
    gauge("lazy_layers_cache.l1.entries", "{entry}", |it| Some(it.stats.l1_entries),
        "Entries in L1, stale copies included"),
    gauge("lazy_layers_cache.l1.weight", "", |it| Some(it.stats.l1_weight),
        "Total weight of these entries by the weigher; their number without one"),
    gauge("lazy_layers_cache.load.running", "{load}", |it| Some(it.stats.loads_in_flight),
        "Loads that are running"),
    gauge("lazy_layers_cache.origin.failing", "", |it| Some(it.origin_is_failing()),
        "1 if the last load to end failed"),
    gauge("lazy_layers_cache.l2.circuit_open", "", Snapshot::l2_is_skipped,
        "1 if the circuit of L2 is open, so that calls skip it"),
    gauge("lazy_layers_cache.l2.pending_invalidations", "{invalidation}",
        |it| it.pending_invalidations.map(|number| number as u64),
        "Invalidations that have not reached L2 yet and are retried"),
    gauge("lazy_layers_cache.bus.subscribed", "",
        |it| it.health.event_bus.map(|bus| u64::from(bus.subscribed)),
        "1 if the cache is subscribed to the messages of its peers"),
    gauge("lazy_layers_cache.bus.l1_trusted", "",
        |it| it.health.event_bus.map(|bus| u64::from(bus.trusted)),
        "1 if entries of L1 are served without a lookup in L2"),
    gauge("lazy_layers_cache.bus.circuit_open", "",
        |it| it.health.event_bus.map(|bus| u64::from(bus.publishing_skipped)),
        "1 if the circuit for publishing is open, so that messages wait"),
    gauge("lazy_layers_cache.bus.publishing_refused", "",
        |it| it.health.event_bus.map(|bus| u64::from(bus.publishing_refused)),
        "1 if the broker refuses all messages"),
    gauge("lazy_layers_cache.bus.outbox_waiting", "{message}",
        |it| it.health.event_bus.map(|bus| bus.waiting as u64),
        "Messages that wait to be published"),
    gauge("lazy_layers_cache.closed", "", |it| Some(u64::from(it.health.closed)),
        "1 if the cache was closed"),
    durations("lazy_layers_cache.load.duration", Timed::Load,
        "Duration of the loads that have ended, failed ones included"),
    durations("lazy_layers_cache.l2.call.duration", Timed::L2Call,
        "Duration of the calls of L2, failed ones included, skipped ones not"),
    durations("lazy_layers_cache.bus.publish.duration", Timed::Publication,
        "Duration of the attempts to publish a message, failed ones included, beacons not"),
];

impl Snapshot {
    fn origin_is_failing(&self) -> u64 {
        u64::from(matches!(self.health.origin, OriginHealth::Failing { .. }))
    }

    fn l2_is_skipped(&self) -> Option<u64> {
        self.health.l2.map(|l2| u64::from(l2 == L2Health::Skipped))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documentation_has_a_row_for_each_metric_and_no_other() {
        let documented: Vec<&str> = include_str!("../../../docs/metrics.md")
            .lines()
            .filter(|line| line.starts_with("| `lazy_layers_cache"))
            .collect();
        let expected: Vec<String> = NAMED
            .iter()
            .map(|(prometheus, metric)| {
                let kind = match metric.value {
                    Value::Counter(_) => "counter",
                    Value::Gauge(_) => "gauge",
                    Value::Histogram(_) => "histogram",
                };
                let (name, unit, description) = (metric.name, metric.unit, metric.description);
                format!("| `{prometheus}` | `{name}` | {kind} | {unit} | {description} |")
            })
            .collect();
        assert_eq!(documented, expected, "docs/metrics.md should have:\n{}", expected.join("\n"));
    }

    #[test]
    fn each_number_of_the_stats_is_exported_once() {
        let stats = Stats::distinct();
        let counters = METRICS.iter().filter_map(|metric| match metric.value {
            Value::Counter(read) => Some(read(&stats)),
            _ => None,
        });
        let health = Health {
            name: None,
            origin: OriginHealth::Answering,
            l2: None,
            event_bus: None,
            loads_in_flight: 0,
            closed: false,
        };
        let snapshot = Snapshot { stats, health, pending_invalidations: None };
        let gauges = METRICS.iter().filter_map(|metric| match metric.value {
            Value::Gauge(read) => read(&snapshot).filter(|value| *value > 0),
            _ => None,
        });
        let mut exported: Vec<u64> = counters.chain(gauges).collect();
        exported.sort_unstable();
        assert_eq!(exported, (1..=stats.iter().count() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn no_name_comes_twice_and_each_keeps_the_conventions() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        let prometheus: BTreeSet<&str> = NAMED.iter().map(|(name, _)| &**name).collect();
        assert_eq!((names.len(), prometheus.len()), (METRICS.len(), METRICS.len()));
        for metric in METRICS {
            let is_namespace = |name: &&&str| name.starts_with(&format!("{}.", metric.name));
            assert_eq!(names.iter().find(is_namespace), None, "{} is a namespace", metric.name);
            let is_plain =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
            assert!(metric.name.chars().all(is_plain), "{}", metric.name);
            assert!(!metric.description.ends_with('.') && !metric.description.contains('|'));
        }
    }
}
