//! Without the feature `redis-tls` there are no certificates, and `rediss://` is refused.

use redis::{Client, ConnectionInfo, RedisResult, cluster::ClusterClientBuilder};

#[derive(Clone, Default)]
pub(crate) struct TlsMaterial {}

impl TlsMaterial {
    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        Client::open(info)
    }

    pub(crate) fn cluster(&self, cluster: ClusterClientBuilder) -> ClusterClientBuilder {
        cluster
    }
}
