//! How a subscription begins: where the last one ended, if the server can show that it has all
//! since.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::ConsumerInfoErrorKind,
    stream::Stream,
};

use super::{
    JetStreamTransport,
    cursor::{Cursor, Seen},
    message_stream::JetStreamEvents,
};
use crate::{
    adapters::{nats::Link, task::runtime},
    bus::transport::Subscribed,
    error::BoxError,
};

/// A consumer, and where it begins.
struct Begin {
    consumer: PullConsumer,
    resumed: bool,
    /// The last event before it. None where that is not known.
    after: Option<u64>,
}

impl JetStreamTransport {
    pub(crate) async fn subscribe_over(&self, link: Arc<Link>) -> Result<Subscribed, BoxError> {
        let stream = self.stream(&self.context(&link)?).await?;
        let info = stream.cached_info().clone();
        let last = *self.cursor.lock();
        let goes_on = last.filter(|cursor| cursor.goes_on_in(&info));
        let begin = if self.options.ensure_consumer {
            self.consumer_at(&stream, goes_on).await?
        } else {
            self.consumer_as_it_is(&stream, goes_on).await?
        };
        let heartbeat = self.options.connection.heartbeat.max(Duration::from_millis(100));
        let consumer = &begin.consumer;
        let messages = consumer
            .stream()
            .max_messages_per_batch(self.options.prefetch.into())
            .heartbeat(heartbeat)
            .expires(heartbeat * 5)
            .messages()
            .await?;
        *self.cursor.lock() = Some(Cursor {
            stream: info.created,
            consumer: consumer.cached_info().created,
            dealt: begin.after.unwrap_or_default(),
            whole: true,
        });
        let limits = (heartbeat * 2, self.options.connection.confirm_timeout);
        let events = JetStreamEvents::new(
            link,
            stream,
            messages,
            Arc::clone(&self.cursor),
            Seen::up_to(begin.after),
            limits,
            runtime()?,
        );
        Ok(Subscribed { messages: Box::new(events), resumed: begin.resumed })
    }

    /// A new consumer at the very place. One that goes on as it is would bring what the last
    /// subscription had been handed out only after `ack_wait`, and all that is newer before it.
    async fn consumer_at(
        &self,
        stream: &Stream,
        goes_on: Option<Cursor>,
    ) -> Result<Begin, BoxError> {
        let newest = stream.cached_info().state.last_sequence;
        let old = match stream.consumer_info(&self.durable_name).await {
            Ok(info) => Some(info),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        // One from before this process: what it left undone is brought, as the name promises.
        let left = old.as_ref().map(|info| info.ack_floor.stream_sequence);
        let after = goes_on.map(|cursor| cursor.dealt).or(left).unwrap_or(newest).min(newest);
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
            inactive_threshold: options.inactive_threshold.unwrap_or_default(),
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        Ok(Begin { consumer, resumed: goes_on.is_some(), after: Some(after) })
    }

    async fn consumer_as_it_is(
        &self,
        stream: &Stream,
        goes_on: Option<Cursor>,
    ) -> Result<Begin, BoxError> {
        let name = &self.durable_name;
        let consumer: PullConsumer = stream.get_consumer(name).await.map_err(|error| {
            format!("consumer {name}: {error}; create it as a pull one, or set ensure_consumer")
        })?;
        let info = consumer.cached_info();
        if info.config.ack_policy != AckPolicy::Explicit {
            return Err(format!(
                "consumer {name} does not ask for each event to be acknowledged; \
                 set its ack policy to explicit"
            )
            .into());
        }
        // Events that the last subscription left undone come only after a while: until then it is
        // not known that nothing is missing.
        let resumed = goes_on.filter(|cursor| {
            cursor.consumer == info.created
                && info.num_ack_pending == 0
                && info.delivered.stream_sequence <= cursor.dealt
        });
        Ok(Begin {
            resumed: resumed.is_some(),
            after: resumed.map(|cursor| cursor.dealt),
            consumer,
        })
    }
}
