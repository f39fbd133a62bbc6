//! How events travel between instances.
//!
//! `transport.rs` is the contract of what carries them, `local.rs` carries them within one process;
//! `nats`, `jetstream`, `rabbitmq` and `redis` do by way of a broker, with `queue.rs`, `task.rs` and `tls.rs`
//! as what they share. The rest is pure, told the time and given the bytes: `message.rs` is an
//! event, `outbox.rs` what is to be published, `dedupe.rs` what was here before, `order.rs` whether a
//! value may be older than a delete, and `gaps.rs` with `pulse.rs` notices what never came.
//! `member.rs` is all of it under one lock, for one instance.

mod dedupe;
#[cfg(any(feature = "rabbitmq", feature = "redis"))]
mod doubt;
mod event_bus;
mod fields;
mod fingerprint;
#[cfg(test)]
mod fleet;
mod gaps;
#[cfg(feature = "nats")]
mod jetstream;
mod limits;
mod local;
mod member;
mod message;
#[cfg(feature = "nats")]
mod nats;
mod order;
mod outbox;
mod pack;
mod payload;
mod pulse;
#[cfg(any(feature = "nats", feature = "redis"))]
mod queue;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod refused;
#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis"))]
mod task;
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
mod tls;
mod transport;

#[cfg(feature = "nats")]
pub use self::jetstream::{JetStreamOptions, JetStreamStorage, JetStreamTransport};
#[cfg(feature = "nats")]
pub use self::nats::{NatsConnection, NatsOptions, NatsTransport};
#[cfg(feature = "rabbitmq")]
pub use self::rabbitmq::{RabbitMqExchangeType, RabbitMqOptions, RabbitMqTransport};
#[cfg(feature = "redis")]
pub use self::redis::{RedisTransport, RedisTransportBuilder, RedisTransportOptions};
#[cfg(any(feature = "nats", feature = "rabbitmq"))]
pub use self::tls::TlsOptions;
pub use self::{
    event_bus::{EventBus, EventBusHealth},
    local::LocalTransport,
    transport::{Delivery, Events, Subscribed, Transport, TransportFuture},
};
pub(crate) use self::{
    gaps::GapReason,
    member::{Errand, Manner, Member, Standing},
    message::{Kind, Message},
    outbox::Change,
    payload::{body, payload_of_value, value_of_payload},
    refused::Refused,
};
