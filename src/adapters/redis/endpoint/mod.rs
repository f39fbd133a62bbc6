//! Where Redis is and how to connect to it: for the level that instances share, and for events.

mod external;
mod sentinel;
mod tls;

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

pub(crate) use self::{
    external::Given,
    sentinel::{Named, Sentinel},
    tls::Certificates,
};
use crate::error::BuildError;

pub(crate) async fn open(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        // Each call has its own deadline.
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A peer that is gone without a word is noticed by the kernel too, where nobody asks: by a
/// Cluster's connections to nodes that are not in use, say.
pub(crate) fn tcp() -> TcpSettings {
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(IDLE / 2);
    with_user_timeout(TcpSettings::default().set_nodelay(true).set_keepalive(probes))
}

/// How long a connection is idle before it is probed.
const IDLE: Duration = Duration::from_secs(10);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings.set_user_timeout(IDLE * 2)
}

/// Elsewhere the system has no such setting, or the client does not know it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings
}

pub(crate) fn client(url: &str, certificates: &Certificates) -> Result<Client, BuildError> {
    let info = info(url)?.set_tcp_settings(tcp());
    certificates.client(info).map_err(|error| refused(&error))
}

pub(crate) fn info(url: &str) -> Result<ConnectionInfo, BuildError> {
    url.into_connection_info().map_err(|error| refused(&error))
}

pub(crate) fn check_nodes(urls: &[String]) -> Result<(), BuildError> {
    if urls.is_empty() {
        return Err(BuildError::new("redis.cluster", "names no node", "write one URL or more"));
    }
    Ok(())
}

pub(crate) fn refused(error: &RedisError) -> BuildError {
    let fix = "write redis://[user:password@]host[:port][/database], or rediss:// for TLS, which \
               needs the feature `redis-tls`";
    BuildError::new("redis.url", format!("is refused ({error})"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_probed_and_given_up_by_the_kernel_too() {
        let settings = tcp();
        assert!(settings.nodelay() && settings.keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(settings.user_timeout(), Some(IDLE * 2));
    }
}
