//! The event bus, over which instances of a cache receive each other's invalidations and values.
//!
//! | module | idea |
//! | --- | --- |
//! | `event_bus.rs` | the handle that a cache is given |
//! | `transport.rs` | the contract of a transport; the brokers are under `adapters/` |
//! | `local.rs` | the transport within one process |
//! | `inbox.rs` | a bounded queue of received messages, which the transports share |
//! | `wire/` | messages as bytes |
//! | `protocol/` | what one instance has to publish, and how far it received its peers: no I/O, no clock |
//! | `client/` | the two tasks that drive the protocol, and what a cache asks of them |

mod client;
mod event_bus;
pub(crate) mod inbox;
mod local;
mod protocol;
pub(crate) mod transport;
mod wire;

pub(crate) use self::client::{BusClient, Change, PendingBroadcast, Sink};
pub use self::{
    event_bus::{BusProbe, EventBus},
    local::LocalTransport,
    transport::{Delivery, MessageStream, Subscribed, Transport, TransportFuture},
};
