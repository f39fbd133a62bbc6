//! The error of a section whose store or transport was not compiled in.

use super::error::ConfigError;

pub(super) fn needs_feature(what: &str, feature: &str) -> ConfigError {
    ConfigError::other(format!(
        "{what} needs the feature `{feature}` of the crate lazy-layers-cache; add it in Cargo.toml"
    ))
}
