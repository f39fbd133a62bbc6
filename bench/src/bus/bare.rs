//! The base for the propagation of a delete: the client of each transport alone, with two
//! subscribers, as two instances have them, and with the confirmations that the transport waits
//! for.

use std::{pin::Pin, sync::Arc, time::Instant};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream,
};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use lazy_layers_cache::{Delivery, LocalTransport, Transport};
use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::servers::{nats::NatsServer, rabbitmq::RabbitServer, redis::RedisServer};

const NAME: &str = "bare";
/// The size of the message of a delete.
const EVENT: [u8; 150] = [7; 150];

type Ear = Box<dyn Fn() + Send>;
type Publishing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A publisher, which returns when its message is confirmed, and the times of arrival at the peer.
pub(super) struct Bare {
    publish: Box<dyn Fn() -> Publishing<'static> + Send + Sync>,
    received: UnboundedReceiver<Instant>,
}

impl Bare {
    fn new<F>(
        publish: impl Fn() -> F + Send + Sync + 'static,
        received: UnboundedReceiver<Instant>,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { publish: Box::new(move || Box::pin(publish())), received }
    }

    /// Seconds from the call of publish to the receiver.
    pub(super) async fn sample(&mut self) -> f64 {
        let begun = Instant::now();
        (self.publish)().await;
        let received = self.received.recv().await.expect("it is received");
        received.duration_since(begun).as_secs_f64()
    }

    /// The transport within the process is its own client.
    pub(super) async fn local() -> Self {
        let transport = LocalTransport::new();
        let (noting, received) = ears();
        for note in noting {
            let mut events = transport.subscribe().await.expect("it listens").messages;
            tokio::spawn(async move {
                while let Delivery::Message(_) = events.next().await {
                    note();
                }
            });
        }
        let publish = move || {
            let transport = transport.clone();
            async move { transport.publish(&EVENT).await.expect("it takes all") }
        };
        Self::new(publish, received)
    }

    /// Confirmed by the server's answer.
    pub(super) async fn redis(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).expect("a URL");
        let (noting, received) = ears();
        for note in noting {
            let (mut sink, mut stream) =
                client.get_async_pubsub().await.expect("it answers").split();
            sink.subscribe(NAME).await.expect("it answers");
            tokio::spawn(async move {
                while stream.next().await.is_some() {
                    note();
                }
                drop(sink);
            });
        }
        let connection = client.get_multiplexed_async_connection().await.expect("it answers");
        let publish = move || {
            let mut connection = connection.clone();
            async move {
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(NAME).arg(&EVENT);
                publish.exec_async(&mut connection).await.expect("it is taken");
            }
        };
        Self::new(publish, received)
    }

    /// Confirmed by a message to the publisher itself that follows.
    pub(super) async fn nats(server: &NatsServer) -> Self {
        let connect = || async { async_nats::connect(server.url()).await.expect("it answers") };
        let publisher = connect().await;
        let (noting, received) = ears();
        for (note, client) in noting.into_iter().zip([publisher.clone(), connect().await]) {
            let mut events = subscribed(&client).await;
            tokio::spawn(async move {
                while events.next().await.is_some() {
                    note();
                }
                drop(client);
            });
        }
        let inbox = publisher.new_inbox();
        let echoes = publisher.subscribe(inbox.clone()).await.expect("it is connected");
        let echoes = Arc::new(Mutex::new(echoes));
        let publish = move || {
            let (publisher, inbox, echoes) = (publisher.clone(), inbox.clone(), echoes.clone());
            async move {
                publisher.publish(NAME, EVENT.to_vec().into()).await.expect("it is connected");
                publisher.publish(inbox, Vec::new().into()).await.expect("it is connected");
                echoes.lock().await.next().await.expect("it comes back");
            }
        };
        Self::new(publish, received)
    }

    /// Confirmed by the stream, and by the consumer.
    pub(super) async fn jetstream(server: &NatsServer) -> Self {
        let connect = || async { async_nats::connect(server.url()).await.expect("it answers") };
        let publisher = jetstream::new(connect().await);
        let stream = stream::Config {
            name: NAME.to_owned(),
            subjects: vec![NAME.to_owned()],
            ..stream::Config::default()
        };
        publisher.create_stream(stream).await.expect("it is made");
        let (noting, received) = ears();
        let contexts = [publisher.clone(), jetstream::new(connect().await)];
        for (number, (note, context)) in noting.into_iter().zip(contexts).enumerate() {
            let stream = context.get_stream(NAME).await.expect("it is there");
            let consumer = pull::Config {
                durable_name: Some(format!("{NAME}{number}")),
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::Explicit,
                ..pull::Config::default()
            };
            let consumer = stream.create_consumer(consumer).await.expect("it is made");
            let mut messages = consumer.messages().await.expect("it delivers");
            tokio::spawn(async move {
                while let Some(Ok(message)) = messages.next().await {
                    note();
                    // The server ends with its table.
                    let _ = message.ack().await;
                }
            });
        }
        let publish = move || {
            let publisher = publisher.clone();
            async move {
                let sent = publisher.publish(NAME, EVENT.to_vec().into()).await;
                sent.expect("it is connected").await.expect("it is stored");
            }
        };
        Self::new(publish, received)
    }

    /// Confirmed by the broker, and by the consumer, on a connection each.
    pub(super) async fn rabbitmq(server: &RabbitServer) -> Self {
        let url = server.url();
        let channel = || async {
            let connection = Connection::connect(&url, ConnectionProperties::default()).await;
            let connection = connection.expect("it answers");
            let channel = connection.create_channel().await.expect("it answers");
            (connection, channel)
        };
        let none = FieldTable::default;
        let (noting, received) = ears();
        for (number, note) in noting.into_iter().enumerate() {
            let (connection, channel) = channel().await;
            let options = ExchangeDeclareOptions::default();
            let exchange =
                channel.exchange_declare(NAME.into(), ExchangeKind::Fanout, options, none());
            exchange.await.expect("it is made");
            let name = format!("{NAME}{number}");
            let options = QueueDeclareOptions {
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let queue = channel.queue_declare(name.as_str().into(), options, none());
            queue.await.expect("it is made");
            let options = QueueBindOptions::default();
            let bound =
                channel.queue_bind(name.as_str().into(), NAME.into(), "".into(), options, none());
            bound.await.expect("it is bound");
            channel.basic_qos(100, BasicQosOptions::default()).await.expect("it answers");
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(name.as_str().into(), "".into(), options, none());
            let mut deliveries = consumer.await.expect("it delivers");
            tokio::spawn(async move {
                while let Some(Ok(delivery)) = deliveries.next().await {
                    note();
                    let _ = delivery.ack(BasicAckOptions::default()).await;
                }
                drop(connection);
            });
        }
        let (connection, publisher) = channel().await;
        publisher.confirm_select(ConfirmSelectOptions::default()).await.expect("it answers");
        let publisher = Arc::new((publisher, connection));
        let publish = move || {
            let publisher = publisher.clone();
            async move {
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let properties = BasicProperties::default().with_delivery_mode(1);
                let sent =
                    publisher.0.basic_publish(NAME.into(), "".into(), options, &EVENT, properties);
                sent.await.expect("it is connected").await.expect("it is taken");
            }
        };
        Self::new(publish, received)
    }
}

/// Returns the subscription when the server has it, since an echo that was published later is back.
async fn subscribed(client: &async_nats::Client) -> async_nats::Subscriber {
    let events = client.subscribe(NAME).await.expect("it is connected");
    let inbox = client.new_inbox();
    let mut echoes = client.subscribe(inbox.clone()).await.expect("it is connected");
    client.publish(inbox, Vec::new().into()).await.expect("it is connected");
    echoes.next().await.expect("it comes back");
    events
}

/// The callbacks of the two subscribers: the publisher's own, whose messages are ignored, and the
/// peer's.
fn ears() -> ([Ear; 2], UnboundedReceiver<Instant>) {
    let (sender, received) = unbounded_channel();
    let note = move || {
        // The receiver is gone when the table is done.
        let _ = sender.send(Instant::now());
    };
    ([Box::new(|| ()), Box::new(note)], received)
}
