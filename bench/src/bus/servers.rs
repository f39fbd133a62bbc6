//! The servers of the tests: on free loopback ports, ended with their table.

#[path = "../../../tests/it/support/certificate.rs"]
mod certificate;
#[path = "../../../tests/it/support/nats.rs"]
pub(crate) mod nats;
#[path = "../../../tests/it/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../../../tests/it/support/redis.rs"]
pub(crate) mod redis;

// The other files of the tests import these from their parent.
use crate::redis_process::process;
