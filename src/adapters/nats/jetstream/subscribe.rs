//! Starts a subscription where the last one ended, if the server has kept everything since.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
    stream::Stream,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    JetStreamTransport,
    beacons::{Beacons, check_not_stored},
    cursor::{Cursor, SequenceCheck},
    message_stream::JetStreamMessageStream,
    permissions::check_permissions,
    probes::{JetStreamProber, PendingProbes},
};
use crate::{
    adapters::{
        byte_limit::MAX_BYTES,
        nats::{connection::Connection, message_stream::beacons_of},
        task::runtime,
    },
    bus::transport::Subscribed,
    error::BoxError,
};

/// A consumer, and the position at which it starts.
struct Start {
    consumer: PullConsumer,
    resumed: bool,
    /// The sequence number of the last message before it. `None` if that is not known.
    after: Option<u64>,
    /// The sequence number up to which the server has delivered to earlier subscriptions.
    delivered: u64,
}

impl JetStreamTransport {
    pub(crate) async fn subscribe_over(
        &self,
        connection: Arc<Connection>,
    ) -> Result<Subscribed, BoxError> {
        let stream = self.stream(&self.context(&connection)?).await?;
        let info = stream.cached_info().clone();
        let beacons = beacons_of(&self.options.subject);
        check_not_stored(&stream, &beacons)?;
        let beacons = Beacons::subscribe(&connection, beacons).await?;
        let last = *self.cursor.lock();
        let cursor = last.filter(|cursor| cursor.can_resume_in(&info));
        let start = if self.options.ensure_consumer {
            self.create_consumer(&stream, cursor).await?
        } else {
            self.existing_consumer(&stream, cursor).await?
        };
        // Answers of the server have come since, so its denial has too.
        beacons.check_not_denied(&connection)?;
        let names = (&*self.options.stream, &*self.durable_name);
        let limit = self.options.connection.confirm_timeout;
        // mutant jetstream-acks: remove
        check_permissions(&connection, names, limit / 2).await?;
        let denials = connection.liveness.denials.count();
        let heartbeat = self.options.connection.heartbeat.max(Duration::from_millis(100));
        let consumer = &start.consumer;
        let messages = consumer
            .stream()
            .max_messages_per_batch(self.options.prefetch.into())
            .max_bytes_per_batch(self.bytes_per_batch(&connection)?)
            .heartbeat(heartbeat)
            .expires(heartbeat * 5)
            .messages()
            .await?;
        *self.cursor.lock() = Some(Cursor {
            stream: info.created,
            consumer: consumer.cached_info().created,
            acked: start.after.unwrap_or_default(),
            gap_free: true,
        });
        let mut info_interval = interval_at(Instant::now() + heartbeat * 2, heartbeat * 2);
        info_interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let probes = Arc::new(PendingProbes::default());
        let prober = JetStreamProber {
            connection: Arc::clone(&connection),
            stream: self.options.stream.clone(),
            created: info.created,
            durable_name: self.durable_name.clone(),
            limit,
            pending: Arc::clone(&probes),
            redelivered_to: start.delivered,
            is_caught_up: AtomicBool::new(start.after.is_some()),
        };
        let messages = JetStreamMessageStream {
            connection,
            source: Some((messages, stream)),
            cursor: Arc::clone(&self.cursor),
            sequence: SequenceCheck::after(start.after),
            unacked: None,
            position: start.delivered,
            beacons: Some(beacons),
            probes,
            deferred: None,
            info_interval,
            limit,
            denials,
            runtime: runtime()?,
        };
        Ok(Subscribed {
            messages: Box::new(messages),
            prober: Box::new(prober),
            resumed: start.resumed,
        })
    }

    /// The bytes of one request. The client sends the next request when half of the last one is
    /// delivered, so one and a half of them may be on their way. A message that exceeds a request
    /// would never be delivered.
    fn bytes_per_batch(&self, connection: &Connection) -> Result<usize, BoxError> {
        const HEADERS: usize = 64 << 10;
        let largest = connection.client()?.max_payload().saturating_add(HEADERS);
        Ok((self.options.queue_max_bytes.min(MAX_BYTES) / 3 * 2).max(largest))
    }

    /// Replaces the consumer by a new one, which starts right after the cursor. The old consumer
    /// would redeliver the unacknowledged messages of the last subscription only after `ack_wait`,
    /// and deliver all newer messages before them.
    async fn create_consumer(
        &self,
        stream: &Stream,
        cursor: Option<Cursor>,
    ) -> Result<Start, BoxError> {
        let newest = stream.cached_info().state.last_sequence;
        let old = match stream.consumer_info(&self.durable_name).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        // Without a cursor, continue after the last message that an earlier process acknowledged.
        let acked_before = old.as_ref().map(|info| info.ack_floor.stream_sequence);
        let acked = cursor.map(|cursor| cursor.acked);
        let after = acked.or(acked_before).unwrap_or(newest).min(newest);
        if old.is_some() {
            stream.delete_consumer(&self.durable_name).await?;
        }
        let options = &self.options;
        let config = pull::Config {
            durable_name: Some(self.durable_name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ack_policy: AckPolicy::Explicit,
            ack_wait: options.ack_wait,
            max_deliver: options.max_deliver.into(),
            max_ack_pending: options.prefetch.into(),
            filter_subject: options.subject.clone(),
            inactive_threshold: options.inactive_threshold,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        Ok(Start { consumer, resumed: cursor.is_some(), after: Some(after), delivered: after })
    }

    /// Interop only: uses a consumer that somebody else has created.
    async fn existing_consumer(
        &self,
        stream: &Stream,
        cursor: Option<Cursor>,
    ) -> Result<Start, BoxError> {
        let name = &self.durable_name;
        let consumer: PullConsumer = stream.get_consumer(name).await.map_err(|error| {
            let fix = "create it as a pull consumer, or set ensure_consumer";
            format!("consumer {name}: {error}; {fix}")
        })?;
        let info = consumer.cached_info();
        if info.config.ack_policy != AckPolicy::Explicit {
            let problem = "does not require an acknowledgement of each message";
            return Err(format!("consumer {name} {problem}; set its ack policy to explicit").into());
        }
        // The server redelivers unacknowledged messages only after its `ack_wait`. Until then
        // nothing shows that none is missing, so such a subscription does not count as resumed.
        let cursor = cursor.filter(|cursor| {
            cursor.consumer == info.created
                && info.num_ack_pending == 0
                && info.delivered.stream_sequence <= cursor.acked
        });
        let delivered = info.delivered.stream_sequence;
        let after = cursor.map(|cursor| cursor.acked);
        Ok(Start { consumer, resumed: cursor.is_some(), after, delivered })
    }
}
