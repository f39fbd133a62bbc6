//! Reads the options of an adapter in a section that has more than those.

use serde::de::DeserializeOwned;

use super::{
    error::{ConfigError, Problem},
    tree::Section,
    tree_reader::read,
};

/// Reads a section from which the options `more` were removed. An error about an unknown name knows
/// them too.
pub(super) fn read_beside<T: DeserializeOwned>(
    section: Section,
    more: &[&'static str],
) -> Result<T, ConfigError> {
    read(section).map_err(|mut error| {
        if let (Problem::UnknownName { known, .. }, []) = (&mut error.problem, &*error.path) {
            known.extend(more);
        }
        error
    })
}
