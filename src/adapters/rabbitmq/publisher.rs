//! Publishes over one channel with confirms, on a connection that no subscription uses.

use std::sync::atomic::{AtomicBool, Ordering};

use lapin::{
    BasicProperties, Channel, Confirmation, ExchangeKind,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};

use super::{
    connection::{BrokerConnection, Origin},
    probe_message,
    refusal::{publish_error, rejected},
    topology::Topology,
};
use crate::error::BoxError;

pub(crate) struct Publisher {
    messages: Channel,
    /// Probes and beacons have a channel of their own: the broker closes the channel of a message
    /// that it refuses.
    signals: Channel,
    pub(crate) connection: BrokerConnection,
    /// Set when a caller stopped waiting for an answer.
    pub(crate) in_doubt: AtomicBool,
}

impl Publisher {
    pub(crate) async fn open(origin: &Origin, topology: &Topology) -> Result<Self, BoxError> {
        let connection = BrokerConnection::open(origin).await?;
        let messages = connection.channel().await?;
        let signals = connection.channel().await?;
        for channel in [&messages, &signals] {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
        }
        declare_exchanges(&messages, topology).await?;
        Ok(Self { messages, signals, connection, in_doubt: AtomicBool::new(false) })
    }

    pub(crate) fn is_usable(&self) -> bool {
        // A blocked broker answers nothing, so a missing answer says nothing about the connection.
        let in_doubt = self.in_doubt.load(Ordering::Relaxed) && !self.connection.is_blocked();
        let is_open = |channel: &Channel| channel.status().connected();
        !in_doubt
            && self.connection.is_connected()
            && is_open(&self.messages)
            && is_open(&self.signals)
    }

    /// Publishes and waits for the confirm. Returns false if `must_arrive` is set and no queue is
    /// bound.
    pub(crate) async fn publish(
        &self,
        topology: &Topology,
        message: &[u8],
        must_arrive: bool,
    ) -> Result<bool, BoxError> {
        let mode = if topology.persistent { 2 } else { 1 };
        let properties = BasicProperties::default().with_delivery_mode(mode);
        let route = (topology.exchange.as_str(), topology.routing_key.as_str());
        publish(&self.messages, route, message, properties, must_arrive).await
    }

    /// Publishes a beacon and waits for the confirm.
    pub(crate) async fn announce(
        &self,
        topology: &Topology,
        beacon: &[u8],
    ) -> Result<(), BoxError> {
        let properties = BasicProperties::default().with_delivery_mode(1);
        let route = (topology.beacons.as_str(), topology.routing_key.as_str());
        publish(&self.signals, route, beacon, properties, false).await?;
        Ok(())
    }

    /// Sends a probe to a queue and waits for the confirm. Returns false if there is no such queue.
    pub(crate) async fn probe(
        &self,
        queue: &str,
        properties: BasicProperties,
        number: u64,
    ) -> Result<bool, BoxError> {
        let body = probe_message::body(number);
        publish(&self.signals, ("", queue), &body, properties, true).await
    }
}

/// Publishes and waits for the confirm. Returns false if the broker has returned the message, which
/// it does if `must_arrive` is set and no queue is bound.
async fn publish(
    channel: &Channel,
    (exchange, key): (&str, &str),
    message: &[u8],
    properties: BasicProperties,
    must_arrive: bool,
) -> Result<bool, BoxError> {
    let options = BasicPublishOptions { mandatory: must_arrive, immediate: false };
    let publish = channel.basic_publish(exchange.into(), key.into(), options, message, properties);
    let confirmation = async { publish.await?.await }.await;
    match confirmation.map_err(|error| publish_error(error, exchange, message.len()))? {
        Confirmation::Ack(returned) => Ok(returned.is_none()),
        // mutant rejected-message: => Confirmation::Nack(_) => Ok(true),
        Confirmation::Nack(_) => Err(rejected()),
        Confirmation::NotRequested => Err("the broker does not confirm messages".into()),
    }
}

/// Declares the exchange of the messages and that of the beacons.
pub(crate) async fn declare_exchanges(
    channel: &Channel,
    topology: &Topology,
) -> Result<(), BoxError> {
    let kind = &topology.kind;
    let messages = declare_exchange(channel, &topology.exchange, kind, topology.durable);
    // Not deleted with its last queue: a beacon to a missing exchange would close the channel.
    let beacons = declare_exchange(channel, &topology.beacons, kind, false);
    tokio::try_join!(messages, beacons)?;
    Ok(())
}

async fn declare_exchange(
    channel: &Channel,
    name: &str,
    kind: &ExchangeKind,
    durable: bool,
) -> Result<(), BoxError> {
    let options = ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
    let declare =
        channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default());
    declare.await.map_err(|error| {
        let fix = "exchange_type and durable must be the same on all instances, and the user \
                   needs the permissions that RabbitMqTransport lists";
        format!("exchange {name}: {error}; {fix}").into()
    })
}

pub(crate) async fn check_exchange(
    channel: &Channel,
    name: &str,
    kind: &ExchangeKind,
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default()).await
}
