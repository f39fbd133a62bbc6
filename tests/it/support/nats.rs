//! A real nats-server of a test's own, with JetStream or without, on a free loopback port.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::process::{Process, free_port, own_dir};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct NatsServer {
    process: Process,
    port: u16,
    dir: TempDir,
    jetstream: bool,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(true)
    }

    pub(crate) fn start_without_jetstream() -> Self {
        Self::start_with(false)
    }

    fn start_with(jetstream: bool) -> Self {
        for _ in 0..10 {
            let (dir, port) = (own_dir(), free_port());
            let process = spawn(port, &dir, jetstream);
            let mut server = Self { process, port, dir, jetstream };
            if server.answers() {
                return server;
            }
        }
        panic!("nats-server started ten times and never answered");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// At once: connections break, streams in files stay.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// The same server again, on the same port, with the streams it had; killed first if it runs.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.port, &self.dir, self.jetstream);
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

    /// It introduces itself, and answers a ping.
    fn greets(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let info = lines.next().transpose()?.unwrap_or_default();
        let pong = lines.next().transpose()?.unwrap_or_default();
        Ok(info.contains("\"jetstream\":true") == self.jetstream && pong == "PONG")
    }
}

fn spawn(port: u16, dir: &TempDir, jetstream: bool) -> Process {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    if jetstream {
        command.args(["-js", "-sd"]).arg(dir.path());
    }
    // Debian keeps it where only root's PATH looks.
    command.env("PATH", super::process::path_with(&["/usr/sbin"]));
    Process::start(&mut command, "nats-server")
}
