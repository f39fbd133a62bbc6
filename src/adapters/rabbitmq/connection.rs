//! A connection to RabbitMQ that can be given up.
//!
//! The client runs a thread for each connection and leaves it waiting where the broker does not
//! answer: for ever while it greets, and until the missing heartbeats add up later. So each link
//! keeps a handle of its socket and hangs up, and then the thread ends. And where it cannot connect
//! it leaves tasks behind. So it is given a socket that is connected.

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

use crate::{
    adapters::{task::runtime, tls::TlsOptions},
    error::BoxError,
};

/// How to come to a connection.
pub(crate) enum Origin {
    /// Ours: a new one for each link.
    Connect { uri: Box<AMQPUri>, tls: TlsOptions, limit: Duration },
    /// The user's, shared with others: never closed by us.
    Connection(Arc<Connection>),
}

pub(crate) struct Link {
    connection: Arc<Connection>,
    /// None if the connection is not ours to close.
    hang_up: Option<HangUp>,
    runtime: Handle,
}

impl Link {
    /// Within the limit.
    pub(crate) async fn open(origin: &Origin) -> Result<Self, BoxError> {
        let runtime = runtime()?;
        let (uri, tls, limit) = match origin {
            Origin::Connect { uri, tls, limit } => (uri, tls, *limit),
            Origin::Connection(connection) => {
                let connection = Arc::clone(connection);
                return Ok(Self { connection, hang_up: None, runtime });
            }
        };
        let tls = match uri.scheme {
            AMQPScheme::AMQPS => Some(RustlsConnector::from(tls.config().await?)),
            AMQPScheme::AMQP => None,
        };
        let opening = async {
            let (hang_up, stream) = connect(uri, tls.as_ref()).await?;
            let stream = Mutex::new(Some(stream));
            let hand_over = async move |_, _| {
                let again = || io::Error::from(io::ErrorKind::NotConnected).into();
                stream.lock().take().ok_or_else(again)
            };
            let properties =
                ConnectionProperties::default().with_connection_name(env!("CARGO_PKG_NAME").into());
            let runtime = lapin::runtime::default_runtime()?;
            let connection =
                Connection::connector((**uri).clone(), runtime, hand_over, properties).await?;
            Ok::<_, BoxError>((hang_up, connection))
        };
        let (hang_up, connection) = timeout(limit, opening)
            .await
            .map_err(|_| format!("took longer than {limit:?} to connect"))??;
        Ok(Self { connection: Arc::new(connection), hang_up: Some(hang_up), runtime })
    }

    pub(crate) async fn channel(&self) -> Result<Channel, BoxError> {
        Ok(self.connection.create_channel().await?)
    }

    /// Whether the broker has asked for silence because memory or disk run out. The client sends
    /// nothing then.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(hang_up) = self.hang_up.take() else { return };
        let connection = Arc::clone(&self.connection);
        // Where the runtime is gone, it drops this at once.
        self.runtime.spawn(async move {
            let goodbye = connection.close(200, "goodbye".into());
            let _ = timeout(GOODBYE, goodbye).await;
            drop(hang_up);
        });
    }
}

/// How long a broker may take to say goodbye too.
const GOODBYE: Duration = Duration::from_millis(500);

type Stream = AsyncTcpStream<Compat<tokio::net::TcpStream>>;

async fn connect(uri: &AMQPUri, tls: Option<&RustlsConnector>) -> io::Result<(HangUp, Stream)> {
    let host = uri.authority.host.as_str();
    let stream = tokio::net::TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let hang_up = HangUp(stream.try_clone()?);
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let stream = AsyncTcpStream::Plain(Compat::new(stream));
    let stream = match tls {
        Some(tls) => stream.into_rustls(tls, host).await?,
        None => stream,
    };
    Ok((hang_up, stream))
}

/// Hangs up when dropped.
struct HangUp(TcpStream);

impl Drop for HangUp {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
