//! Without the feature `rabbitmq`: its transport is an error.

use super::{error::ConfigError, tree::Section, without_feature::needs_feature};
use crate::manager::options::MakeBus;

pub(super) fn bus(_: Section) -> Result<MakeBus, ConfigError> {
    Err(needs_feature("the transport `rabbitmq`", "rabbitmq"))
}
