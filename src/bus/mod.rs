//! How events travel between instances: the contract, and the transport within one process.

mod local;
mod transport;

pub use self::{
    local::LocalTransport,
    transport::{Delivery, Events, Subscribed, Transport, TransportFuture},
};
