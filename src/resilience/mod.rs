//! Tools against failing dependencies: the circuit breaker, the deadline, the wait before trying
//! again.

#[cfg_attr(not(test), expect(dead_code, reason = "the cache does not listen to a bus yet"))]
mod backoff;
mod breaker;
mod deadline;

pub(crate) use self::{
    breaker::Breaker,
    deadline::{Late, within},
};
