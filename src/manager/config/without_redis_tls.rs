//! Without the feature `redis-tls` certificates are an error.

use std::path::Path;

use crate::{adapters::redis::endpoint::tls::TlsMaterial, error::BuildError};

pub(super) fn read(_: Option<&Path>, _: Option<(&Path, &Path)>) -> Result<TlsMaterial, BuildError> {
    let fix = "enable the feature `redis-tls` of the crate lazy-layers-cache in Cargo.toml";
    Err(BuildError::new("tls", "needs a feature that is off", fix))
}
