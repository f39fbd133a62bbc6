//! With the feature `redis-tls`: reads the PEM files of a section.

use std::path::Path;

use redis::ClientTlsConfig;

use crate::{adapters::redis::endpoint::tls::TlsMaterial, error::BuildError};

/// Takes the authorities to trust, and the certificate and the key of the client.
pub(super) fn read(
    root: Option<&Path>,
    client: Option<(&Path, &Path)>,
) -> Result<TlsMaterial, BuildError> {
    let read = |file: &Path| {
        std::fs::read(file).map_err(|error| {
            let problem = format!("names a file that cannot be read, {file:?}: {error}");
            BuildError::new("tls", problem, "name a PEM file that this process may read")
        })
    };
    let client = client.map(|(certificate, key)| {
        let (client_cert, client_key) = (read(certificate)?, read(key)?);
        Ok::<_, BuildError>(ClientTlsConfig { client_cert, client_key })
    });
    Ok(TlsMaterial { root: root.map(read).transpose()?, client: client.transpose()? })
}
