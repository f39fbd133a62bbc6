//! With one of the features of metrics: the label of a cache, and where its durations go.

use tokio::time::Instant;

use super::{facade::FacadeDurations, label::Label, otel::OtelDurations, timed::Timed};
use crate::contain::contain;

pub(crate) struct Metrics {
    pub(crate) label: Label,
    facade: FacadeDurations,
    pub(crate) otel: OtelDurations,
}

/// The start of a step that is timed; none if nobody records its duration.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) struct Timer(Option<Instant>);

impl Metrics {
    pub(crate) fn of_cache(name: Option<&str>) -> Self {
        let label = Label::claim(name);
        Self { facade: FacadeDurations::new(label.text()), label, otel: OtelDurations::new() }
    }

    pub(crate) fn start(&self) -> Timer {
        let is_recorded = FacadeDurations::ARE_RECORDED || self.otel.are_recorded();
        Timer(is_recorded.then(Instant::now))
    }

    pub(crate) fn record(&self, timed: Timed, timer: Timer) {
        let Some(start) = timer.0 else { return };
        let took = start.elapsed();
        // A recorder is code of the user, and must not end a load.
        // mutant contained-recorder: s/contain(|| {/Some({/
        let _ = contain(|| {
            self.facade.record(timed, took);
            self.otel.record(timed, took);
        });
    }
}
