//! TLS of NATS and RabbitMQ: the options, and the one cryptography provider.

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

use crate::{
    error::{BoxError, BuildError},
    options::option_group,
};

option_group! {
    /// Whether TLS is required, and which certificates are trusted.
    ///
    /// ```
    /// use lazy_layers_cache::{NatsConnection, TlsOptions};
    ///
    /// let tls = TlsOptions::required()
    ///     .ca_file("/etc/nats/ca.pem")
    ///     .client_cert("/etc/nats/shop.pem")
    ///     .client_key("/etc/nats/shop.key");
    /// let connection = NatsConnection::default().servers(["tls://nats-1:4222"]).tls(tls);
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TlsOptions {
        /// Refuses a server without TLS. An address that begins with `tls://` or `amqps://` does
        /// the same; so does, with NATS, a certificate in one of the other options.
        /// Default: false.
        pub required: bool = false => [custom],
        /// A PEM file with the certificates to trust instead of the system's. Default: none.
        pub ca_file: Option<PathBuf> = None => [Some(impl Into<PathBuf>)],
        /// A PEM file with the certificate of this client; needs `client_key`. Default: none.
        pub client_cert: Option<PathBuf> = None => [Some(impl Into<PathBuf>)],
        /// A PEM file with the key of `client_cert`. Default: none.
        pub client_key: Option<PathBuf> = None => [Some(impl Into<PathBuf>)],
    }
}

impl TlsOptions {
    /// The default options with TLS [`required`](Self#structfield.required).
    ///
    /// ```
    /// use lazy_layers_cache::TlsOptions;
    ///
    /// assert!(TlsOptions::required().required && !TlsOptions::default().required);
    /// ```
    #[must_use]
    pub fn required() -> Self {
        Self { required: true, ..Self::default() }
    }

    /// Whether a server without TLS is refused: whoever names a certificate wants TLS.
    pub(crate) fn is_required(&self) -> bool {
        self.required || self.ca_file.is_some() || self.client_cert.is_some()
    }

    pub(crate) fn check(&self, option: &'static str) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.client_cert.is_some() != self.client_key.is_some(),
            option,
            "has only one of client_cert and client_key",
            "set both or neither",
        )
    }

    /// Reads the files and returns the configuration for a client. It names the provider: by
    /// default rustls takes the provider of the process, and panics if dependencies have enabled
    /// two and the application has chosen none.
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
            // System certificates that cannot be parsed are skipped, so they are not trusted.
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
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| in_file(file, &error))?;
    if certificates.is_empty() {
        return Err(in_file(file, &"contains no certificate"));
    }
    Ok(certificates)
}

fn in_file(file: &Path, problem: &dyn std::fmt::Display) -> BoxError {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {problem}", file.display())).into()
}
