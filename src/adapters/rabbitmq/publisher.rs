//! The way out: one channel with confirmations, on a connection of its own. A broker that runs out
//! of memory stops reading from who publishes, and must not stop what is received by that.

use std::sync::atomic::{AtomicBool, Ordering};

use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};

use super::{
    connection::{Link, Origin},
    topology::Topology,
};
use crate::error::BoxError;

pub(crate) struct Publisher {
    channel: Channel,
    link: Link,
    /// Whether somebody stopped waiting for an answer.
    pub(crate) in_doubt: AtomicBool,
}

/// What became of an event.
pub(crate) enum Published {
    /// In every queue that is bound.
    Taken,
    /// There was none.
    Unroutable,
}

impl Publisher {
    pub(crate) async fn open(origin: &Origin, topology: &Topology) -> Result<Self, BoxError> {
        let link = Link::open(origin).await?;
        let channel = link.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        declare_exchange(&channel, topology).await?;
        Ok(Self { channel, link, in_doubt: AtomicBool::new(false) })
    }

    pub(crate) fn works(&self) -> bool {
        // That a blocked broker does not answer proves nothing against the connection.
        let in_doubt = self.in_doubt.load(Ordering::Relaxed) && !self.is_blocked();
        !in_doubt && self.link.is_connected() && self.channel.status().connected()
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.link.is_blocked()
    }

    /// `must_arrive` asks the broker to tell where no queue is bound.
    pub(crate) async fn publish(
        &self,
        topology: &Topology,
        event: &[u8],
        must_arrive: bool,
    ) -> Result<Published, BoxError> {
        // Anything that is written to a blocked connection waits in memory.
        if self.is_blocked() {
            return Err("the broker takes no events: it runs out of memory or disk".into());
        }
        let mode = if topology.persistent { 2 } else { 1 };
        let confirmation = self
            .channel
            .basic_publish(
                topology.exchange.as_str().into(),
                topology.routing_key.as_str().into(),
                BasicPublishOptions { mandatory: must_arrive, immediate: false },
                event,
                BasicProperties::default().with_delivery_mode(mode),
            )
            .await?
            .await?;
        match confirmation {
            Confirmation::Ack(None) => Ok(Published::Taken),
            Confirmation::Ack(Some(_)) => Ok(Published::Unroutable),
            Confirmation::Nack(_) => Err("the broker refused the event".into()),
            Confirmation::NotRequested => Err("the broker does not confirm".into()),
        }
    }

    /// Whether the broker answers and the exchange is there.
    pub(crate) async fn check(&self, topology: &Topology) -> Result<(), BoxError> {
        if self.is_blocked() {
            return Err("the broker takes no events: it runs out of memory or disk".into());
        }
        // On a channel of its own, which a refusal closes.
        exchange_is_there(&self.link.channel().await?, topology).await
    }
}

pub(crate) async fn declare_exchange(
    channel: &Channel,
    topology: &Topology,
) -> Result<(), BoxError> {
    let options =
        ExchangeDeclareOptions { durable: topology.durable, ..ExchangeDeclareOptions::default() };
    let name = topology.exchange.as_str();
    channel
        .exchange_declare(name.into(), topology.kind.clone(), options, FieldTable::default())
        .await
        .map_err(|error| {
            format!(
                "exchange {name}: {error}; exchange_type and durable must be the same on all \
                 instances"
            )
        })?;
    Ok(())
}

pub(crate) async fn exchange_is_there(
    channel: &Channel,
    topology: &Topology,
) -> Result<(), BoxError> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let name = topology.exchange.as_str().into();
    let arguments = FieldTable::default();
    Ok(channel.exchange_declare(name, topology.kind.clone(), options, arguments).await?)
}
