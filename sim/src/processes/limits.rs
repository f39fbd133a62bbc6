//! Upper bounds of delays of real processes.

use crate::bounds::Bounds;

/// Each bound includes the delay that a busy machine with few cores adds.
pub(super) const BOUNDS: Bounds = Bounds {
    latency: 500,
    trust: 3_000,
    gap_check: 250 + 500 + 500,
    republish: 1_500,
    beacons: 4_500,
    heard: 17_000,
    send: 500,
    flush: 500,
    slack: 1_000,
};
/// From the end of all faults until all instances are up to date.
pub(super) const RECOVERY: u64 = 5_000;
/// The time in which an instance receives the backlog of a flood.
pub(super) const CATCH_UP: u64 = 40_000;
