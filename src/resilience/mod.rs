//! Tools against failing dependencies: the circuit breaker, the deadline.

mod breaker;
mod deadline;

pub(crate) use self::{
    breaker::Breaker,
    deadline::{Late, within},
};
