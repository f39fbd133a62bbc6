//! Starts a real nats-server for one test, with or without JetStream, on a free loopback port.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    certificate::Certificate,
    process::{Process, free_port, own_dir},
};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct NatsServer {
    process: Process,
    port: u16,
    dir: TempDir,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    JetStream,
    Tls,
    /// JetStream, and what a file says.
    Configured,
    /// What a file says, without JetStream.
    Clustered,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(Kind::JetStream)
    }

    pub(crate) fn start_without_jetstream() -> Self {
        Self::start_with(Kind::Plain)
    }

    /// With JetStream; requires TLS.
    pub(crate) fn start_with_tls() -> Self {
        Self::start_with(Kind::Tls)
    }

    /// With JetStream and this configuration.
    pub(crate) fn configured(config: &str) -> Self {
        Self::start_in(Kind::Configured, Some(config))
    }

    /// A server of a cluster, without JetStream.
    pub(crate) fn clustered(config: &str) -> Self {
        Self::start_in(Kind::Clustered, Some(config))
    }

    fn start_with(kind: Kind) -> Self {
        Self::start_in(kind, None)
    }

    fn start_in(kind: Kind, config: Option<&str>) -> Self {
        for _ in 0..10 {
            let (dir, port) = (own_dir(), free_port());
            if let Some(config) = config {
                write_config(&dir, kind, config);
            }
            let process = spawn(port, &dir, kind);
            let mut server = Self { process, port, dir, kind };
            if server.answers() {
                return server;
            }
        }
        panic!("nats-server started ten times and never answered");
    }

    /// Replaces the configuration of a configured server, which adopts it a little later.
    pub(crate) fn reconfigure(&self, config: &str) {
        write_config(&self.dir, self.kind, config);
        self.process.hang_up();
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The URL with a user, whose password is `pw`.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("nats://{user}:pw@127.0.0.1:{}", self.port)
    }

    /// The PEM file with the authority that clients of a server with TLS must trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Kills the server: connections break, streams in files remain.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the server if it runs, and starts it on the same port with the same streams.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.dir, self.kind);
        assert!(self.answers(), "nats-server does not come back on port {}", self.port);
    }

    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.process.exited() {
                return false;
            }
            if self.greets().unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Whether the server sends its `INFO` and answers a ping.
    fn greets(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let info = lines.next().transpose()?.unwrap_or_default();
        if matches!(self.kind, Kind::Configured | Kind::Clustered) {
            return Ok(info.contains("\"jetstream\":true") == (self.kind == Kind::Configured));
        }
        if self.kind == Kind::Tls {
            return Ok(info.contains("\"tls_required\":true"));
        }
        let pong = lines.next().transpose()?.unwrap_or_default();
        Ok(info.contains("\"jetstream\":true") == (self.kind == Kind::JetStream) && pong == "PONG")
    }
}

/// With the directory of the streams, which a server without it in its file forgets when it reads
/// the file again.
fn write_config(dir: &TempDir, kind: Kind, config: &str) {
    let dir = dir.path();
    let jetstream = match kind {
        Kind::Configured => format!("jetstream {{ store_dir: \"{}\" }}\n", dir.display()),
        _ => String::new(),
    };
    let config = format!("{jetstream}{config}");
    std::fs::write(dir.join("server.conf"), config).expect("a directory of our own");
}

fn spawn(port: u16, dir: &TempDir, kind: Kind) -> Process {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    if matches!(kind, Kind::JetStream | Kind::Tls) {
        command.args(["-js", "-sd"]).arg(dir.path());
    }
    if matches!(kind, Kind::Configured | Kind::Clustered) {
        command.arg("-c").arg(dir.path().join("server.conf"));
    }
    if kind == Kind::Tls {
        let files = Certificate::written_to(dir.path());
        command.arg("--tlscert").arg(files.certificate).arg("--tlskey").arg(files.key).arg("--tls");
    }
    // Debian installs it in a directory that is only in root's PATH.
    command.env("PATH", super::process::path_with(&["/usr/sbin"]));
    Process::start(&mut command, "nats-server")
}
