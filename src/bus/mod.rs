//! How events travel between instances: the contract, the transport within one process, and those
//! over brokers.

#[cfg(feature = "jetstream")]
mod jetstream;
mod local;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nats")]
mod queue;
#[cfg(feature = "nats")]
mod task;
#[cfg(feature = "nats")]
mod tls;
mod transport;

#[cfg(feature = "jetstream")]
pub use self::jetstream::{JetStreamOptions, JetStreamStorage, JetStreamTransport};
#[cfg(feature = "nats")]
pub use self::nats::{NatsConnection, NatsOptions, NatsTransport};
#[cfg(feature = "nats")]
pub use self::tls::TlsOptions;
pub use self::{
    local::LocalTransport,
    transport::{Delivery, Events, Subscribed, Transport, TransportFuture},
};
