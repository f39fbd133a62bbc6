//! Tools against failing dependencies: the circuit breaker, the deadline.

mod backoff;
pub(crate) mod blocking_pool;
mod breaker;
mod deadline;
pub(crate) mod task_tracker;

pub(crate) use self::{
    backoff::Backoff,
    breaker::Breaker,
    deadline::{Late, beside, there_is_a_timer, unless, within},
};
