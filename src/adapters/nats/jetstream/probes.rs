//! Probes of a JetStream subscription. Nothing is published: the prober asks the server for the
//! last sequence number of the stream, and the subscription delivers the probe once it has
//! processed that message.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Message,
    datetime::DateTime,
    jetstream::{consumer, stream},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    adapters::{nats::connection::Connection, task::timeout_named},
    bus::transport::{Prober, TransportFuture},
    error::BoxError,
};

/// The probes that wait for their message to be processed.
#[derive(Default)]
pub(crate) struct PendingProbes {
    /// The number of the probe, and the sequence number of its message.
    probes: Mutex<VecDeque<(u64, u64)>>,
    added: Notify,
}

/// The oldest pending probes beyond these are lost.
const MAX_PENDING: usize = 64;

impl PendingProbes {
    fn push(&self, number: u64, sequence: u64) {
        let mut probes = self.probes.lock();
        if probes.len() == MAX_PENDING {
            probes.pop_front();
        }
        probes.push_back((number, sequence));
        drop(probes);
        self.added.notify_one();
    }

    /// Takes the number of a probe, if all messages up to this sequence number are processed.
    pub(crate) fn take_due(&self, processed: u64) -> Option<u64> {
        let mut probes = self.probes.lock();
        // mutant jetstream-probe: s/*sequence <= processed/true/
        let due = probes.iter().position(|(_, sequence)| *sequence <= processed)?;
        probes.remove(due).map(|(number, _)| number)
    }

    /// Waits for a new probe. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}

pub(crate) struct JetStreamProber {
    pub(crate) connection: Arc<Connection>,
    pub(crate) stream: String,
    /// When the stream was created: a new one of the same name numbers from one again.
    pub(crate) created: DateTime,
    pub(crate) durable_name: String,
    pub(crate) limit: Duration,
    pub(crate) pending: Arc<PendingProbes>,
    /// The end of the messages that the server had delivered before this subscription, and of which
    /// it still redelivers some.
    pub(crate) redelivered_to: u64,
    /// Whether it has redelivered all of them.
    pub(crate) is_caught_up: AtomicBool,
}

impl JetStreamProber {
    async fn last_sequence(&self) -> Result<u64, BoxError> {
        let answer = self.request(&format!("STREAM.INFO.{}", self.stream)).await?;
        let info: stream::Info = serde_json::from_slice(&answer.payload)?;
        if info.created != self.created {
            return Err("the stream was replaced by a new one".into());
        }
        Ok(info.state.last_sequence)
    }

    /// Old messages are redelivered after newer ones, so until then a number says nothing.
    async fn check_redelivery(&self) -> Result<(), BoxError> {
        if self.is_caught_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        let request = format!("CONSUMER.INFO.{}.{}", self.stream, self.durable_name);
        let answer = self.request(&request).await?;
        let info: consumer::Info = serde_json::from_slice(&answer.payload)?;
        if info.ack_floor.stream_sequence < self.redelivered_to {
            return Err("messages of an earlier subscription are still to be redelivered".into());
        }
        self.is_caught_up.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn request(&self, request: &str) -> Result<Message, BoxError> {
        self.connection.request(&format!("$JS.API.{request}"), Vec::new()).await
    }
}

impl Prober for JetStreamProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(timeout_named(self.limit, "answer a probe", async move {
            let last = self.last_sequence().await?;
            self.check_redelivery().await?;
            self.pending.push(number, last);
            Ok(())
        }))
    }
}
