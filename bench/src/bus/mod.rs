//! The bus: a burst of messages, idle instances, the propagation of a delete, and many caches.

mod bare;
mod burst;
mod caches;
mod idle;
mod propagation;
#[expect(dead_code, clippy::unwrap_used, reason = "files of the tests")]
mod servers;

use crate::report::Report;

pub(crate) use self::{
    burst::{BURST, burst},
    caches::{EMPTY, empty, run as run_caches},
};

pub(crate) fn run(report: &mut Report) {
    burst::run(report);
    idle::run(report);
    propagation::run(report);
}

/// Processor time that this process has used.
fn processor_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
