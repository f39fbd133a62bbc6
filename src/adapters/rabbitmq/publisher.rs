//! Publishes over one channel with confirms, on a connection that no subscription uses.

use std::sync::atomic::{AtomicBool, Ordering};

use lapin::{
    BasicProperties, Channel, Confirmation, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};

use super::{
    connection::{BrokerConnection, Origin},
    topology::Topology,
};
use crate::error::BoxError;

pub(crate) struct Publisher {
    channel: Channel,
    pub(crate) connection: BrokerConnection,
    /// Set when a caller stopped waiting for an answer.
    pub(crate) in_doubt: AtomicBool,
}

impl Publisher {
    pub(crate) async fn open(origin: &Origin, topology: &Topology) -> Result<Self, BoxError> {
        let connection = BrokerConnection::open(origin).await?;
        let channel = connection.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        declare_exchange(&channel, topology).await?;
        Ok(Self { channel, connection, in_doubt: AtomicBool::new(false) })
    }

    pub(crate) fn is_usable(&self) -> bool {
        // A blocked broker answers nothing, so a missing answer says nothing about the connection.
        let in_doubt = self.in_doubt.load(Ordering::Relaxed) && !self.connection.is_blocked();
        !in_doubt && self.connection.is_connected() && self.channel.status().connected()
    }

    /// Publishes and waits for the confirm. Returns false if `must_arrive` is set and no queue is
    /// bound.
    pub(crate) async fn publish(
        &self,
        topology: &Topology,
        message: &[u8],
        must_arrive: bool,
    ) -> Result<bool, BoxError> {
        let (exchange, key) = (topology.exchange.as_str(), topology.routing_key.as_str());
        let options = BasicPublishOptions { mandatory: must_arrive, immediate: false };
        let mode = if topology.persistent { 2 } else { 1 };
        let mode = BasicProperties::default().with_delivery_mode(mode);
        let publish =
            self.channel.basic_publish(exchange.into(), key.into(), options, message, mode);
        match publish.await?.await? {
            // The broker returns a message for which no queue is bound.
            Confirmation::Ack(returned) => Ok(returned.is_none()),
            Confirmation::Nack(_) => Err("the broker refused the message".into()),
            Confirmation::NotRequested => Err("the broker does not confirm messages".into()),
        }
    }
}

pub(crate) async fn declare_exchange(
    channel: &Channel,
    topology: &Topology,
) -> Result<(), BoxError> {
    let options =
        ExchangeDeclareOptions { durable: topology.durable, ..ExchangeDeclareOptions::default() };
    let name = topology.exchange.as_str();
    let fix = "exchange_type and durable must be the same on all instances";
    channel
        .exchange_declare(name.into(), topology.kind.clone(), options, FieldTable::default())
        .await
        .map_err(|error| format!("exchange {name}: {error}; {fix}").into())
}

pub(crate) async fn check_exchange(
    channel: &Channel,
    name: &str,
    kind: &ExchangeKind,
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default()).await
}
