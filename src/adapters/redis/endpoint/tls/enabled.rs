//! Certificates in PEM, and the clients that use them.

use std::path::Path;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
    cluster::ClusterClientBuilder,
};

use crate::error::BuildError;

/// Certificates in PEM. Without a root certificate, clients trust the system's.
#[derive(Clone, Default)]
pub(crate) struct TlsMaterial {
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) client: Option<ClientTlsConfig>,
}

impl TlsMaterial {
    /// Reads PEM files: the authorities to trust, and the certificate and the key of the client.
    pub(crate) fn read(
        root: Option<&Path>,
        client: Option<(&Path, &Path)>,
    ) -> Result<Self, BuildError> {
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
        Ok(Self { root: root.map(read).transpose()?, client: client.transpose()? })
    }

    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if is_tls { Client::build_with_tls(info, self.certificates()) } else { Client::open(info) }
    }

    pub(crate) fn cluster(&self, cluster: ClusterClientBuilder) -> ClusterClientBuilder {
        if self.root.is_none() && self.client.is_none() {
            return cluster;
        }
        cluster.certs(self.certificates())
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: self.client.clone(), root_cert: self.root.clone() }
    }
}
