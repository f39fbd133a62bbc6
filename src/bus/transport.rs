//! The contract of transports, which carry messages between instances as bytes.

use std::{fmt, pin::Pin};

use crate::error::BoxError;

/// The future that a transport returns.
///
/// ```
/// use lazy_layers_cache::TransportFuture;
///
/// fn ping() -> TransportFuture<'static, ()> {
///     Box::pin(async { Err("the broker does not answer".into()) })
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// assert!(ping().await.is_err());
/// # Ok(()) }
/// ```
pub type TransportFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// Carries messages to all instances.
///
/// | a transport | |
/// | --- | --- |
/// | may | reorder messages, and deliver one twice: the cache recognises each by its id |
/// | must | deliver an instance's own messages to it too |
/// | must | deliver a [probe](Prober::send) only after all messages that were published before it: L1 is trusted because of probes |
/// | must | report a loss, by [`Delivery::Gap`], [`Delivery::Closed`] or an error, never lose a message silently |
/// | must not | reconnect or retry: the cache subscribes again, and knows what it may have missed |
///
/// `testing::check_transport` checks an implementation of your own against this contract.
///
/// ```
/// use lazy_layers_cache::{EventBus, LocalTransport, Subscribed, Transport, TransportFuture};
///
/// /// Counts the messages. Each call goes to the transport within.
/// struct Counting { inner: LocalTransport, published: std::sync::atomic::AtomicU64 }
///
/// impl Transport for Counting {
///     fn name(&self) -> &'static str {
///         "counting"
///     }
///
///     fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
///         self.published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         self.inner.publish(message)
///     }
///
///     fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
///         self.inner.subscribe()
///     }
///
///     fn ping(&self) -> TransportFuture<'_, ()> {
///         self.inner.ping()
///     }
///
///     fn disconnect(&self) -> TransportFuture<'_, ()> {
///         self.inner.disconnect()
///     }
/// }
///
/// let bus = EventBus::new(Counting { inner: LocalTransport::new(), published: 0.into() });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transport of an event bus",
    label = "expected a transport, such as `RedisTransport`, or an `EventBus`",
    note = "the builder of a transport is none yet: call `build()?` on it"
)]
pub trait Transport: Send + Sync + 'static {
    /// The name for logs and health: `redis`, `nats`.
    fn name(&self) -> &'static str;

    /// Publishes a message. Each transport documents the guarantee of a publish that has returned;
    /// it is never that peers have received the message.
    ///
    /// # Errors
    ///
    /// Return a boxed [`MessageRefused`] if the broker would refuse the same bytes again: the cache
    /// then publishes a smaller message instead. After any other error it publishes the same one
    /// again.
    ///
    /// # Cancel safety
    ///
    /// The message may or may not have been sent.
    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()>;

    /// Sends a beacon: a message that only says how far its publisher is. The subscriptions of all
    /// instances deliver it as a [`Delivery::Message`], possibly before messages that were
    /// published earlier. A subscription that delivers it also receives the messages that are
    /// published after it: it must begin to receive beacons last. A beacon may be lost. It should
    /// travel where nothing is stored, and where instances of the TypeScript package do not read.
    /// Default: [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// The beacon may or may not have been sent.
    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.publish(beacon)
    }

    /// Called when a cache with this [name](crate::CacheOptions::name) begins to use the transport,
    /// before its first publish or subscription: the transport may name its connections after it.
    /// Default: does nothing.
    fn on_used_by(&self, cache: &str) {
        let _ = cache;
    }

    /// Whether [`publish`](Self::publish) never waits. Then the cache publishes in the caller's
    /// task, which saves a task switch. Default: false.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Subscribes. Returns once the subscription is in force, so that it receives every message
    /// that is published from then on; not as soon as the request is sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no subscription behind.
    fn subscribe(&self) -> TransportFuture<'_, Subscribed>;

    /// Checks that the other side answers, on the connection that publishes.
    ///
    /// # Errors
    ///
    /// Returns the problem, and its fix if it is known.
    fn ping(&self) -> TransportFuture<'_, ()>;

    /// Closes the connections. A later publish or subscribe connects anew.
    fn disconnect(&self) -> TransportFuture<'_, ()>;
}

/// A subscription in force.
///
/// ```
/// use lazy_layers_cache::{Delivery, LocalTransport, Subscribed, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let Subscribed { mut messages, prober, resumed } = LocalTransport::new().subscribe().await?;
/// assert!(!resumed, "this transport remembers no subscription");
/// prober.send(1).await?;
/// assert_eq!(messages.next().await, Delivery::Probe(1));
/// # Ok(()) }
/// ```
pub struct Subscribed {
    /// The messages it receives.
    pub messages: Box<dyn MessageStream>,
    /// Sends the probes that come back in `messages`.
    pub prober: Box<dyn Prober>,
    /// Whether it continues exactly where the last subscription of this transport ended, so that no
    /// message in between was lost. `false` if that is not known.
    pub resumed: bool,
}

/// Sends the probes of one subscription. A probe that comes back shows that the subscriber is not
/// behind: it has processed all messages that were published before the probe was sent.
///
/// ```
/// use tokio::sync::mpsc::UnboundedSender;
/// use lazy_layers_cache::{Delivery, Prober, TransportFuture};
///
/// /// Of a transport that has one queue for messages and probes.
/// struct QueueProber(UnboundedSender<Delivery>);
///
/// impl Prober for QueueProber {
///     fn send(&self, number: u64) -> TransportFuture<'_, ()> {
///         Box::pin(async move { Ok(self.0.send(Delivery::Probe(number))?) })
///     }
/// }
/// ```
pub trait Prober: Send + Sync {
    /// Sends a probe, which only its own subscription delivers, as [`Delivery::Probe`] with this
    /// number: after every message that any instance had published before this call, as far as
    /// the broker orders them. A probe may be lost. It takes the way of the messages of its
    /// instance, and the broker stores it no longer than the subscription lasts.
    ///
    /// # Cancel safety
    ///
    /// The probe may or may not have been sent.
    fn send(&self, number: u64) -> TransportFuture<'_, ()>;
}

/// A subscription. Dropping it ends it.
///
/// ```
/// use std::pin::Pin;
/// use tokio::sync::mpsc::UnboundedReceiver;
/// use lazy_layers_cache::{Delivery, MessageStream};
///
/// struct Queue(UnboundedReceiver<Delivery>);
///
/// impl MessageStream for Queue {
///     fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
///         // `recv` loses no message if the future is dropped.
///         Box::pin(async move { self.0.recv().await.unwrap_or(Delivery::Closed) })
///     }
/// }
/// ```
pub trait MessageStream: Send {
    /// Waits for the next delivery. The call also says that the subscriber has processed the
    /// delivery before it: a transport that acknowledges messages does so then, not earlier.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no delivery.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>>;
}

/// An item of a subscription.
///
/// ```
/// use lazy_layers_cache::{Delivery, LocalTransport, Transport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let transport = LocalTransport::new();
/// let mut subscription = transport.subscribe().await?;
/// transport.publish(b"hello").await?;
/// match subscription.messages.next().await {
///     Delivery::Message(bytes) => assert_eq!(bytes, b"hello"),
///     Delivery::Gap => println!("messages were lost"),
///     other => panic!("unexpected: {other:?}"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message, as it was published.
    Message(Vec<u8>),
    /// A probe of this subscription, with its number.
    Probe(u64),
    /// Messages were lost, or may have been: a queue overflowed, or a connection broke. Nobody
    /// knows which ones, so the cache must assume that any key was invalidated.
    Gap,
    /// The subscription has ended. More messages may be lost until the next one begins.
    Closed,
}

/// The error of a [`publish`](Transport::publish) whose message the broker would refuse again: the
/// message is too large, or a permission or a policy of the broker forbids it.
///
/// ```
/// use lazy_layers_cache::{MessageRefused, Transport, testing::{BusFaults, SharedBus}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let bus = SharedBus::new(1);
/// bus.set_faults(BusFaults { max_message_bytes: Some(1_024), ..BusFaults::default() });
/// let error = bus.link().publish(&[0; 2_000]).await.unwrap_err();
/// assert!(error.is::<MessageRefused>());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct MessageRefused(BoxError);

impl MessageRefused {
    /// `reason` names what the broker refuses, and the fix if it is known.
    ///
    /// ```
    /// use lazy_layers_cache::{MessageRefused, TransportFuture};
    ///
    /// const MAX_BYTES: usize = 1 << 20;
    ///
    /// fn publish(message: &[u8]) -> TransportFuture<'_, ()> {
    ///     Box::pin(async move {
    ///         if message.len() > MAX_BYTES {
    ///             return Err(MessageRefused::new("the broker takes at most 1 MiB").into());
    ///         }
    ///         Ok(())
    ///     })
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// assert!(publish(&[0; 2 << 20]).await.unwrap_err().is::<MessageRefused>());
    /// # Ok(()) }
    /// ```
    pub fn new(reason: impl Into<BoxError>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for MessageRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker refuses the message: {}", self.0)
    }
}

impl std::error::Error for MessageRefused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
