//! How a subscription begins, and how it is known whether the queue kept all since the last one.
//!
//! That a queue of this name exists proves little: somebody may have deleted it and made it again.
//! So a queue that stays is bound to a second exchange of our own, which receives nothing and
//! which the broker deletes with the queue: where it is still there, so is the queue it was made
//! for.

use lapin::{
    Channel, Consumer, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{connection::Link, publisher::declare_exchange, topology::Topology};
use crate::error::BoxError;

/// What comes in, and whether the queue is the same as before.
pub(crate) struct Begun {
    pub(crate) consumer: Consumer,
    pub(crate) same_queue: bool,
}

pub(crate) async fn begin(link: &Link, topology: &Topology) -> Result<Begun, BoxError> {
    let channel = link.channel().await?;
    declare_exchange(&channel, topology).await?;
    let (queue, same_queue) = match topology.keeps() {
        Some(queue) => (queue.to_owned(), keep(link, &channel, queue, topology).await?),
        None => (declare(&channel, topology).await?, false),
    };
    let (name, key) = (topology.exchange.as_str(), topology.routing_key.as_str());
    bind(&channel, &queue, name, key).await?;
    channel.basic_qos(topology.prefetch, BasicQosOptions::default()).await?;
    let consumer = channel
        .basic_consume(
            queue.into(),
            // The broker makes one up.
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(Begun { consumer, same_queue })
}

/// Sees to the queue and its companion, and says whether both were there.
async fn keep(
    link: &Link,
    channel: &Channel,
    queue: &str,
    topology: &Topology,
) -> Result<bool, BoxError> {
    let companion = format!("{queue}.kept");
    let there = {
        // On channels of their own, which a refusal closes.
        let asked = link.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        exists(asked.queue_declare(queue.into(), options, FieldTable::default()).await)?
    };
    if !there {
        declare(channel, topology).await?;
    }
    let asked = link.channel().await?;
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let (name, kind) = (companion.as_str(), ExchangeKind::Fanout);
    let same = exists(
        asked.exchange_declare(name.into(), kind.clone(), options, FieldTable::default()).await,
    )?;
    let options = ExchangeDeclareOptions {
        durable: true,
        auto_delete: true,
        internal: true,
        ..ExchangeDeclareOptions::default()
    };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await?;
    bind(channel, queue, name, "").await?;
    Ok(there && same)
}

async fn declare(channel: &Channel, topology: &Topology) -> Result<String, BoxError> {
    let options = QueueDeclareOptions {
        durable: topology.durable,
        exclusive: topology.exclusive,
        auto_delete: topology.auto_delete,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    if !topology.exclusive {
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(topology.expires.into()));
    }
    let name = topology.queue.as_deref().unwrap_or_default();
    let queue = channel.queue_declare(name.into(), options, arguments).await?;
    Ok(queue.name().as_str().to_owned())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), BoxError> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    Ok(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await?)
}

fn exists<T>(asked: lapin::Result<T>) -> Result<bool, BoxError> {
    const NOT_FOUND: u16 = 404;
    match asked {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(refusal) if refusal.get_id() == NOT_FOUND => Ok(false),
            _ => Err(error.into()),
        },
    }
}
