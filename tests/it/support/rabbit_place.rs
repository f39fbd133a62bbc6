//! The exchange and the queues of one test on a RabbitMQ that several tests share.

use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::{Connection, ConnectionProperties};
use lazy_layers_cache::{MessageStream, RabbitMqOptions, RabbitMqTransport};
use tokio::time::timeout;

use super::{ms, rabbitmq::RabbitServer};

/// An exchange and queue names of one test.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn on(server: &RabbitServer) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self { url: server.url(), name: format!("test-{}", COUNT.fetch_add(1, Ordering::SeqCst)) }
    }

    pub(crate) fn transient(&self) -> RabbitMqOptions {
        RabbitMqOptions::new(&self.url).exchange(&self.name)
    }

    pub(crate) fn queue(&self, instance: &str) -> String {
        format!("{}-{instance}", self.name)
    }

    pub(crate) fn durable(&self, instance: &str) -> RabbitMqOptions {
        self.transient().durable_queue(self.queue(instance))
    }

    pub(crate) async fn admin(&self) -> lapin::Channel {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await;
        connection.unwrap().create_channel().await.unwrap()
    }
}

pub(crate) fn transport(options: RabbitMqOptions) -> RabbitMqTransport {
    RabbitMqTransport::new(options).unwrap()
}

/// Asks for one more message, which acknowledges all that arrived.
pub(crate) async fn settle(messages: &mut dyn MessageStream) {
    timeout(ms(100), messages.next()).await.expect_err("no further message arrives");
}
