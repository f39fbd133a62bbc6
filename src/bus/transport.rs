//! The contract of transports, which carry messages between instances as bytes.

use std::pin::Pin;

use crate::error::BoxError;

/// The future that a transport returns.
pub type TransportFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// Carries messages to all instances.
///
/// | a transport | |
/// | --- | --- |
/// | may | reorder messages, and deliver one twice: the cache recognises each by its id |
/// | must | deliver an instance's own messages to it too: by them an instance notices that it receives nothing |
/// | must | report a loss, by [`Delivery::Gap`], [`Delivery::Closed`] or an error, never lose a message silently |
/// | must not | reconnect or retry: the cache subscribes again, and knows what it may have missed |
///
/// `testing::check_transport` checks an implementation of your own against this contract.
pub trait Transport: Send + Sync + 'static {
    /// The name for logs and health: `redis`, `nats`.
    fn name(&self) -> &'static str;

    /// Publishes a message. Each transport documents the guarantee of a publish that has returned;
    /// it is never that peers have received the message.
    ///
    /// # Cancel safety
    ///
    /// The message may or may not have been sent.
    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()>;

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
pub struct Subscribed {
    /// The messages it receives.
    pub messages: Box<dyn MessageStream>,
    /// Whether it continues exactly where the last subscription of this transport ended, so that no
    /// message in between was lost. `false` if that is not known.
    pub resumed: bool,
}

/// A subscription. Dropping it ends it.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message, as it was published.
    Message(Vec<u8>),
    /// Messages were lost, or may have been: a queue overflowed, or a connection broke. Nobody
    /// knows which ones, so the cache must assume that any key was invalidated.
    Gap,
    /// The subscription has ended. More messages may be lost until the next one begins.
    Closed,
}
