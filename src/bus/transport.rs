//! What carries events from one instance to the others, in bytes.

use std::pin::Pin;

use crate::error::BoxError;

/// A future as a transport returns it.
pub type TransportFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// A way for events to reach every instance.
///
/// Events are bytes here. A transport need not keep them in order and may deliver one twice: the
/// cache knows each by its id. An instance's own must come back to it: that is how one that is
/// alone, or hears of nothing, knows that it would hear. What a transport must not do is lose one in
/// silence: see [`Delivery::Gap`].
///
/// `testing::check_transport` asks one of your own for all of this.
///
/// It neither reconnects nor retries on its own account. When something breaks, it says so, by an
/// error or a gap, and is asked to subscribe anew; so there is one place that knows what was
/// missed.
pub trait Transport: Send + Sync + 'static {
    /// What it is, for logs and health: `redis`, `nats`.
    fn name(&self) -> &'static str;

    /// Hands an event over. That it returns means what the transport says it means, never that
    /// peers have it.
    ///
    /// # Cancel safety
    ///
    /// The event may have been sent or not.
    fn publish<'a>(&'a self, event: &'a [u8]) -> TransportFuture<'a, ()>;

    /// Whether [`publish`](Self::publish) never waits. Then it is called where an event arises,
    /// which spares a task's turn. Default: false.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Listens. Returns when events that are published from now on will be received: not when
    /// that has been asked for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no subscription behind.
    fn subscribe(&self) -> TransportFuture<'_, Subscribed>;

    /// Asks whether the other side answers, on the connection that events are published by.
    ///
    /// # Errors
    ///
    /// What is wrong, and if possible what to do about it.
    fn ping(&self) -> TransportFuture<'_, ()>;

    /// Lets go of connections. A publish or subscribe that comes later connects anew.
    fn disconnect(&self) -> TransportFuture<'_, ()>;
}

/// A subscription that has begun.
pub struct Subscribed {
    /// What comes.
    pub messages: Box<dyn MessageStream>,
    /// Whether it goes on exactly where the last subscription of this transport ended, so that
    /// nothing in between was lost: the other side kept it. `false` where that is not known.
    pub resumed: bool,
}

/// A subscription. Dropping it ends it.
pub trait MessageStream: Send {
    /// Waits for what comes next. Asking for the next one says that the last one was dealt with:
    /// a transport that confirms events to the other side confirms it then, not before.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>>;
}

/// What a subscription brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// An event, as it was published.
    Message(Vec<u8>),
    /// Events were lost, or may have been: a queue ran over, a connection broke. Which, nobody
    /// knows any more, so all that they could have said must be assumed.
    Gap,
    /// The subscription is over, and more may be lost until there is a new one.
    Closed,
}
