//! TLS for brokers: what can be set, and one provider of cryptography for all of them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::error::{BoxError, BuildError};

/// TLS: whether to insist on it, and whom to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct TlsOptions {
    /// Refuses a server that does not speak TLS. An address that begins with `tls://` says the
    /// same. Default: false.
    pub required: bool,
    /// A PEM file with the certificates to trust instead of the system's. Default: none.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with a certificate to show to the server, with `client_key`. Default: none.
    pub client_cert: Option<PathBuf>,
    /// See `client_cert`. Default: none.
    pub client_key: Option<PathBuf>,
}

impl TlsOptions {
    /// TLS or nothing, with the other defaults.
    #[must_use]
    pub fn required() -> Self {
        Self { required: true, ..Self::default() }
    }

    /// See the field [`ca_file`](Self::ca_file).
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// See the fields [`client_cert`](Self::client_cert) and [`client_key`](Self::client_key).
    #[must_use]
    pub fn client(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_cert = Some(cert.into());
        self.client_key = Some(key.into());
        self
    }

    pub(crate) fn check(&self, option: &'static str) -> Result<(), BuildError> {
        if self.client_cert.is_some() == self.client_key.is_some() {
            return Ok(());
        }
        Err(BuildError::new(
            option,
            "has only one of client_cert and client_key",
            "set both or neither",
        ))
    }

    /// What a client is to use. The provider is named: left to itself rustls takes the one of the
    /// process, and panics where dependencies brought two and nobody chose.
    ///
    /// Reads files.
    pub(crate) async fn config(&self) -> Result<ClientConfig, BoxError> {
        let options = self.clone();
        tokio::task::spawn_blocking(move || options.read_config()).await?
    }

    fn read_config(&self) -> Result<ClientConfig, BoxError> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            for certificate in certificates(file)? {
                roots.add(certificate)?;
            }
        } else {
            // What does not load is not trusted; a server that needs it is refused.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) else {
            return Ok(config.with_no_client_auth());
        };
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
        Ok(config.with_client_auth_cert(certificates(cert)?, key)?)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<_, _>>);
    let certificates = read.map_err(|error| in_file(file, &error))?;
    if certificates.is_empty() {
        return Err(in_file(file, &"holds no certificate"));
    }
    Ok(certificates)
}

fn in_file(file: &Path, problem: &dyn std::fmt::Display) -> BoxError {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", file.display())).into()
}
