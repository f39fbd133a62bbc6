//! How events travel between instances.
//!
//! `transport.rs` is the contract of what carries them, `local.rs` carries them within one process.
//! The rest is pure, told the time and given the bytes: `message.rs` is an event, `outbox.rs` what
//! is to be published, `dedupe.rs` what was here before, and `gaps.rs` with `pulse.rs` notices what
//! never came.

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
