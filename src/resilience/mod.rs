//! Tools against failing dependencies: circuit breaker, backoff, timeouts, bounded blocking pool,
//! task tracker.

mod backoff;
pub(crate) mod blocking_pool;
mod breaker;
mod deadline;
mod drop_guard;
pub(crate) mod task_tracker;

pub(crate) use self::{
    backoff::Backoff,
    breaker::{Breaker, Permit},
    deadline::{Elapsed, has_timer, run_alongside, run_until, timeout},
    drop_guard::DropGuard,
};
