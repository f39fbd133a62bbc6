//! Makes clients from URLs, and opens their connections with one set of socket options.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, RedisError, RedisResult,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::tls::TlsMaterial;
use crate::{adapters::client_name::ClientName, error::BuildError};

/// Connects without a limit for replies: each call has a deadline of its own.
pub(crate) async fn open(client: &Client, timeout: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Names a connection in the server's `CLIENT LIST`, if the user may: after the caches that use it,
/// and the part of the library that does.
pub(crate) async fn set_name(
    connection: &mut MultiplexedConnection,
    name: &ClientName,
    part: &str,
) {
    let command = redis::cmd("CLIENT").arg("SETNAME").arg(format!("{name}:{part}")).to_owned();
    let _ = connection.req_packed_command(&command).await;
}

pub(crate) fn client(url: &str, tls: &TlsMaterial) -> Result<Client, BuildError> {
    let info = info(url)?.set_tcp_settings(tcp());
    tls.client(info).map_err(|error| refused(&error))
}

pub(crate) fn info(url: &str) -> Result<ConnectionInfo, BuildError> {
    url.into_connection_info().map_err(|error| refused(&error))
}

pub(crate) fn refused(error: &RedisError) -> BuildError {
    let fix = "write redis://[user:password@]host[:port][/database], or rediss:// for TLS, which \
               needs the feature `redis-tls`";
    BuildError::new("redis.url", format!("is refused ({error})"), fix)
}

/// Returns socket options by which the kernel detects a dead server too, on connections that
/// nobody uses: those of a Cluster's client to idle nodes, for example.
pub(crate) fn tcp() -> TcpSettings {
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(IDLE / 2);
    with_user_timeout(TcpSettings::default().set_nodelay(true).set_keepalive(probes))
}

/// Idle time after which the kernel probes a connection.
const IDLE: Duration = Duration::from_secs(10);

#[cfg(any(target_os = "linux", target_os = "android"))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings.set_user_timeout(IDLE * 2)
}

/// Other systems have no such option, or the client does not support it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn with_user_timeout(settings: TcpSettings) -> TcpSettings {
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_probes_connections_and_closes_dead_ones() {
        let settings = tcp();
        assert!(settings.nodelay() && settings.keepalive().is_some());
        #[cfg(target_os = "linux")]
        assert_eq!(settings.user_timeout(), Some(IDLE * 2));
    }
}
