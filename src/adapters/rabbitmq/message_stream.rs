//! A subscription to a queue, on a connection of its own.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{Channel, Consumer, message, options::BasicAckOptions};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{connection::Link, publisher::exchange_is_there, topology::Topology};
use crate::{
    adapters::task::{Task, runtime},
    bus::transport::{Delivery, MessageStream},
    error::BoxError,
};

/// Whether a subscription has come to its end. Whoever notices says so.
pub(crate) type End = Arc<watch::Sender<bool>>;

pub(crate) struct RabbitMqEvents {
    /// Gone with the first failure.
    open: Option<Open>,
    end: End,
    limit: Duration,
}

struct Open {
    consumer: Consumer,
    /// Brought, and not yet known to be dealt with.
    unacked: Option<message::Delivery>,
    _watch: Task,
    /// Last, so that what is on the connection goes first.
    _link: Arc<Link>,
}

impl RabbitMqEvents {
    pub(crate) async fn of(
        link: Link,
        consumer: Consumer,
        topology: &Topology,
        end: End,
        (heartbeat, limit): (Duration, Duration),
    ) -> Result<Self, BoxError> {
        let link = Arc::new(link);
        let asked = link.channel().await?;
        let watching = watch(Arc::clone(&link), asked, topology.clone(), heartbeat);
        let watching = {
            let end = Arc::clone(&end);
            async move {
                watching.await;
                end.send_replace(true);
            }
        };
        let watch = Task::on(&runtime()?, watching);
        let open = Some(Open { consumer, unacked: None, _watch: watch, _link: link });
        Ok(Self { open, end, limit })
    }

    async fn next_or_none(&mut self) -> Option<Delivery> {
        let open = self.open.as_mut()?;
        let mut end = self.end.subscribe();
        // What was brought last was dealt with, now that more is asked for.
        if let Some(delivery) = &open.unacked {
            // False where it was confirmed already, by a call that was dropped.
            timeout(self.limit, delivery.ack(BasicAckOptions::default())).await.ok()?.ok()?;
        }
        open.unacked = None;
        tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => None,
            // The stream ends without an error where the queue was deleted.
            delivery = open.consumer.next() => {
                let mut delivery = delivery?.ok()?;
                let event = std::mem::take(&mut delivery.data);
                open.unacked = Some(delivery);
                Some(Delivery::Message(event))
            }
        }
    }
}

/// Returns when the broker does not answer any more, or the exchange is gone.
async fn watch(link: Arc<Link>, asked: Channel, topology: Topology, heartbeat: Duration) {
    loop {
        sleep(heartbeat).await;
        // A connection of the user's: nothing is sent, and there is no way to know more.
        if link.is_blocked() && link.is_connected() {
            continue;
        }
        let answer = timeout(heartbeat.mul_f32(1.5), exchange_is_there(&asked, &topology)).await;
        if !matches!(answer, Ok(Ok(()))) {
            return;
        }
    }
}

impl MessageStream for RabbitMqEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async {
            let next = self.next_or_none().await;
            if next.is_none() {
                self.open = None;
            }
            next.unwrap_or(Delivery::Closed)
        })
    }
}

impl Drop for RabbitMqEvents {
    fn drop(&mut self) {
        self.end.send_replace(true);
    }
}
