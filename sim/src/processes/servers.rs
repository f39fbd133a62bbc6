//! The servers of the tests, and the proxy that breaks their network. They use free loopback ports
//! and end with the process that started them.

use std::time::Duration;

#[path = "../../../tests/it/support/broker.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod broker;
#[path = "../../../tests/it/support/certificate.rs"]
#[expect(clippy::unwrap_used, reason = "a file of the tests")]
mod certificate;
#[path = "../../../tests/it/support/nats.rs"]
#[expect(dead_code, reason = "a file of the tests")]
pub(crate) mod nats;
#[path = "../../../tests/it/support/nats_cluster.rs"]
#[expect(dead_code, reason = "a file of the tests")]
pub(crate) mod nats_cluster;
#[path = "../../../tests/it/support/process.rs"]
#[expect(clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod process;
#[path = "../../../tests/it/support/proxy.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod proxy;
#[path = "../../../tests/it/support/rabbitmq.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod rabbitmq;
#[path = "../../../tests/it/support/redis.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod redis;

/// The files below import this function from their parent.
pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
