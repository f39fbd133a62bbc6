//! Sends probes to the queue of a subscription.

use std::sync::{Arc, Weak};

use super::{
    probe_message, publisher::Publisher, publisher_slot::PublisherSlot, shutdown::Shutdown,
};
use crate::bus::transport::{Prober, TransportFuture};

/// A probe passes what the messages of its instance pass: the connection that publishes, and the
/// queue, in which it is behind all messages that the broker has confirmed before.
pub(crate) struct RabbitMqProber {
    /// Of the transport.
    pub(crate) publisher: Weak<PublisherSlot>,
    pub(crate) queue: String,
    /// The tag of the consumer.
    pub(crate) tag: String,
    pub(crate) subscription: Shutdown,
}

impl Prober for RabbitMqProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            let ended = || Err("the subscription has ended".into());
            let Some(slot) = self.publisher.upgrade() else {
                return Err("the transport was dropped".into());
            };
            if self.subscription.is_triggered() {
                return ended();
            }
            let probe = async |publisher: Arc<Publisher>| {
                publisher.probe(&self.queue, probe_message::properties(&self.tag), number).await
            };
            if slot.call("confirm a probe", probe).await? {
                return Ok(());
            }
            // The queue is gone.
            self.subscription.trigger();
            ended()
        })
    }
}
