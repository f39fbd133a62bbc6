//! A subscription to a queue, on a connection of its own.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{Consumer, message, options::BasicAckOptions};
use tokio::{sync::watch, time::timeout};

use super::{connection::BrokerConnection, publisher::check_exchange, topology::Topology};
use crate::{
    adapters::{
        probe::probe_every,
        task::{AbortOnDrop, runtime},
    },
    bus::transport::{Delivery, MessageStream},
    error::BoxError,
};

/// Ends a subscription from elsewhere. Clones share one state, which is never reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    pub(crate) fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until any clone is triggered; for ever if none is. Cancel safe.
    pub(crate) async fn triggered(&self) {
        let _ = self.0.subscribe().wait_for(|is_triggered| *is_triggered).await;
    }
}

pub(crate) struct RabbitMqMessageStream {
    /// Dropped with the first failure.
    open: Option<Open>,
    pub(crate) shutdown: Shutdown,
    limit: Duration,
}

struct Open {
    consumer: Consumer,
    /// Delivered to the subscriber, which has not yet asked for the next message.
    unacked: Option<message::Delivery>,
    _watch: AbortOnDrop,
    /// The last field, because the others use the connection when they are dropped.
    _connection: Arc<BrokerConnection>,
}

impl RabbitMqMessageStream {
    pub(crate) async fn open(
        connection: BrokerConnection,
        consumer: Consumer,
        topology: &Topology,
        (heartbeat, limit): (Duration, Duration),
    ) -> Result<Self, BoxError> {
        let (connection, shutdown) = (Arc::new(connection), Shutdown::default());
        let probes = connection.channel().await?;
        // Ends the subscription when the broker no longer answers, or the exchange is gone.
        let watching = {
            let (connection, topology) = (Arc::clone(&connection), topology.clone());
            let shutdown = shutdown.clone();
            async move {
                let (connection, probes, topology) = (&connection, &probes, &topology);
                probe_every(heartbeat, || async move {
                    // A connection of the application that also publishes may be blocked. The
                    // client sends nothing on it then, so there is no way to probe.
                    if connection.is_blocked() && connection.is_connected() {
                        return Ok(());
                    }
                    check_exchange(probes, &topology.exchange, &topology.kind).await
                })
                .await;
                shutdown.trigger();
            }
        };
        let watch = AbortOnDrop::spawn(&runtime()?, watching);
        let open = Some(Open { consumer, unacked: None, _watch: watch, _connection: connection });
        Ok(Self { open, shutdown, limit })
    }

    async fn next_or_none(&mut self) -> Option<Delivery> {
        let open = self.open.as_mut()?;
        if let Some(delivery) = &open.unacked {
            // Returns false if an earlier call of ours, which was dropped, has sent the ack.
            timeout(self.limit, delivery.ack(BasicAckOptions::default())).await.ok()?.ok()?;
        }
        open.unacked = None;
        tokio::select! {
            biased;
            () = self.shutdown.triggered() => None,
            // If the queue is deleted, the stream ends without an error.
            delivery = open.consumer.next() => {
                let mut delivery = delivery?.ok()?;
                let payload = std::mem::take(&mut delivery.data);
                open.unacked = Some(delivery);
                Some(Delivery::Message(payload))
            }
        }
    }
}

impl MessageStream for RabbitMqMessageStream {
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

impl Drop for RabbitMqMessageStream {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
