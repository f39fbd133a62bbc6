//! How events travel between instances.
//!
//! `transport.rs` is the contract of what carries them, `local.rs` carries them within one process;
//! `nats`, `jetstream`, `rabbitmq` and `redis` do by way of a broker, with `queue.rs`, `task.rs` and `tls.rs`
//! as what they share. The rest is pure, told the time and given the bytes: `message.rs` is an
//! event, `outbox.rs` what is to be published, `dedupe.rs` what was here before, `order.rs` whether a
//! value may be older than a delete, and `gaps.rs` with `pulse.rs` notices what never came.
//! `member.rs` is all of it under one lock, for one instance.

mod event_bus;
pub(crate) mod inbox;
mod local;
mod protocol;
pub(crate) mod transport;
mod wire;

pub use self::{
    event_bus::{BusProbe, EventBus},
    local::LocalTransport,
    transport::{Delivery, MessageStream, Subscribed, Transport, TransportFuture},
};
pub(crate) use self::{
    protocol::{
        gap_detector::GapReason,
        outbox::Change,
        session::{BusSession, SendAction, SessionConfig, Standing},
    },
    wire::{
        decode_error::DecodeError,
        envelope::{add_prefix, strip_prefix, unwrap_body},
        message::{Message, MessageKind},
    },
};
