//! `EventBus`: a shared handle of a transport.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::transport::Transport;
use crate::error::BoxError;

/// The bus over which instances send each other invalidations: a shared handle of a [`Transport`].
/// An application can keep a clone, to ask for its health, while a cache uses another.
///
/// Caches with different [names](crate::CacheOptions::name) can share one bus, with one
/// exception: if the broker remembers the subscription by a name (JetStream, or RabbitMQ with a
/// queue name), each cache that is built alone needs a bus of its own. The caches of a
/// [`CacheManager`](crate::CacheManager) share one subscription, and so can share such a bus too.
///
/// ```
/// # use lazy_layers_cache::{EventBus, LocalTransport};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let bus = EventBus::new(LocalTransport::new());
/// assert!(bus.health_check().await.error.is_none());
/// # }
/// ```
#[derive(Clone)]
#[doc(alias = "RedisEventBus")]
#[doc(alias = "RabbitMQEventBus")]
#[doc(alias = "NatsEventBus")]
#[doc(alias = "LocalEventBus")]
pub struct EventBus(Arc<Inner>);

struct Inner {
    transport: Box<dyn Transport>,
    /// The number of bus sessions that use the bus.
    users: AtomicUsize,
}

/// The result of a [health check](EventBus::health_check).
///
/// ```
/// use lazy_layers_cache::{BusProbe, EventBus, LocalTransport};
///
/// /// The line of a status page.
/// fn line(probe: &BusProbe) -> String {
///     match &probe.error {
///         None => format!("{}: answered in {:?}", probe.transport, probe.took),
///         Some(error) => format!("{}: {error}", probe.transport),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let bus = EventBus::new(LocalTransport::new());
/// assert!(line(&bus.health_check().await).starts_with("local: answered in"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct BusProbe {
    /// The name of the transport: `redis`, `nats`.
    pub transport: &'static str,
    /// How long the check took.
    pub took: Duration,
    /// The problem, and its fix if it is known. `None`: the bus answered.
    pub error: Option<BoxError>,
}

impl EventBus {
    /// Creates a bus over a transport. It does not connect yet.
    ///
    /// ```
    /// use lazy_layers_cache::{EventBus, LazyLayersCache, LocalTransport, WireCodec};
    ///
    /// // Two caches with different names share one bus.
    /// let bus = EventBus::new(LocalTransport::new());
    /// let users = LazyLayersCache::<u64, String>::builder()
    ///     .name("users")
    ///     .event_bus(bus.clone(), WireCodec::new())
    ///     .build()?;
    /// let prices = LazyLayersCache::<u64, u32>::builder()
    ///     .name("prices")
    ///     .event_bus(bus, WireCodec::new())
    ///     .build()?;
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(Inner { transport: Box::new(transport), users: AtomicUsize::new(0) }))
    }

    /// Connects, so that a service can refuse to start without its bus. A cache does not need this
    /// call: it connects in the background, and again whenever the connection is lost.
    ///
    /// ```
    /// use lazy_layers_cache::{EventBus, LocalTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = EventBus::new(LocalTransport::new());
    /// // A service that must not start without its bus.
    /// bus.connect().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the reason why there is no connection, and its fix if it is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no half-made connection behind.
    pub async fn connect(&self) -> Result<(), BoxError> {
        self.transport().ping().await
    }

    /// Checks that the other side answers, within the time limits of the transport.
    ///
    /// ```
    /// use lazy_layers_cache::EventBus;
    /// use lazy_layers_cache::testing::SharedBus;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let link = SharedBus::new(1).link();
    /// let bus = EventBus::new(link.clone());
    /// assert!(bus.health_check().await.error.is_none());
    ///
    /// link.cut();
    /// assert!(bus.health_check().await.error.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn health_check(&self) -> BusProbe {
        let start = Instant::now();
        let error = self.transport().ping().await.err();
        BusProbe { transport: self.transport().name(), took: start.elapsed(), error }
    }

    /// Closes the connections. A cache that still uses the bus connects anew.
    ///
    /// ```
    /// use lazy_layers_cache::{EventBus, LocalTransport};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
    /// let bus = EventBus::new(LocalTransport::new());
    /// bus.connect().await?;
    /// bus.disconnect().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the reason why a connection was not closed properly. It is gone all the same.
    ///
    /// # Cancel safety
    ///
    /// Connections may be left open. Another call closes them.
    pub async fn disconnect(&self) -> Result<(), BoxError> {
        self.transport().disconnect().await
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.0.transport
    }

    /// Counts a bus session that uses the bus, until the value is dropped.
    pub(crate) fn begin_use(&self) -> BusUse {
        self.0.users.fetch_add(1, Ordering::SeqCst);
        BusUse(Some(self.clone()))
    }
}

/// The use of a bus by one bus session.
pub(crate) struct BusUse(Option<EventBus>);

impl BusUse {
    /// Ends the use, and closes the connections if no other session uses the bus.
    pub(crate) async fn end(mut self) -> Result<(), BoxError> {
        match self.release() {
            Some(unused) => unused.disconnect().await,
            None => Ok(()),
        }
    }

    /// Returns the bus if no session uses it any more.
    fn release(&mut self) -> Option<EventBus> {
        let bus = self.0.take()?;
        let was_last = bus.0.users.fetch_sub(1, Ordering::SeqCst) == 1;
        was_last.then_some(bus)
    }
}

impl Drop for BusUse {
    fn drop(&mut self) {
        drop(self.release());
    }
}

impl<T: Transport> From<T> for EventBus {
    fn from(transport: T) -> Self {
        Self::new(transport)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventBus").field(&self.transport().name()).finish()
    }
}
