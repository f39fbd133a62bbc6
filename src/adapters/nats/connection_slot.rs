//! Where links come from: made when one is needed, and shared until it is over.

use std::sync::Arc;

use async_nats::{Client, ConnectOptions};

use super::{
    connection::{Link, Vitals},
    options::NatsConnection,
};
use crate::{
    adapters::task::{runtime, within},
    error::BoxError,
};

pub(crate) struct Links {
    origin: Origin,
    options: NatsConnection,
    current: tokio::sync::Mutex<Option<Arc<Link>>>,
}

enum Origin {
    /// Ours: a new one for each link, given up at its first sign of weakness.
    Connect,
    /// The user's, shared with others: never closed by us.
    Client(Client),
}

impl Links {
    pub(crate) fn connecting(options: NatsConnection) -> Self {
        Self { origin: Origin::Connect, options, current: tokio::sync::Mutex::default() }
    }

    pub(crate) fn of(client: Client, options: NatsConnection) -> Self {
        Self { origin: Origin::Client(client), options, current: tokio::sync::Mutex::default() }
    }

    /// The link that there is, else a new one, within the time to connect: waiting for another
    /// caller who connects counts.
    pub(crate) async fn get(&self) -> Result<Arc<Link>, BoxError> {
        runtime()?;
        let limit = self.options.connect_timeout;
        within(limit, "connect", async {
            let mut current = self.current.lock().await;
            if let Some(link) = current.as_ref().filter(|link| !link.vitals().is_over()) {
                return Ok(Arc::clone(link));
            }
            *current = None;
            let link = Arc::new(self.open().await?);
            *current = Some(Arc::clone(&link));
            Ok(link)
        })
        .await
    }

    /// Ends the link, and with it what was subscribed by it.
    pub(crate) async fn drop_current(&self) {
        if let Some(link) = self.current.lock().await.take() {
            link.vitals().end();
        }
    }

    async fn open(&self) -> Result<Link, BoxError> {
        let vitals = Vitals::new();
        let client = match &self.origin {
            Origin::Client(client) => client.clone(),
            Origin::Connect => self.connect(&vitals).await?,
        };
        Link::over(client, vitals, self.options.heartbeat).await
    }

    async fn connect(&self, vitals: &Vitals) -> Result<Client, BoxError> {
        let options = &self.options;
        let signs = vitals.clone();
        let mut connect = ConnectOptions::new()
            .tls_client_config(options.tls.config().await?)
            .require_tls(options.tls.required)
            .connection_timeout(options.connect_timeout)
            .ping_interval(options.heartbeat)
            // One round of all servers to begin with. After that it ends with the first break:
            // a round that it may still try then is of no use to anybody, and cannot be refused.
            .max_reconnects(options.servers.len())
            .ignore_discovered_servers()
            .event_callback(move |event| {
                signs.notice(&event);
                async {}
            });
        if let Some(name) = &options.name {
            connect = connect.name(name);
        }
        if let Some(token) = &options.token {
            connect = connect.token(token.clone());
        }
        if let (Some(user), Some(password)) = (&options.user, &options.password) {
            connect = connect.user_and_password(user.clone(), password.clone());
        }
        if let Some(file) = &options.credentials_file {
            connect = connect.credentials_file(file).await?;
        }
        Ok(connect.connect(options.servers.clone()).await?)
    }
}
