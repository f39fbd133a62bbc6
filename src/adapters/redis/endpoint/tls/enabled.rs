//! Certificates in PEM, and the clients that use them.

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
    cluster::ClusterClientBuilder,
};

/// Certificates in PEM. Without a root certificate, clients trust the system's.
#[derive(Clone, Default)]
pub(crate) struct TlsMaterial {
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) client: Option<ClientTlsConfig>,
}

impl TlsMaterial {
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
