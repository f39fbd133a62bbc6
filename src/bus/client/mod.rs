//! The bus clients of the caches of an instance, and the session that they share: it publishes the
//! invalidations of the caches, applies those of their peers, and says how far L1 may be trusted.

mod broadcast;
mod bus_client;
mod bus_session;
mod log_timer;
mod member;
mod prober;
mod publish_report;
mod publisher;
mod receiver;
mod session_options;
mod shared_session;
mod sink;
mod subscriber;
mod trust;

pub(crate) use self::{
    broadcast::{CommittedBroadcast, PendingBroadcast, PublishProgress, PublishWatch},
    bus_client::{BusClient, BusPlace},
    session_options::SessionOptions,
    shared_session::SharedSession,
    sink::Sink,
    trust::Trust,
};
