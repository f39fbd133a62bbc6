//! Connects to NATS when a call needs a connection, and shares it until it has ended.

use std::sync::Arc;

use async_nats::{Client, ConnectOptions};

use super::{
    connection::Connection,
    credentials::{Credentials, url_credentials, without_credentials},
    liveness::Liveness,
    options::NatsConnection,
};
use crate::{
    adapters::{client_name::ClientName, connection_slot::ConnectionSlot, task::timeout_named},
    bus::transport::{MessageRefused, TransportFuture},
    error::BoxError,
};

/// How many messages of each subscription the client queues, which is its own default. It drops the
/// messages beyond without a word to the subscription.
pub(crate) const CLIENT_QUEUE: usize = 65_536;

pub(crate) struct Connector {
    /// The user's client, which is never closed here. `None`: each connection has its own client.
    client: Option<Client>,
    options: NatsConnection,
    pub(crate) client_name: ClientName,
    slot: ConnectionSlot<Connection>,
}

impl Connector {
    pub(crate) fn new(client: Option<Client>, options: NatsConnection) -> Self {
        Self { client, options, client_name: ClientName::default(), slot: ConnectionSlot::new() }
    }

    /// Returns the current connection, or connects, within `connect_timeout`.
    pub(crate) async fn get(&self) -> Result<Arc<Connection>, BoxError> {
        let is_usable = |connection: &Connection| !connection.liveness.has_ended();
        self.slot.get_or_connect(self.options.connect_timeout, is_usable, || self.open()).await
    }

    /// Runs a call on the current connection, within `confirm_timeout`.
    pub(crate) async fn call<F, T>(
        &self,
        act: &str,
        call: impl FnOnce(Arc<Connection>) -> F,
    ) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let connection = self.get().await?;
        let denials = connection.liveness.denials.clone();
        let after = denials.count();
        let result = timeout_named(self.options.confirm_timeout, act, call(connection)).await;
        result.map_err(|error| match denials.find(after, |_| true) {
            // The client's own requests only wait for an answer that never comes.
            Some(denial) if !error.is::<MessageRefused>() => denial.into(),
            _ => error,
        })
    }

    /// Ends the current connection, and its subscriptions with it.
    pub(crate) fn disconnect(&self) -> TransportFuture<'_, ()> {
        Box::pin(async move {
            if let Some(connection) = self.slot.take_if(|_| true).await {
                connection.liveness.end();
            }
            Ok(())
        })
    }

    async fn open(&self) -> Result<Connection, BoxError> {
        let liveness = Liveness::default();
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.connect(&liveness).await?,
        };
        Connection::open(client, liveness, self.options.heartbeat).await
    }

    async fn connect(&self, liveness: &Liveness) -> Result<Client, BoxError> {
        let options = &self.options;
        let liveness = liveness.clone();
        let mut connect = ConnectOptions::new()
            .tls_client_config(options.tls.config().await?)
            .require_tls(options.tls.is_required())
            .connection_timeout(options.connect_timeout)
            .ping_interval(options.heartbeat)
            .subscription_capacity(CLIENT_QUEUE)
            // One attempt per server. After a disconnect the client may try as often again, and no
            // option prevents that; the result is not used, since our connection has ended.
            .max_reconnects(options.servers.len())
            .ignore_discovered_servers()
            .event_callback(move |event| {
                liveness.on_event(&event);
                async {}
            });
        let name = options.name.clone().unwrap_or_else(|| self.client_name.to_string());
        connect = connect.name(name);
        if let Some(token) = &options.token {
            connect = connect.token(token.clone());
        }
        if let (Some(user), Some(password)) = (&options.user, &options.password) {
            connect = connect.user_and_password(user.clone(), password.clone());
        }
        match url_credentials(&options.servers)? {
            Some(Credentials::Password { user, password }) => {
                connect = connect.user_and_password(user, password);
            }
            Some(Credentials::Token(token)) => connect = connect.token(token),
            None => {}
        }
        if let Some(file) = &options.credentials_file {
            connect = connect.credentials_file(file).await?;
        }
        let servers: Vec<String> =
            options.servers.iter().map(|url| without_credentials(url)).collect();
        Ok(connect.connect(servers).await?)
    }
}
