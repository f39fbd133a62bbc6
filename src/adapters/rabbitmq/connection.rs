//! A connection to RabbitMQ whose socket we can shut down.
//!
//! The client runs a thread per connection. While the broker does not answer, that thread waits:
//! for ever during the handshake, and until enough heartbeats are missed after it. So we keep a
//! handle of the socket and shut it down, which ends the thread. A client that fails to connect
//! leaves tasks behind. So we connect the socket and pass it to the client.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use async_compat::Compat;
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties,
    tcp::RustlsConnector,
    uri::{AMQPScheme, AMQPUri},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::timeout};

use super::address::Address;
use crate::{
    adapters::{
        client_name::ClientName,
        task::{runtime, timeout_named},
        tls::TlsOptions,
    },
    error::BoxError,
};

pub(crate) enum Origin {
    /// Connects anew each time, within the limit.
    Connect { address: Box<Address>, tls: TlsOptions, limit: Duration, name: ClientName },
    /// The connection of the application, which others share: it is never closed here.
    Connection(Arc<Connection>),
}

pub(crate) struct BrokerConnection {
    connection: Arc<Connection>,
    /// `None` for a connection of the application, and after the end.
    socket: Mutex<Option<ShutdownSocketOnDrop>>,
    /// The channel of consumers with delegates, which the client does not end by itself.
    consuming: Mutex<Option<Channel>>,
    runtime: Handle,
}

impl BrokerConnection {
    pub(crate) async fn open(origin: &Origin) -> Result<Self, BoxError> {
        let runtime = runtime()?;
        let (address, tls, limit, name) = match origin {
            Origin::Connect { address, tls, limit, name } => (address, tls, *limit, name),
            Origin::Connection(connection) => {
                let connection = Arc::clone(connection);
                let (socket, consuming) = Default::default();
                return Ok(Self { connection, socket, consuming, runtime });
            }
        };
        let uri = &address.uri;
        let tls = match uri.scheme {
            AMQPScheme::AMQPS => Some(RustlsConnector::from(tls.config().await?)),
            AMQPScheme::AMQP => None,
        };
        timeout_named(limit, "connect", async {
            let (socket, stream) = connect(uri, tls.as_ref()).await?;
            let stream = Mutex::new(Some(stream));
            let connect_once = async move |_, _| {
                let reconnect = || io::Error::from(io::ErrorKind::NotConnected).into();
                stream.lock().take().ok_or_else(reconnect)
            };
            let properties = ConnectionProperties::default()
                .with_connection_name(name.to_string().into())
                .with_locale(address.locale.as_str().into());
            let client = lapin::runtime::default_runtime()?;
            let connection =
                Connection::connector(uri.clone(), client, connect_once, properties).await?;
            let (connection, socket) = (Arc::new(connection), Mutex::new(Some(socket)));
            Ok(Self { connection, socket, consuming: Mutex::default(), runtime })
        })
        .await
    }

    pub(crate) async fn channel(&self) -> Result<Channel, BoxError> {
        Ok(self.connection.create_channel().await?)
    }

    /// Opens the channel of the consumers. Their unacknowledged messages return to the queue, and
    /// the broker forgets them, in one step: with the end of the connection.
    pub(crate) async fn consuming_channel(&self) -> Result<Channel, BoxError> {
        let channel = self.channel().await?;
        *self.consuming.lock() = Some(channel.clone());
        Ok(channel)
    }

    /// Whether the broker has asked its publishers to pause, because it is out of memory or disk.
    /// The client then sends nothing at all.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }
}

impl BrokerConnection {
    /// Closes the connection, and of a connection of the application the channel of the consumers.
    /// The connection cannot be used any more. Nothing is left to do after the first call.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future breaks the connection without a goodbye.
    pub(crate) fn close(&self) -> impl Future<Output = ()> + Send + 'static {
        let (socket, channel) = (self.socket.lock().take(), self.consuming.lock().take());
        let connection = Arc::clone(&self.connection);
        async move {
            let (code, text) = (200, "goodbye");
            let _ = timeout(CLOSE_TIMEOUT, async {
                match (&socket, channel) {
                    (Some(_), _) => connection.close(code, text.into()).await,
                    (None, Some(channel)) => channel.close(code, text.into()).await,
                    (None, None) => Ok(()),
                }
            })
            .await;
            drop(socket);
        }
    }
}

impl Drop for BrokerConnection {
    fn drop(&mut self) {
        // After its runtime has shut down, `spawn` drops the future, and the socket with it.
        self.runtime.spawn(self.close());
    }
}

/// How long the broker may take to confirm that a connection is closed.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

async fn connect(
    uri: &AMQPUri,
    tls: Option<&RustlsConnector>,
) -> io::Result<(ShutdownSocketOnDrop, AsyncTcpStream<Compat<tokio::net::TcpStream>>)> {
    let host = uri.authority.host.as_str();
    let stream = tokio::net::TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = ShutdownSocketOnDrop(stream.try_clone()?);
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let stream = AsyncTcpStream::Plain(Compat::new(stream));
    let stream = match tls {
        Some(tls) => stream.into_rustls(tls, host).await?,
        None => stream,
    };
    Ok((socket, stream))
}

struct ShutdownSocketOnDrop(TcpStream);

impl Drop for ShutdownSocketOnDrop {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
