//! The bus client of an instance: it publishes the instance's invalidations, applies those of its
//! peers, and says how far L1 may be trusted.

mod broadcast;
mod bus_client;
mod log_timer;
mod prober;
mod publish_report;
mod publisher;
mod sink;
mod subscriber;
mod trust;

pub(crate) use self::{
    broadcast::{CommittedBroadcast, PendingBroadcast, PublishProgress, PublishWatch},
    bus_client::BusClient,
    sink::Sink,
};
