//! The options of NATS and their checks.

use std::{fmt, path::PathBuf, time::Duration};

use super::credentials::url_credentials;
use crate::{
    adapters::{limits::check_durations, tls::TlsOptions},
    error::BuildError,
    options::option_group,
};

/// The default subject, which is that of the TypeScript package.
pub(crate) const SUBJECT: &str = "cache.invalidations";

option_group! {
    /// Options of [`NatsTransport`](crate::NatsTransport).
    ///
    /// ```
    /// use lazy_layers_cache::{NatsConnection, NatsOptions};
    ///
    /// let servers = ["nats://nats-1:4222", "nats://nats-2:4222"];
    /// let options = NatsOptions::default()
    ///     .connection(NatsConnection::default().servers(servers))
    ///     .subject("shop.invalidations")
    ///     .queue_capacity(50_000)
    ///     .queue_max_bytes(64 << 20);
    /// ```
    ///
    /// The TypeScript package has an option `mode`; here the type of the transport decides: this
    /// one, or `JetStreamTransport`. Its option `connection` is
    /// [`NatsTransport::with_client`](crate::NatsTransport::with_client). Its options `retryQueue`
    /// and `logging` have no counterpart here: the cache retries and reports.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NatsOptions {
        /// The server, and how to authenticate.
        pub connection: NatsConnection = NatsConnection::default(),
        /// The subject of all messages, the same on every instance, without wildcards.
        /// Default: `cache.invalidations`.
        pub subject: String = SUBJECT.to_owned() => [impl Into<String>],
        /// How many messages a subscriber may fall behind before it gets a gap. Default: 10,000.
        pub queue_capacity: usize = 10_000,
        /// How many bytes of messages a subscriber may fall behind before it gets a gap; a larger
        /// message is one. Default: 32 MiB (33,554,432).
        pub queue_max_bytes: usize as "crate::options::byte_size" = QUEUE_MAX_BYTES,
    }
}

impl NatsOptions {
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.connection.check()?;
        check_subject(&self.subject)?;
        BuildError::refuse_if(
            self.queue_capacity == 0,
            "queue_capacity",
            "is 0, so every message would become a gap",
            "write how many messages may wait, for example 10_000",
        )?;
        check_queue_max_bytes(self.queue_max_bytes)
    }
}

/// The default of `queue_max_bytes`, of NATS core and of JetStream.
pub(crate) const QUEUE_MAX_BYTES: usize = 32 << 20;

pub(crate) fn check_queue_max_bytes(bytes: usize) -> Result<(), BuildError> {
    BuildError::refuse_if(
        bytes == 0,
        "queue_max_bytes",
        "is 0, so no message could be received",
        "write how many bytes may wait, for example 33_554_432",
    )
}

option_group! {
    /// How to connect to NATS, and how long the server may take to answer.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{NatsConnection, NatsOptions, NatsTransport, TlsOptions};
    ///
    /// let connection = NatsConnection::default()
    ///     .servers(["nats://nats-1:4222", "nats://nats-2:4222"])
    ///     .name("shop-1")
    ///     .user("shop")
    ///     .password("secret")
    ///     .tls(TlsOptions::default())
    ///     .connect_timeout(Duration::from_secs(2))
    ///     .confirm_timeout(Duration::from_secs(2))
    ///     .heartbeat(Duration::from_secs(1));
    /// let bus = NatsTransport::new(NatsOptions::default().connection(connection))?;
    ///
    /// // In place of user and password:
    /// let token = NatsConnection::default().token("s3cr3t");
    /// let file = NatsConnection::default().credentials_file("/etc/nats/shop.creds");
    /// # Ok::<(), lazy_layers_cache::BuildError>(())
    /// ```
    #[derive(Clone, PartialEq, Eq)]
    pub struct NatsConnection {
        /// URLs that begin with `nats://`, or `tls://` for TLS. The client tries them in random
        /// order. Each may contain the same user and password, `nats://user:password@host:4222`,
        /// or the same token, `nats://token@host:4222`. Default: `nats://localhost:4222`.
        pub servers: Vec<String> = vec!["nats://localhost:4222".to_owned()] => [custom],
        /// The name of this client in the server's listings. Default: `lazy-layers-cache:` and
        /// the name of the cache.
        pub name: Option<String> = None => [Some(impl Into<String>)],
        /// The token to authenticate with. Default: none.
        pub token: Option<String> = None => [Some(impl Into<String>)],
        /// The user to authenticate as; needs `password`. Default: none.
        pub user: Option<String> = None => [Some(impl Into<String>)],
        /// The password of `user`. Default: none.
        pub password: Option<String> = None => [Some(impl Into<String>)],
        /// A `.creds` file (a JWT and its key) to authenticate with. Default: none.
        pub credentials_file: Option<PathBuf> = None => [Some(impl Into<PathBuf>)],
        /// TLS, and the certificates to trust. A `ca_file` or a `client_cert` requires TLS, as
        /// [`required`](TlsOptions#structfield.required) does.
        pub tls: TlsOptions = TlsOptions::default(),
        /// The time limit to connect, and to subscribe, at most 365 days. Default: 3 s.
        pub connect_timeout: Duration as "humantime_serde" = Duration::from_secs(3),
        /// The time limit for the server to confirm a message, at most 365 days. Default: 5 s.
        pub confirm_timeout: Duration as "humantime_serde" = Duration::from_secs(5),
        /// The interval of heartbeats, which are messages to ourselves. A heartbeat that is not
        /// back within one and a half intervals ends the connection, unless at least 1 MiB of
        /// other messages has arrived meanwhile. From 50 ms to 365 days. Default: 1 s.
        pub heartbeat: Duration as "humantime_serde" = Duration::from_secs(1),
    }
}

impl NatsConnection {
    /// Sets [`servers`](Self#structfield.servers).
    ///
    /// ```
    /// use lazy_layers_cache::NatsConnection;
    ///
    /// let connection = NatsConnection::default().servers(["nats://nats-1:4222"]);
    /// assert_eq!(connection.servers, ["nats://nats-1:4222"]);
    /// ```
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = servers.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            self.servers.is_empty(),
            "connection.servers",
            "is empty",
            "write at least one, for example nats://localhost:4222",
        )?;
        for server in &self.servers {
            let parsed = server.parse::<async_nats::ServerAddr>();
            BuildError::refuse_if(
                !parsed.is_ok_and(|address| matches!(address.scheme(), "nats" | "tls")),
                "connection.servers",
                "has an entry that is not an address of NATS",
                "write nats://host:port, or tls://host:port",
            )?;
        }
        let user = self.user.is_some() || self.password.is_some();
        let in_urls = url_credentials(&self.servers)?.is_some();
        let ways = [user, self.token.is_some(), self.credentials_file.is_some(), in_urls];
        BuildError::refuse_if(
            ways.into_iter().filter(|way| *way).count() > 1,
            "connection.token",
            "is set beside another way to authenticate",
            "keep one of user and password, token, credentials_file, and a user in the URLs",
        )?;
        BuildError::refuse_if(
            self.user.is_some() != self.password.is_some(),
            "connection.user",
            "and connection.password go together",
            "set both or neither",
        )?;
        self.tls.check("connection.tls")?;
        check_durations(
            ("connection.connect_timeout", self.connect_timeout),
            ("connection.confirm_timeout", self.confirm_timeout),
            ("connection.heartbeat", self.heartbeat),
        )
    }
}

/// Leaves out the secrets. The URLs may contain some.
impl fmt::Debug for NatsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnection")
            .field("servers", &self.servers.len())
            .field("name", &self.name)
            .field("user", &self.user)
            .field("credentials_file", &self.credentials_file)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

/// Accepts non-empty tokens separated by dots, without wildcards and whitespace.
pub(crate) fn check_subject(subject: &str) -> Result<(), BuildError> {
    let is_plain = |token: &str| {
        !token.is_empty() && !token.contains(|it: char| it.is_whitespace() || "*>".contains(it))
    };
    BuildError::refuse_if(
        !subject.split('.').all(is_plain) || subject.starts_with('$'),
        "subject",
        "is not a subject to publish to",
        "write words separated by dots, without `*`, `>`, whitespace or a leading `$`, \
         for example cache.invalidations",
    )
}
