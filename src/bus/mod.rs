//! The event bus, over which instances of a cache receive each other's invalidations and values.

mod client;
mod event_bus;
pub(crate) mod inbox;
mod local;
mod protocol;
pub(crate) mod transport;
mod wire;

pub(crate) use self::client::{
    BusClient, BusPlace, CommittedBroadcast, PendingBroadcast, PublishProgress, PublishWatch,
    SessionOptions, SharedSession, Sink, Trust,
};
pub use self::{
    event_bus::{BusProbe, EventBus},
    local::LocalTransport,
    transport::{
        Delivery, MessageRefused, MessageStream, Prober, Subscribed, Transport, TransportFuture,
    },
};
