//! What can be set about NATS, and what is wrong with it.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{adapters::tls::TlsOptions, error::BuildError};

/// How instances reach each other over NATS core.
///
/// ```
/// use lazy_layers_cache::{NatsConnection, NatsOptions};
///
/// let options = NatsOptions::default()
///     .connection(NatsConnection::default().servers(["nats://nats-1:4222", "nats://nats-2:4222"]))
///     .subject("shop.invalidations");
/// ```
///
/// What the TypeScript package calls `mode` is a choice of type here: this one, or
/// `JetStreamTransport`. Its `connection` is
/// [`NatsTransport::with_client`](crate::NatsTransport::with_client). Its `retryQueue` and
/// `logging` are no business of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct NatsOptions {
    /// How to connect.
    pub connection: NatsConnection,
    /// Where events are published, the same on every instance. No wildcards.
    /// Default: `cache.invalidations`.
    pub subject: String,
    /// How many events a subscriber may fall behind before it is told of a gap instead.
    /// Default: 10,000.
    pub queue_capacity: usize,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            connection: NatsConnection::default(),
            subject: SUBJECT.to_owned(),
            queue_capacity: 10_000,
        }
    }
}

/// The subject that every package of the family publishes to.
pub(crate) const SUBJECT: &str = "cache.invalidations";

impl NatsOptions {
    /// See the field [`connection`](Self::connection).
    #[must_use]
    pub fn connection(mut self, connection: NatsConnection) -> Self {
        self.connection = connection;
        self
    }

    /// See the field [`subject`](Self::subject).
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// See the field [`queue_capacity`](Self::queue_capacity).
    #[must_use]
    pub fn queue_capacity(mut self, events: usize) -> Self {
        self.queue_capacity = events;
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        self.connection.check()?;
        check_subject(&self.subject)?;
        if self.queue_capacity == 0 {
            return Err(BuildError::new(
                "queue_capacity",
                "is 0, so every event would be a gap",
                "write how many events may wait, for example 10_000",
            ));
        }
        Ok(())
    }
}

/// How to connect to NATS, and how long it may take to answer.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct NatsConnection {
    /// One is taken by chance, and another if that does not answer. `nats://`, or `tls://` for
    /// TLS. Default: `nats://localhost:4222`.
    pub servers: Vec<String>,
    /// What the server calls this client in its lists: the instance's id serves well.
    /// Default: none.
    pub name: Option<String>,
    /// A token to authenticate with. Default: none.
    pub token: Option<String>,
    /// A user to authenticate as, with `password`. Default: none.
    pub user: Option<String>,
    /// See `user`. Default: none.
    pub password: Option<String>,
    /// A `.creds` file to authenticate with (a JWT and its key). Default: none.
    pub credentials_file: Option<PathBuf>,
    /// TLS, and whom to trust.
    pub tls: TlsOptions,
    /// How long it may take to connect, and to subscribe. Default: 3 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub connect_timeout: Duration,
    /// How long it may take the server to confirm an event. Default: 5 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub confirm_timeout: Duration,
    /// How often the server is asked whether it is there, with a message to ourselves. Without an
    /// answer for one and a half times as long the connection counts as broken. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub heartbeat: Duration,
}

impl Default for NatsConnection {
    fn default() -> Self {
        Self {
            servers: vec!["nats://localhost:4222".to_owned()],
            name: None,
            token: None,
            user: None,
            password: None,
            credentials_file: None,
            tls: TlsOptions::default(),
            connect_timeout: Duration::from_secs(3),
            confirm_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(1),
        }
    }
}

impl NatsConnection {
    /// See the field [`servers`](Self::servers).
    #[must_use]
    pub fn servers<S: Into<String>>(mut self, servers: impl IntoIterator<Item = S>) -> Self {
        self.servers = servers.into_iter().map(Into::into).collect();
        self
    }

    /// See the field [`name`](Self::name).
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// See the field [`token`](Self::token).
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// See the fields [`user`](Self::user) and [`password`](Self::password).
    #[must_use]
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.user = Some(user.into());
        self.password = Some(password.into());
        self
    }

    /// See the field [`credentials_file`](Self::credentials_file).
    #[must_use]
    pub fn credentials_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.credentials_file = Some(file.into());
        self
    }

    /// See the field [`tls`](Self::tls).
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = tls;
        self
    }

    /// See the field [`connect_timeout`](Self::connect_timeout).
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// See the field [`confirm_timeout`](Self::confirm_timeout).
    #[must_use]
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.confirm_timeout = limit;
        self
    }

    /// See the field [`heartbeat`](Self::heartbeat).
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let refuse = |refused: bool, option, problem: &str, fix| {
            if refused { Err(BuildError::new(option, problem, fix)) } else { Ok(()) }
        };
        refuse(
            self.servers.is_empty(),
            "connection.servers",
            "is empty",
            "write at least one, for example nats://localhost:4222",
        )?;
        for server in &self.servers {
            let parsed = server.parse::<async_nats::ServerAddr>();
            refuse(
                !parsed.is_ok_and(|address| matches!(address.scheme(), "nats" | "tls")),
                "connection.servers",
                "holds what is no address",
                "write nats://host:port, or tls://host:port",
            )?;
        }
        let user = self.user.is_some() || self.password.is_some();
        let ways = [user, self.token.is_some(), self.credentials_file.is_some()];
        refuse(
            ways.into_iter().filter(|way| *way).count() > 1,
            "connection.token",
            "stands beside another way to authenticate",
            "keep one of user and password, token, and credentials_file",
        )?;
        refuse(
            self.user.is_some() != self.password.is_some(),
            "connection.user",
            "and connection.password go together",
            "set both or neither",
        )?;
        self.tls.check("connection.tls")?;
        refuse(
            self.connect_timeout.is_zero(),
            "connection.connect_timeout",
            "is zero, so nothing would ever connect",
            A_DURATION,
        )?;
        refuse(
            self.confirm_timeout.is_zero(),
            "connection.confirm_timeout",
            "is zero, so every publish would fail",
            A_DURATION,
        )?;
        refuse(
            self.heartbeat < Duration::from_millis(50),
            "connection.heartbeat",
            "is less than 50 ms, so a healthy server would count as broken",
            "write how often the server is asked, for example 1 s",
        )
    }
}

/// Without what is secret.
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

const A_DURATION: &str = "write a duration of at least 1 ms";

/// What may be published to: tokens between dots, without wildcards and blanks.
pub(crate) fn check_subject(subject: &str) -> Result<(), BuildError> {
    let plain = |token: &str| {
        !token.is_empty() && !token.contains(|it: char| it.is_whitespace() || "*>".contains(it))
    };
    if subject.split('.').all(plain) && !subject.starts_with('$') {
        return Ok(());
    }
    Err(BuildError::new(
        "subject",
        "is none that can be published to",
        "write words with dots between, without `*`, `>`, blanks or a leading `$`, \
         for example cache.invalidations",
    ))
}
