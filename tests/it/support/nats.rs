//! A real nats-server of a test's own, on a free loopback port, gone with the test.

use std::{
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::broker::{PATIENCE, Process};

pub(crate) struct NatsServer {
    process: Process,
    port: u16,
    dir: PathBuf,
    jetstream: bool,
}

impl NatsServer {
    /// With JetStream.
    pub(crate) fn start() -> Self {
        Self::start_with(true)
    }

    pub(crate) fn start_without_jetstream() -> Self {
        Self::start_with(false)
    }

    fn start_with(jetstream: bool) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir = std::env::temp_dir().join(format!("llc-nats-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { process: launch(port, &dir, jetstream), port, dir, jetstream }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// With what it had stored.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.port, &self.dir, self.jetstream);
    }

    pub(crate) fn freeze(&self) {
        self.process.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.process.signal("-CONT");
    }
}

fn launch(port: u16, dir: &std::path::Path, jetstream: bool) -> Process {
    let mut command = Command::new("nats-server");
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    if jetstream {
        command.args(["-js", "-sd"]).arg(dir);
    }
    let process = Process::start(&mut command, "nats-server");
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(since.elapsed() < PATIENCE, "nats-server does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    process
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
