//! The transport over NATS JetStream, whose server keeps messages for disconnected instances.

mod beacons;
mod cursor;
mod message_stream;
mod options;
mod permissions;
mod probes;
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

pub use self::options::{JetStreamOptions, JetStreamStorage};
use self::{beacons::check_not_stored, cursor::Cursor};
use super::{connection::Connection, connector::Connector, message_stream::beacons_of};
use crate::bus::transport::{MessageRefused, Subscribed, Transport, TransportFuture};
use crate::error::{BoxError, BuildError};

/// A [`Transport`] over NATS JetStream.
///
/// When a publish returns, the message is in the stream, on as many servers as the stream has
/// replicas. By default the servers sync their files to disk every two minutes.
///
/// Every instance gets the message, possibly late or twice; a disconnected instance gets it when it
/// subscribes again. A subscription resumes if the same stream still has every message after the
/// last one that the subscriber processed. If messages are no longer in the stream (by its limits,
/// a purge, or because it was replaced), the subscriber receives a gap.
///
/// | subject | carries | needs permission to |
/// | --- | --- | --- |
/// | [`subject`](JetStreamOptions::subject) | messages, which the stream stores | publish |
/// | `{subject}.beacons` | beacons over NATS core; no stream may store it | publish and subscribe |
/// | `_INBOX.>` | replies and heartbeats | publish and subscribe |
/// | `$JS.API.STREAM.INFO.{stream}` | requests | publish |
/// | `$JS.API.STREAM.CREATE.{stream}` | a request, if `ensure_stream` has to create the stream | publish |
/// | `$JS.API.CONSUMER.*.{stream}.>`, `$JS.API.CONSUMER.*.*.{stream}.>` | requests, also for messages | publish |
/// | `$JS.ACK.{stream}.>` | acknowledgements | publish |
///
/// While the user lacks one of these permissions (but for that to publish messages or beacons), no
/// subscription begins, and the running one ends. `health()` then says that the instance is not
/// subscribed, and the event `event-bus:subscribe-error` has the denied subject. With a client of
/// the application ([`with_client`](Self::with_client)) that event has only the failed step,
/// because the server tells the client alone.
///
/// Nothing is stored for a probe: the server is asked where the stream ends, and the probe is
/// delivered once the messages up to there are processed. A cluster's server that is cut off from
/// the others may answer for up to 10 s, until it no longer leads the stream: beacons reveal that.
///
/// A message is [refused](crate::MessageRefused) if it is larger than the server's `max_payload` or
/// the stream's `max_msg_size`, if the user may not publish it, and if the stream is sealed, or is
/// full and discards new messages.
///
/// A slow subscriber holds up nobody, and loses nothing: the client requests at most
/// [`prefetch`](JetStreamOptions::prefetch) messages and
/// [`queue_max_bytes`](JetStreamOptions::queue_max_bytes) ahead. Of beacons, which may be lost, at
/// most 1,000 and 1 MiB wait.
///
/// A transport has one subscription at a time: a new one ends the one before.
///
/// While no message arrives, the subscription asks for the state of the stream every two
/// heartbeats, besides the heartbeats of the connection.
///
/// ```
/// use lazy_layers_cache::{JetStreamOptions, JetStreamTransport, LazyLayersCache, WireCodec};
///
/// // The name of the consumer: another one on every instance, the same after a restart.
/// let bus = JetStreamTransport::new(JetStreamOptions::durable("shop-1-cache"))?;
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(bus, WireCodec::new())
///     .build()?;
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
pub struct JetStreamTransport {
    connector: Connector,
    options: JetStreamOptions,
    durable_name: String,
    cursor: Arc<Mutex<Option<Cursor>>>,
    /// Whether this transport has found or created the stream before.
    found: AtomicBool,
    /// Whether it has checked that the stream does not store beacons.
    may_announce: AtomicBool,
}

/// The pause before a deleted stream is created again. The server frees the name of a stream before
/// it has removed the files, and would remove the files of the new one with them: then it would
/// accept messages and never deliver them, or not even accept them.
const REMOVAL: Duration = Duration::from_millis(500);

impl JetStreamTransport {
    /// Creates a transport with a connection of its own. It connects with the first call.
    ///
    /// ```
    /// use lazy_layers_cache::{JetStreamOptions, JetStreamTransport};
    ///
    /// let refused = JetStreamTransport::new(JetStreamOptions::default()).unwrap_err();
    /// assert_eq!(refused.option(), "durable_name");
    /// assert!(JetStreamTransport::new(JetStreamOptions::durable("shop-1-cache")).is_ok());
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong, above all a missing
    /// [`durable_name`](JetStreamOptions::durable_name).
    pub fn new(options: JetStreamOptions) -> Result<Self, BuildError> {
        Self::build(None, options)
    }

    /// Creates a transport over a client of the application, which is never closed. Of
    /// [`JetStreamOptions::connection`] only the durations apply.
    ///
    /// ```no_run
    /// use lazy_layers_cache::{JetStreamOptions, JetStreamTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
    /// let options = JetStreamOptions::durable("shop-1-cache");
    /// let bus = JetStreamTransport::with_client(client, options)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Names the option that is wrong.
    pub fn with_client(client: Client, options: JetStreamOptions) -> Result<Self, BuildError> {
        Self::build(Some(client), options)
    }

    fn build(client: Option<Client>, options: JetStreamOptions) -> Result<Self, BuildError> {
        let durable_name = options.check()?;
        let connector = Connector::new(client, options.connection.clone());
        let (found, may_announce) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { connector, options, durable_name, cursor: Arc::default(), found, may_announce })
    }

    /// A context has a task that ends with its last clone, so each call creates its own.
    fn context(&self, connection: &Connection) -> Result<Context, BoxError> {
        let limit = self.options.connection.confirm_timeout;
        Ok(ContextBuilder::new().timeout(limit).max_ack_inflight(1).build(connection.client()?))
    }

    /// Returns the stream, which `ensure_stream` creates if it does not exist.
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
            let stream = &options.stream;
            format!("stream {stream}: {error}; start the server with JetStream: `nats-server -js`")
        })?;
        self.found.store(true, Ordering::Relaxed);
        Ok(stream)
    }

    /// Returns false if no stream has this subject.
    async fn try_publish(&self, connection: &Connection, message: &[u8]) -> Result<bool, BoxError> {
        let answer = connection.request(&self.options.subject, message.to_vec()).await?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Ok(false);
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
        if let Some(error) = answer.get("error") {
            return Err(not_stored(error));
        }
        let stream = answer.get("stream").and_then(|it| it.as_str()).unwrap_or_default();
        if stream == self.options.stream {
            self.found.store(true, Ordering::Relaxed);
            return Ok(true);
        }
        let JetStreamOptions { stream: ours, subject, .. } = &self.options;
        let problem = format!("messages of {subject} are in stream `{stream}`, not in `{ours}`");
        Err(format!("{problem}; set `stream` to `{stream}`").into())
    }
}

/// The server's own numbers of the errors that it would return for the same message again: too
/// large for the stream, and sealed stream.
const REFUSALS: [u64; 2] = [10_054, 10_109];

/// The error of a message that the stream did not store. A full stream that discards new messages
/// is told by the text only, because its number is that of all failures to store.
fn not_stored(error: &serde_json::Value) -> BoxError {
    let number = error.get("err_code").and_then(serde_json::Value::as_u64);
    let text = error.get("description").and_then(|it| it.as_str()).unwrap_or("an error");
    let problem = format!("the stream did not store the message: {text}");
    let is_full = text.starts_with("maximum ") && text.ends_with(" exceeded");
    if is_full || number.is_some_and(|it| REFUSALS.contains(&it)) {
        return MessageRefused::new(problem).into();
    }
    problem.into()
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

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.connector.call("store a message", async move |connection| {
            if self.try_publish(&connection, message).await? {
                return Ok(());
            }
            self.stream(&self.context(&connection)?).await?;
            if self.try_publish(&connection, message).await? {
                return Ok(());
            }
            let JetStreamOptions { stream, subject, .. } = &self.options;
            Err(format!("stream {stream} does not carry {subject}; add it to its subjects").into())
        }))
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(self.connector.call("send a beacon", async move |connection| {
            let subject = beacons_of(&self.options.subject);
            if !self.may_announce.load(Ordering::Relaxed) {
                check_not_stored(&self.stream(&self.context(&connection)?).await?, &subject)?;
                self.may_announce.store(true, Ordering::Relaxed);
            }
            connection.announce(&subject, beacon.to_vec()).await
        }))
    }

    fn on_used_by(&self, cache: &str) {
        self.connector.client_name.add(cache);
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(self.connector.call("subscribe", |connection| self.subscribe_over(connection)))
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(self.connector.call("answer", async |connection| {
            self.stream(&self.context(&connection)?).await.map(drop)
        }))
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.connector.disconnect()
    }
}
