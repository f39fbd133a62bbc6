//! Starts a subscription, and finds out whether a durable queue is still the same.
//!
//! A queue of this name may have been deleted and declared again since the last subscription. So a
//! durable queue is bound to a second exchange of our own, the companion. Nobody publishes to it,
//! and the broker deletes it with the queue. If the companion exists, the queue is the same.

use lapin::{
    Channel, Consumer, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{
    connection::BrokerConnection,
    publisher::{check_exchange, declare_exchange},
    topology::Topology,
};
use crate::error::BoxError;

/// Starts to consume. Also returns whether the queue and its companion already existed.
pub(crate) async fn subscribe(
    connection: &BrokerConnection,
    topology: &Topology,
) -> Result<(Consumer, bool), BoxError> {
    let channel = connection.channel().await?;
    declare_exchange(&channel, topology).await?;
    let (queue, same_queue) = match topology.durable_queue() {
        Some(queue) => {
            let existed = ensure_durable_queue(connection, &channel, queue, topology).await?;
            (queue.to_owned(), existed)
        }
        None => (declare(&channel, topology).await?, false),
    };
    bind(&channel, &queue, &topology.exchange, &topology.routing_key).await?;
    channel.basic_qos(topology.prefetch, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    // The broker chooses the consumer tag.
    let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await?;
    Ok((consumer, same_queue))
}

/// Declares the queue and its companion. Returns whether both already existed.
async fn ensure_durable_queue(
    connection: &BrokerConnection,
    channel: &Channel,
    queue: &str,
    topology: &Topology,
) -> Result<bool, BoxError> {
    let companion = format!("{queue}.kept");
    // Each passive declare has a channel of its own, which the broker closes if it finds nothing.
    let probe = connection.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let has_queue = found(probe.queue_declare(queue.into(), options, FieldTable::default()).await)?;
    if !has_queue {
        declare(channel, topology).await?;
    }
    let probe = connection.channel().await?;
    let (name, kind) = (companion.as_str(), ExchangeKind::Fanout);
    let has_companion = found(check_exchange(&probe, name, &kind).await)?;
    let options = ExchangeDeclareOptions {
        durable: true,
        auto_delete: true,
        internal: true,
        ..ExchangeDeclareOptions::default()
    };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await?;
    bind(channel, queue, name, "").await?;
    Ok(has_queue && has_companion)
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

/// Whether a passive declare has found its object.
fn found<T>(declared: lapin::Result<T>) -> Result<bool, BoxError> {
    const NOT_FOUND: u16 = 404;
    match declared {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(refusal) if refusal.get_id() == NOT_FOUND => Ok(false),
            _ => Err(error.into()),
        },
    }
}
