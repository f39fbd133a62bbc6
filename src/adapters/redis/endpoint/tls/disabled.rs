use redis::{Client, ConnectionInfo, RedisResult, cluster::ClusterClientBuilder};

#[derive(Clone, Default)]
pub(crate) struct Certificates {}

impl Certificates {
    #[expect(clippy::unused_self, reason = "the same as with certificates")]
    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        Client::open(info)
    }

    #[expect(clippy::unused_self, reason = "the same as with certificates")]
    pub(crate) fn cluster(&self, cluster: ClusterClientBuilder) -> ClusterClientBuilder {
        cluster
    }
}
