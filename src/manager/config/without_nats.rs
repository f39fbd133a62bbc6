//! Without the feature `nats`: its transports are errors.

use super::{error::ConfigError, tree::Section, without_feature::needs_feature};
use crate::manager::options::MakeBus;

pub(super) fn core(_: Section) -> Result<MakeBus, ConfigError> {
    Err(needs_feature("the transport `nats`", "nats"))
}

pub(super) fn jetstream(_: Section) -> Result<MakeBus, ConfigError> {
    Err(needs_feature("the transport `jetstream`", "nats"))
}
