//! Events over NATS JetStream: kept by the server, so that who was away gets them later.

mod cursor;
mod message_stream;
mod options;
mod subscribe;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, StatusCode,
    jetstream::{
        Context,
        context::ContextBuilder,
        stream::{Config, DiscardPolicy, StorageType, Stream},
    },
};
use parking_lot::Mutex;
use tokio::time::sleep;

use self::cursor::Cursor;
pub use self::options::{JetStreamOptions, JetStreamStorage};
use super::{Link, Links};
use crate::error::{BoxError, BuildError};
use crate::{
    adapters::task::within,
    bus::transport::{Subscribed, Transport, TransportFuture},
};

/// A [`Transport`] over NATS JetStream.
///
/// A publish that has returned is in the stream: in files, which the server by default syncs to
/// the disk every two minutes, of as many servers as it has replicas. Every instance gets it, one
/// that is away at the moment as soon as it is back; what came twice or late comes twice or late,
/// and what the stream did not keep (its limits, a purge, a new stream of the same name) is told
/// as a gap. A subscription resumes if the same stream still has everything since the last event
/// that was dealt with.
///
/// It has one subscription at a time: a new one ends the one before.
///
/// Besides the heartbeats of the connection, the stream is looked at every two heartbeats while
/// nothing comes.
pub struct JetStreamTransport {
    links: Links,
    options: JetStreamOptions,
    durable_name: String,
    cursor: Arc<Mutex<Option<Cursor>>>,
    /// Whether there was a stream.
    found: AtomicBool,
}

/// How long a stream that is gone is left alone before it is made anew. The server frees its name
/// before it has removed its files, and would remove those of a new one with them: then events are
/// taken and never brought, or not even taken.
const REMOVAL: Duration = Duration::from_millis(500);

impl JetStreamTransport {
    /// With a connection of its own.
    ///
    /// # Errors
    ///
    /// Wrong options, by name: above all a missing
    /// [`durable_name`](JetStreamOptions::durable_name). Nothing is connected yet.
    pub fn new(options: JetStreamOptions) -> Result<Self, BuildError> {
        let durable_name = options.check()?;
        let links = Links::connecting(options.connection.clone());
        Ok(Self::over(links, options, durable_name))
    }

    /// With a client of the user's, which is never closed. Of
    /// [`JetStreamOptions::connection`] only the times count.
    ///
    /// # Errors
    ///
    /// Wrong options, by name.
    pub fn with_client(client: Client, options: JetStreamOptions) -> Result<Self, BuildError> {
        let durable_name = options.check()?;
        let links = Links::of(client, options.connection.clone());
        Ok(Self::over(links, options, durable_name))
    }

    fn over(links: Links, options: JetStreamOptions, durable_name: String) -> Self {
        Self { links, options, durable_name, cursor: Arc::default(), found: AtomicBool::new(false) }
    }

    /// It has a task of its own, which ends with the last of its clones: so there is one where
    /// one is needed, and none that stays.
    fn context(&self, link: &Link) -> Result<Context, BoxError> {
        let limit = self.options.connection.confirm_timeout;
        Ok(ContextBuilder::new().timeout(limit).max_ack_inflight(1).build(link.client()?))
    }

    async fn stream(&self, context: &Context) -> Result<Stream, BoxError> {
        let options = &self.options;
        if !options.ensure_stream {
            return context.get_stream(&options.stream).await.map_err(|error| {
                let stream = &options.stream;
                format!("stream {stream}: {error}; create it, or set ensure_stream").into()
            });
        }
        if self.found.load(Ordering::Relaxed) {
            if let Ok(stream) = context.get_stream(&options.stream).await {
                return Ok(stream);
            }
            sleep(REMOVAL).await;
        }
        let config = Config {
            name: options.stream.clone(),
            subjects: vec![options.subject.clone()],
            storage: match options.storage {
                JetStreamStorage::File => StorageType::File,
                JetStreamStorage::Memory => StorageType::Memory,
            },
            max_age: options.max_age.unwrap_or_default(),
            max_messages: options.max_messages.and_then(|it| it.try_into().ok()).unwrap_or(-1),
            max_bytes: -1,
            max_messages_per_subject: -1,
            discard: DiscardPolicy::Old,
            num_replicas: options.replicas,
            ..Config::default()
        };
        let stream = context.get_or_create_stream(config).await.map_err(|error| {
            format!("stream {}: {error}; JetStream is on with `nats-server -js`", options.stream)
        })?;
        self.found.store(true, Ordering::Relaxed);
        Ok(stream)
    }

    /// Whether there was anything that took it.
    async fn try_publish(&self, link: &Link, event: &[u8]) -> Result<bool, BoxError> {
        let answer = link.ask(&self.options.subject, event.to_vec()).await?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Ok(false);
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
        if let Some(error) = answer.get("error") {
            let text = error.get("description").and_then(|it| it.as_str()).unwrap_or("an error");
            return Err(format!("the stream did not take the event: {text}").into());
        }
        let stream = answer.get("stream").and_then(|it| it.as_str()).unwrap_or_default();
        if stream == self.options.stream {
            self.found.store(true, Ordering::Relaxed);
            return Ok(true);
        }
        let (subject, ours) = (&self.options.subject, &self.options.stream);
        Err(format!("events of {subject} are in stream `{stream}`; set `stream` to that, {ours} does not get them").into())
    }
}

impl std::fmt::Debug for JetStreamTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JetStreamTransport").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Transport for JetStreamTransport {
    fn name(&self) -> &'static str {
        "jetstream"
    }

    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let link = self.links.get().await?;
            within(self.options.connection.confirm_timeout, "store an event", async {
                if self.try_publish(&link, event).await? {
                    return Ok(());
                }
                self.stream(&self.context(&link)?).await?;
                if self.try_publish(&link, event).await? {
                    return Ok(());
                }
                let JetStreamOptions { stream, subject, .. } = &self.options;
                Err(format!("stream {stream} does not carry {subject}; add it to its subjects")
                    .into())
            })
            .await
        })
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let link = self.links.get().await?;
            let limit = self.options.connection.confirm_timeout;
            within(limit, "subscribe", self.subscribe_over(link)).await
        })
    }

    fn check(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let link = self.links.get().await?;
            let limit = self.options.connection.confirm_timeout;
            within(limit, "answer", async { self.stream(&self.context(&link)?).await.map(drop) })
                .await
        })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            self.links.drop_current().await;
            Ok(())
        })
    }
}
