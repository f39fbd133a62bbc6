//! A subscription to a queue, on a connection of its own.

use std::{pin::Pin, sync::Arc, time::Duration};

use lapin::{Acker, options::BasicAckOptions};
use tokio::time::timeout;

use super::{
    connection::BrokerConnection, intake::Intake, prefetch::Prefetch, publisher::check_exchange,
    shutdown::Shutdown, subscribe::Started, topology::Topology,
};
use crate::{
    adapters::{probe::probe_every, task::runtime},
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
}

impl RabbitMqMessageStream {
    pub(crate) async fn open(
        connection: BrokerConnection,
        started: Started,
        topology: &Topology,
        prefetch: Arc<Prefetch>,
        (heartbeat, limit): (Duration, Duration),
    ) -> Result<Self, BoxError> {
        let shutdown = Shutdown::default();
        let probes = connection.channel().await?;
        // Ends the subscription when the broker no longer answers, or the exchange is gone. Closes
        // the connection then, or when the stream is dropped.
        let watching = {
            let (topology, shutdown) = (topology.clone(), shutdown.clone());
            async move {
                let (broker, probes, topology) = (&connection, &probes, &topology);
                let probing = probe_every(heartbeat, || async move {
                    // A connection of the application that also publishes may be blocked. The
                    // client sends nothing on it then, so there is no way to probe.
                    if broker.is_blocked() && broker.is_connected() {
                        return Ok(());
                    }
                    check_exchange(probes, &topology.exchange, &topology.kind).await
                });
                tokio::select! {
                    () = probing => shutdown.trigger(),
                    () = shutdown.triggered() => {}
                }
                // A reader that does not ask for the end must not keep a queue from its successor.
                connection.close().await;
            }
        };
        runtime()?.spawn(watching);
        let open = Open { intake: started.intake, unacked: None };
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
                self.shutdown.trigger();
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
