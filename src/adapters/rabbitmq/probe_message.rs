//! A probe as a message: what its sender writes, and the subscription reads.
//!
//! | part | content |
//! | --- | --- |
//! | exchange, routing key | the default exchange, which routes by the name of the queue |
//! | `type` | `lazy-layers-cache.probe` |
//! | `correlation-id` | the tag of the consumer, which the broker has chosen for the subscription |
//! | `delivery-mode` | 1: never written to disk |
//! | `expiration` | a minute, so that a durable queue does not keep the probe of a past subscription |
//! | body | the number, in 8 bytes, the most significant one first |

use lapin::{BasicProperties, message::Delivery};

const KIND: &str = "lazy-layers-cache.probe";
const EXPIRATION: &str = "60000";

pub(crate) fn properties(tag: &str) -> BasicProperties {
    BasicProperties::default()
        .with_type(KIND.into())
        .with_correlation_id(tag.into())
        .with_delivery_mode(1)
        .with_expiration(EXPIRATION.into())
}

pub(crate) fn body(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Returns the tag and the number of a probe, `None` for any other message.
pub(crate) fn parse(received: &Delivery) -> Option<(&str, u64)> {
    let properties = &received.properties;
    let is_probe = received.exchange.as_str().is_empty()
        && properties.kind().as_ref().is_some_and(|kind| kind.as_str() == KIND);
    let number = u64::from_be_bytes(received.data.as_slice().try_into().ok()?);
    Some((properties.correlation_id().as_ref()?.as_str(), number)).filter(|_| is_probe)
}
