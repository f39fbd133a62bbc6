//! Tools against failing dependencies: the circuit breaker, the deadline.

mod backoff;
mod breaker;
mod deadline;

pub(crate) use self::{
    backoff::Backoff,
    breaker::Breaker,
    deadline::{Late, beside, there_is_a_timer, unless, within},
};
