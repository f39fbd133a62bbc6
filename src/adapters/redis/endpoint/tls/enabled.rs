use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
    cluster::ClusterClientBuilder,
};

/// In PEM. Without any, the machine's own authorities are trusted.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    root: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if is_tls { Client::build_with_tls(info, self.given()) } else { Client::open(info) }
    }

    pub(crate) fn cluster(&self, cluster: ClusterClientBuilder) -> ClusterClientBuilder {
        if self.root.is_none() && self.client.is_none() {
            return cluster;
        }
        cluster.certs(self.given())
    }

    pub(crate) fn trust(&mut self, root: Vec<u8>) {
        self.root = Some(root);
    }

    pub(crate) fn show(&mut self, certificate: Vec<u8>, key: Vec<u8>) {
        self.client = Some((certificate, key));
    }

    fn given(&self) -> TlsCertificates {
        let client_tls = self.client.clone();
        TlsCertificates {
            client_tls: client_tls
                .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: self.root.clone(),
        }
    }
}
