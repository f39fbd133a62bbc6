//! Starts a subscription, and finds out whether a durable queue is still the same.
//!
//! A queue of this name may have been deleted and declared again since the last subscription. So a
//! durable queue is bound to a second exchange of our own, the companion. Nobody publishes to it,
//! and the broker deletes it with the queue. If the companion exists, the queue is the same.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use lapin::{
    Channel, Consumer, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep};

use super::{
    connection::{BrokerConnection, CLOSE_TIMEOUT},
    intake::{Feed, Intake, Source},
    publisher::{check_exchange, declare_exchanges},
    topology::Topology,
};
use crate::error::BoxError;

/// A subscription that receives.
pub(crate) struct Started {
    pub(crate) queue: String,
    /// The tag of the consumer of the queue.
    pub(crate) tag: String,
    /// The durable queue as it was found.
    pub(crate) found: Found,
    pub(crate) intake: Arc<Intake>,
}

/// What the broker knew of a durable queue before the subscription. Nothing of other queues.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    /// Whether the queue and its companion already existed, and the queue had no other consumer.
    pub(crate) is_same: bool,
    /// How many messages were waiting.
    pub(crate) waiting: u32,
}

/// Starts to consume.
pub(crate) async fn subscribe(
    connection: &BrokerConnection,
    topology: &Topology,
    (prefetch, limit): (u16, Duration),
) -> Result<Started, BoxError> {
    let channel = connection.consuming_channel().await?;
    declare_exchanges(&channel, topology).await?;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let intake = Intake::bounded(topology.max_bytes);
    let messages = async {
        let (queue, found) = match topology.durable_queue() {
            Some(queue) => {
                // Longer than a connection needs to close, if that leaves time for the rest.
                let limit = CLOSE_TIMEOUT.mul_f32(1.2).min(limit / 2);
                let found = ensure_durable_queue(connection, &channel, queue, topology, limit);
                (queue.to_owned(), found.await?)
            }
            None => (declare(&channel, topology).await?, Found::default()),
        };
        let consumer = consume(&channel, &queue).await?;
        let source = Source::Queue(consumer.tag().as_str().to_owned());
        feed(&consumer, &intake, source.clone());
        bind(&channel, &queue, &topology.exchange, &topology.routing_key).await?;
        Ok::<_, BoxError>((queue, found, consumer, source))
    };
    let beacons = async {
        let queue = declare_queue(&channel, "", TRANSIENT, FieldTable::default()).await?;
        let consumer = consume(&channel, &queue).await?;
        feed(&consumer, &intake, Source::Beacons);
        // mutant beacons-last: insert bind(&channel, &queue, &topology.beacons, "").await?;
        Ok(queue)
    };
    let ((queue, found, mut consumer, source), beacons) = tokio::try_join!(messages, beacons)?;
    // After the messages: those that a beacon announces would else be missing.
    bind(&channel, &beacons, &topology.beacons, &topology.routing_key).await?;
    // The client may have received messages before the consumer had its delegate. The answer to the
    // last request came after them.
    while let Some(Some(Ok(early))) = consumer.next().now_or_never() {
        intake.push(early, &source);
    }
    let tag = consumer.tag().as_str().to_owned();
    Ok(Started { queue, tag, found, intake })
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer, BoxError> {
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    // The broker chooses the consumer tag.
    Ok(channel.basic_consume(queue.into(), "".into(), options, arguments).await?)
}

fn feed(consumer: &Consumer, intake: &Arc<Intake>, source: Source) {
    consumer.set_delegate(Feed { intake: Arc::clone(intake), source });
}

/// Declares the queue and its companion.
async fn ensure_durable_queue(
    connection: &BrokerConnection,
    channel: &Channel,
    queue: &str,
    topology: &Topology,
    limit: Duration,
) -> Result<Found, BoxError> {
    let companion = format!("{queue}.kept");
    // Each passive declare has a channel of its own, which the broker closes if it finds nothing.
    let probe = connection.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let find = || probe.queue_declare(queue.into(), options, FieldTable::default());
    let mut existing = if_found(find().await)?;
    let since = Instant::now();
    // The broker may still be closing the connection of the last subscription, whose unacknowledged
    // messages are not in the queue yet. If the broker has not noticed the end of that connection,
    // they come after newer ones, so the new subscription does not continue the last one.
    while existing.as_ref().is_some_and(|queue| queue.consumer_count() > 0)
        && since.elapsed() < limit
    {
        sleep(CLOSE_TIMEOUT / 20).await;
        existing = if_found(find().await)?;
    }
    if existing.is_none() {
        declare(channel, topology).await?;
    }
    // mutant dead-consumer: => let is_alone = existing.is_some();
    let is_alone = existing.as_ref().is_some_and(|queue| queue.consumer_count() == 0);
    let waiting = existing.map_or(0, |queue| queue.message_count());
    let probe = connection.channel().await?;
    let (name, kind) = (companion.as_str(), ExchangeKind::Fanout);
    let has_companion = if_found(check_exchange(&probe, name, &kind).await)?.is_some();
    let options = ExchangeDeclareOptions {
        durable: true,
        auto_delete: true,
        internal: true,
        ..ExchangeDeclareOptions::default()
    };
    channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await?;
    bind(channel, queue, name, "").await?;
    Ok(Found { is_same: is_alone && has_companion, waiting })
}

async fn declare(channel: &Channel, topology: &Topology) -> Result<String, BoxError> {
    let options = QueueDeclareOptions {
        durable: topology.durable,
        exclusive: topology.exclusive,
        auto_delete: topology.auto_delete,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    // Without arguments, unless the user asks for them: a declaration by amqplib has none.
    if let Some(expires) = topology.expires.filter(|_| !topology.exclusive) {
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(expires.into()));
    }
    let name = topology.queue.as_deref().unwrap_or_default();
    declare_queue(channel, name, options, arguments).await
}

/// The queue of the beacons: of this connection, and never on disk.
const TRANSIENT: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: false,
    exclusive: true,
    auto_delete: true,
    nowait: false,
};

/// Returns the name, which the broker chooses if it is empty.
async fn declare_queue(
    channel: &Channel,
    name: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<String, BoxError> {
    let queue = channel.queue_declare(name.into(), options, arguments).await?;
    Ok(queue.name().as_str().to_owned())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<(), BoxError> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    Ok(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments).await?)
}

/// Returns what a passive declare has found.
fn if_found<T>(declared: lapin::Result<T>) -> Result<Option<T>, BoxError> {
    const NOT_FOUND: u16 = 404;
    match declared {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.kind() {
            ErrorKind::ProtocolError(refusal) if refusal.get_id() == NOT_FOUND => Ok(None),
            _ => Err(error.into()),
        },
    }
}
