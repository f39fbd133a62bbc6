//! Without the feature `redis`: its sections are errors.

use super::{error::ConfigError, tree::Section, without_feature::needs_feature};
use crate::manager::options::{MakeBus, MakeL2};

pub(super) fn l2(_: Section) -> Result<MakeL2, ConfigError> {
    Err(needs_feature("this section", "redis"))
}

pub(super) fn bus(_: Section, _: Option<&Section>) -> Result<MakeBus, ConfigError> {
    Err(needs_feature("the transport `redis`", "redis"))
}
