//! The servers of the tests: on free loopback ports, gone with their table.

#[path = "../../../tests/it/support/certificate.rs"]
mod certificate;
#[path = "../../../tests/it/support/nats.rs"]
pub(crate) mod nats;
#[path = "../../../tests/it/support/rabbitmq.rs"]
pub(crate) mod rabbitmq;
#[path = "../../../tests/it/support/redis.rs"]
pub(crate) mod redis;

// Of these files, what the others look for beside them.
use crate::redis_process::process;
