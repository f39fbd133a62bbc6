//! The transport within one process: for several caches in it, and for tests.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::{
    inbox::Inbox,
    transport::{Delivery, Subscribed, Transport, TransportFuture},
};

/// A [`Transport`] within one process. Clones share one bus.
///
/// When a publish returns, the message is in the queue of every subscriber, in order per publisher.
/// A message is lost only if a subscriber falls behind by more than its queue holds: then the
/// queued messages are dropped and the subscriber receives a [`Delivery::Gap`] instead.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
///
/// // In a test: two instances of one service in one process.
/// let bus = LocalTransport::new();
/// let instance = || {
///     LazyLayersCache::<u64, String>::builder()
///         .name("users")
///         .event_bus(bus.clone(), WireCodec::new())
///         .build()
/// };
/// let (one, other) = (instance()?, instance()?);
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Clone)]
pub struct LocalTransport(Arc<Inner>);

struct Inner {
    /// The subscriptions own their inboxes.
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    capacity: usize,
    max_bytes: usize,
}

impl LocalTransport {
    /// The default number of messages that a subscriber may fall behind.
    pub const CAPACITY: usize = 10_000;
    /// The default number of bytes of the messages that a subscriber may fall behind: 32 MiB.
    pub const MAX_BYTES: usize = 32 << 20;

    /// Creates a bus with queues of [`CAPACITY`](Self::CAPACITY) messages and
    /// [`MAX_BYTES`](Self::MAX_BYTES).
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, LocalTransport, Transport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = LocalTransport::new();
    /// let mut subscription = bus.subscribe().await?;
    /// bus.publish(b"hello").await?;
    /// assert_eq!(subscription.messages.next().await, Delivery::Message(b"hello".to_vec()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// Creates a bus with queues of `capacity` messages and [`MAX_BYTES`](Self::MAX_BYTES). Zero
    /// counts as one.
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, LocalTransport, Transport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = LocalTransport::with_capacity(1);
    /// let mut slow = bus.subscribe().await?;
    /// bus.publish(b"one").await?;
    /// bus.publish(b"two").await?;
    /// assert_eq!(slow.messages.next().await, Delivery::Gap);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self::with_limits(capacity, Self::MAX_BYTES)
    }

    /// Creates a bus with queues of `capacity` messages, zero counts as one, and `max_bytes` bytes.
    /// A larger message becomes a gap for every subscriber.
    ///
    /// ```
    /// use lazy_layers_cache::{Delivery, LocalTransport, Transport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = LocalTransport::with_limits(100, 1_024);
    /// let mut subscription = bus.subscribe().await?;
    /// bus.publish(&[0; 2_000]).await?;
    /// assert_eq!(subscription.messages.next().await, Delivery::Gap);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_limits(capacity: usize, max_bytes: usize) -> Self {
        let capacity = capacity.max(1);
        Self(Arc::new(Inner { inboxes: Mutex::default(), capacity, max_bytes }))
    }
}

impl Default for LocalTransport {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransport").finish_non_exhaustive()
    }
}

impl Transport for LocalTransport {
    fn name(&self) -> &'static str {
        "local"
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        Box::pin(async move {
            let mut inboxes = Vec::new();
            self.0.inboxes.lock().retain(|inbox| {
                inboxes.extend(inbox.upgrade());
                inbox.strong_count() > 0
            });
            // Outside of the lock: a push wakes a subscriber, which may publish or subscribe here.
            for inbox in inboxes {
                inbox.push(Delivery::Message(message.to_vec()));
            }
            Ok(())
        })
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async move {
            let inbox = Inbox::bounded(self.0.capacity, self.0.max_bytes);
            let mut inboxes = self.0.inboxes.lock();
            inboxes.retain(|inbox| inbox.strong_count() > 0);
            inboxes.push(Arc::downgrade(&inbox));
            let (messages, prober) = (Box::new(Arc::clone(&inbox)), Box::new(inbox));
            Ok(Subscribed { messages, prober, resumed: false })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
