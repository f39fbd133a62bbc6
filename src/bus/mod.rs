//! How events travel between instances: the contract, and the transport within one process.

mod dedupe;
mod fields;
mod fingerprint;
#[cfg(test)]
mod fleet;
mod gaps;
mod limits;
mod local;
mod message;
mod outbox;
mod pack;
mod payload;
mod pulse;
mod refused;
mod transport;

pub use self::{
    local::LocalTransport,
    transport::{Delivery, Events, Subscribed, Transport, TransportFuture},
};
