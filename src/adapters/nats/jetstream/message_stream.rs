//! A subscription over a durable consumer.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::pull::{self, MessagesErrorKind},
    stream::Stream,
};
use futures_util::{FutureExt, StreamExt, future::Either};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Interval, timeout},
};

use super::{
    beacons::Beacons,
    cursor::{Cursor, SequenceCheck},
    permissions::are_denied,
    probes::PendingProbes,
};
use crate::{
    adapters::nats::connection::Connection,
    bus::transport::{Delivery, MessageStream},
};

pub(crate) struct JetStreamMessageStream {
    pub(crate) connection: Arc<Connection>,
    /// Both keep the client's connection open, so the first failure drops them.
    pub(crate) source: Option<(pull::Stream, Stream)>,
    pub(crate) cursor: Arc<Mutex<Option<Cursor>>>,
    pub(crate) sequence: SequenceCheck,
    /// Delivered to the subscriber, which has not yet asked for the next message.
    pub(crate) unacked: Option<(u64, Message)>,
    /// The highest sequence number up to which the server has delivered.
    pub(crate) position: u64,
    pub(crate) beacons: Option<Beacons>,
    pub(crate) probes: Arc<PendingProbes>,
    /// Received after a gap, which is delivered first.
    pub(crate) deferred: Option<(u64, Message)>,
    pub(crate) info_interval: Interval,
    pub(crate) limit: Duration,
    /// How many denials there were before.
    pub(crate) denials: u64,
    pub(crate) runtime: Handle,
}

impl JetStreamMessageStream {
    async fn next_or_none(&mut self) -> Option<Delivery> {
        self.source.as_ref()?;
        self.ack_last().await?;
        if let Some(deferred) = self.deferred.take() {
            return Some(self.deliver(deferred));
        }
        loop {
            if let Some(number) = self.probes.take_due(self.position) {
                return Some(Delivery::Probe(number));
            }
            let (messages, stream) = self.source.as_mut()?;
            let beacons = self.beacons.as_mut()?;
            let liveness = &self.connection.liveness;
            // Without an order, so that neither messages nor beacons starve the others.
            let arrived = async {
                tokio::select! {
                    beacon = beacons.next() => Either::Left(beacon),
                    message = messages.next() => Either::Right(message),
                }
            };
            tokio::select! {
                biased;
                () = liveness.ended() => return None,
                () = self.probes.added() => {}
                arrived = arrived => {
                    let message = match arrived {
                        Either::Left(beacon) => return Some(beacon),
                        // Its timer also runs while nobody polls it, and messages wait.
                        Either::Right(Some(Err(error)))
                            if error.kind() == MessagesErrorKind::MissingHeartbeat =>
                        {
                            messages.next().now_or_never()?
                        }
                        Either::Right(message) => message,
                    };
                    // The client would retry after an error. Here the subscriber decides.
                    let message = message?.ok().filter(|_| !liveness.has_ended())?;
                    let sequence = message.info().ok()?.stream_sequence;
                    if self.sequence.skips_to(sequence) {
                        self.deferred = Some((sequence, message));
                        return Some(self.gap());
                    }
                    return Some(self.deliver((sequence, message)));
                }
                _ = self.info_interval.tick() => {
                    if are_denied(&liveness.denials, self.denials) {
                        return None;
                    }
                    let info = tokio::select! {
                        biased;
                        () = liveness.ended() => return None,
                        info = timeout(self.limit, stream.get_info()) => info.ok()?.ok()?,
                    };
                    let cursor = *self.cursor.lock();
                    if cursor.is_none_or(|cursor| cursor.stream != info.created) {
                        return None; // The stream was replaced by a new one.
                    }
                    if self.sequence.lags_behind(&info.state) {
                        self.position = self.position.max(self.sequence.last());
                        return Some(self.gap());
                    }
                }
            }
        }
    }

    /// The subscriber asks for the next message, so it has processed the last one.
    async fn ack_last(&mut self) -> Option<()> {
        if let Some(cursor) = &mut *self.cursor.lock() {
            cursor.gap_free = true;
            if let Some((sequence, _)) = &self.unacked {
                cursor.acked = cursor.acked.max(*sequence);
            }
        }
        // mutant jetstream-denied-ack: if false
        if are_denied(&self.connection.liveness.denials, self.denials) {
            return None;
        }
        if let Some((_, message)) = &self.unacked {
            timeout(self.limit, message.ack()).await.ok()?.ok()?;
        }
        self.unacked = None;
        Some(())
    }

    fn deliver(&mut self, (sequence, message): (u64, Message)) -> Delivery {
        let payload = message.payload.to_vec();
        self.position = self.position.max(sequence);
        self.unacked = Some((sequence, message));
        Delivery::Message(payload)
    }

    fn gap(&mut self) -> Delivery {
        if let Some(cursor) = &mut *self.cursor.lock() {
            cursor.gap_free = false;
        }
        Delivery::Gap
    }

    /// Drops all that belongs to the client, inside the runtime: the client spawns a task when it
    /// unsubscribes, and panics outside of one.
    fn close(&mut self) {
        let _inside = self.runtime.enter();
        self.source = None;
        self.beacons = None;
        self.unacked = None;
        self.deferred = None;
    }
}

impl MessageStream for JetStreamMessageStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async {
            let next = self.next_or_none().await;
            if next.is_none() {
                self.close();
            }
            next.unwrap_or(Delivery::Closed)
        })
    }
}

impl Drop for JetStreamMessageStream {
    fn drop(&mut self) {
        self.close();
    }
}
