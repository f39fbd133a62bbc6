//! The handle that a cache is given.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::transport::Transport;
use crate::error::BoxError;

/// A bus that instances tell each other by what has changed: a [`Transport`] behind a handle that
/// can be kept and asked, while a cache has a clone of it.
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
pub struct EventBus(Arc<dyn Transport>);

/// What a bus answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct EventBusHealth {
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
        Self(Arc::new(transport))
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
        self.0.check().await
    }

    /// Asks the other side for a sign of life, within the transport's own time limits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn health_check(&self) -> EventBusHealth {
        let asked = Instant::now();
        let error = self.0.check().await.err();
        EventBusHealth { transport: self.0.name(), took: asked.elapsed(), error }
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
        self.0.disconnect().await
    }

    pub(crate) fn transport(&self) -> &Arc<dyn Transport> {
        &self.0
    }
}

impl<T: Transport> From<T> for EventBus {
    fn from(transport: T) -> Self {
        Self::new(transport)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventBus").field(&self.0.name()).finish()
    }
}
