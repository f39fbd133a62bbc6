//! The handle that a cache is given.

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

/// A bus that instances tell each other by what has changed: a [`Transport`] behind a handle that
/// can be kept and asked, while a cache has a clone of it.
///
/// Caches of different [namespaces](crate::EventBusOptions::namespace) can share one, except where
/// its subscription has a name that the broker remembers (JetStream, RabbitMQ with a queue of that
/// name): that is one cache's.
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
    /// Caches that have not closed.
    users: AtomicUsize,
}

/// What a bus answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct BusProbe {
    /// The transport's name: `redis`, `nats`.
    pub transport: &'static str,
    /// How long the answer took.
    pub took: Duration,
    /// Why there is none, and if possible what to do about it. `None`: all is well.
    pub error: Option<BoxError>,
}

impl EventBus {
    /// A bus over a transport. Nothing is connected yet.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(Inner { transport: Box::new(transport), users: AtomicUsize::new(0) }))
    }

    /// Connects, so that a service can refuse to start without its bus. A cache needs no call of
    /// it: it connects in the background, and again whenever the connection is lost.
    ///
    /// # Errors
    ///
    /// Why there is no connection, with the cure where it is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no half of a connection behind.
    pub async fn connect(&self) -> Result<(), BoxError> {
        self.transport().ping().await
    }

    /// Asks the other side for a sign of life, within the transport's own time limits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn health_check(&self) -> BusProbe {
        let asked = Instant::now();
        let error = self.transport().ping().await.err();
        BusProbe { transport: self.transport().name(), took: asked.elapsed(), error }
    }

    /// Lets go of connections. A cache that still uses the bus connects anew.
    ///
    /// # Errors
    ///
    /// What went wrong while it said goodbye; the connection is gone all the same.
    ///
    /// # Cancel safety
    ///
    /// Connections may be left open; calling it again closes them.
    pub async fn disconnect(&self) -> Result<(), BoxError> {
        self.transport().disconnect().await
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.0.transport
    }

    pub(crate) fn begin_use(&self) {
        self.0.users.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets go of connections if no other cache uses them.
    pub(crate) async fn end_use(&self) -> Result<(), BoxError> {
        if self.0.users.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.disconnect().await
        } else {
            Ok(())
        }
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
