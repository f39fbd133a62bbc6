//! Without the feature `opentelemetry`: no instruments.

use std::time::Duration;

use super::timed::Timed;

pub(crate) struct OtelDurations;

impl OtelDurations {
    pub(super) const fn new() -> Self {
        Self
    }

    pub(super) const fn are_recorded(&self) -> bool {
        false
    }

    pub(super) fn record(&self, _timed: Timed, _took: Duration) {}
}
