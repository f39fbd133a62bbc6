//! A subscription to a queue, on a connection of its own.

use std::{pin::Pin, sync::Arc, time::Duration};

use lapin::{Acker, options::BasicAckOptions};
use tokio::time::timeout;

use super::{
    connection::BrokerConnection, intake::Intake, prefetch::Prefetch, publisher::check_exchange,
    shutdown::Shutdown, subscribe::Started, topology::Topology,
};
use crate::{
    adapters::{
        probe::probe_every,
        task::{AbortOnDrop, runtime},
    },
    bus::transport::{Delivery, MessageStream},
    error::BoxError,
};

pub(crate) struct RabbitMqMessageStream {
    /// Dropped with the first failure.
    open: Option<Open>,
    pub(crate) shutdown: Shutdown,
    prefetch: Arc<Prefetch>,
    limit: Duration,
}

struct Open {
    intake: Arc<Intake>,
    /// Delivered to the subscriber, which has not yet asked for the next message.
    unacked: Option<Acker>,
    _watch: AbortOnDrop,
    /// The last field, because the others use the connection when they are dropped.
    _connection: Arc<BrokerConnection>,
}

impl RabbitMqMessageStream {
    pub(crate) async fn open(
        connection: BrokerConnection,
        started: Started,
        topology: &Topology,
        prefetch: Arc<Prefetch>,
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
        let open =
            Open { intake: started.intake, unacked: None, _watch: watch, _connection: connection };
        Ok(Self { open: Some(open), shutdown, prefetch, limit })
    }

    async fn next_or_none(&mut self) -> Option<Delivery> {
        let open = self.open.as_mut()?;
        loop {
            if let Some(acker) = &open.unacked {
                // Returns false if an earlier call of ours, which was dropped, has sent the ack.
                timeout(self.limit, acker.ack(BasicAckOptions::default())).await.ok()?.ok()?;
            }
            open.unacked = None;
            let item = tokio::select! {
                biased;
                () = self.shutdown.triggered() => None,
                item = open.intake.next() => item,
            }?;
            open.unacked = Some(item.acker);
            if item.delivery.is_some() {
                return item.delivery;
            }
        }
    }
}

impl MessageStream for RabbitMqMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async {
            let next = self.next_or_none().await;
            if next.is_none()
                && let Some(open) = self.open.take()
            {
                self.prefetch.on_end(open.intake.end());
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
