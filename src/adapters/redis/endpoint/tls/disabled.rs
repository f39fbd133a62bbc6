//! Without the feature `redis-tls` there are no certificates, and `rediss://` is refused.

use std::path::Path;

use redis::{Client, ConnectionInfo, RedisResult, cluster::ClusterClientBuilder};

use crate::error::BuildError;

#[derive(Clone, Default)]
pub(crate) struct TlsMaterial {}

impl TlsMaterial {
    pub(crate) fn read(_: Option<&Path>, _: Option<(&Path, &Path)>) -> Result<Self, BuildError> {
        let fix = "enable the feature `redis-tls` of the crate lazy-layers-cache in Cargo.toml";
        Err(BuildError::new("tls", "needs a feature that is off", fix))
    }

    pub(crate) fn client(&self, info: ConnectionInfo) -> RedisResult<Client> {
        Client::open(info)
    }

    pub(crate) fn cluster(&self, cluster: ClusterClientBuilder) -> ClusterClientBuilder {
        cluster
    }
}
