//! Tools against failing dependencies: the circuit breaker, the deadline.

mod backoff;
pub(crate) mod blocking_pool;
mod breaker;
mod deadline;
mod drop_guard;
pub(crate) mod task_tracker;

pub(crate) use self::{
    backoff::Backoff,
    breaker::Breaker,
    deadline::{Elapsed, has_timer, run_alongside, timeout, unless},
    drop_guard::DropGuard,
};
