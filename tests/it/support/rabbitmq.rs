//! Starts a real RabbitMQ for one test, on free loopback ports. It takes seconds to start, so tests
//! that do not break it share one.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    certificate::Certificate,
    process::{Process, free_port, own_dir, path_with},
};

/// A slow and busy machine needs half a minute.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct RabbitServer {
    process: Process,
    /// Erlang's name server (epmd). A node would start one on a fixed port, and leave it running.
    _names: Process,
    ports: Ports,
    dir: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    names: u16,
}

impl RabbitServer {
    /// The broker of the tests that do not break it. It runs as long as any of them.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<RabbitServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Starts a broker without plugins and waits until it speaks AMQP.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// Starts a broker that refuses larger messages than this many bytes.
    pub(crate) fn start_with_max_message_size(bytes: usize) -> Self {
        Self::start_with(|_| format!("max_message_size = {bytes}\n"))
    }

    /// Starts a broker that also listens with TLS. Returns that port, and the file of the authority
    /// that signed its certificate.
    pub(crate) fn start_with_tls() -> (Self, u16, PathBuf) {
        let port = free_port();
        let server = Self::start_with(|dir| {
            let files = Certificate::written_to(dir);
            format!(
                "listeners.ssl.1 = 127.0.0.1:{port}\n\
                 ssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
                files.authority.display(),
                files.certificate.display(),
                files.key.display(),
            )
        });
        let authority = server.dir.path().join("authority.pem");
        (server, port, authority)
    }

    fn start_with(more: impl Fn(&Path) -> String) -> Self {
        for _ in 0..3 {
            let dir = own_dir();
            let ports = Ports { amqp: free_port(), distribution: free_port(), names: free_port() };
            std::fs::write(dir.path().join("plugins"), "[].\n").unwrap();
            let config = format!("log.console = false\n{}", more(dir.path()));
            std::fs::write(dir.path().join("rabbit.conf"), config).unwrap();
            let mut names = Command::new("epmd");
            names.args(["-port", &ports.names.to_string(), "-address", "127.0.0.1"]);
            let names = Process::start(&mut names, "rabbitmq-server");
            let process = spawn(ports, &dir);
            let mut server = Self { process, _names: names, ports, dir };
            if server.answers() {
                return server;
            }
        }
        panic!("rabbitmq-server started three times and never answered");
    }

    pub(crate) fn port(&self) -> u16 {
        self.ports.amqp
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// Kills the broker: connections break, durable queues remain.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the broker if it runs, and starts it on the same port with its durable queues.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.process = spawn(self.ports, &self.dir);
        assert!(self.answers(), "rabbitmq-server does not come back on port {}", self.port());
    }

    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    /// Runs `rabbitmqctl` and returns its output, for example of `["list_queues", "name"]`: one row
    /// per line, without a header.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = configured("rabbitmqctl", self.ports, &self.dir)
            .arg("--silent")
            .args(arguments)
            .output()
            .unwrap();
        let (output, errors) =
            (String::from_utf8(stdout).unwrap(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "rabbitmqctl {arguments:?}: {output}{errors}");
        output
    }

    fn answers(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.process.exited() {
                return false;
            }
            if greets(self.ports.amqp).unwrap_or(false) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// Whether a broker answers the AMQP header with a frame of the type "method".
pub(crate) fn greets(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    Ok(kind == [1])
}

fn spawn(ports: Ports, dir: &TempDir) -> Process {
    let mut command = configured("rabbitmq-server", ports, dir);
    // The script then replaces itself by the broker, instead of supervising it.
    command.env("RUNNING_UNDER_SYSTEMD", "true");
    // One scheduler of each kind, without busy waiting, because the tests share few cores.
    command.env(
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
        "+S 1:1 +SDcpu 1:1 +SDio 1 +sbwt none +sbwtdcpu none +sbwtdio none",
    );
    // Each feature that a new broker enables costs it a third of a second.
    command.env("RABBITMQ_FEATURE_FLAGS", "quorum_queue");
    Process::start(&mut command, "rabbitmq-server")
}

/// A program of RabbitMQ with the ports and directories of this broker.
fn configured(program: &str, ports: Ports, dir: &TempDir) -> Command {
    let mut command = Command::new(program);
    // Debian's wrappers in /usr/sbin change the user and lose the environment.
    command.env("PATH", path_with(&["/usr/lib/rabbitmq/bin"]));
    for (name, value) in [
        ("RABBITMQ_NODENAME", format!("rabbit-{}@localhost", ports.amqp)),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", ports.amqp.to_string()),
        ("RABBITMQ_DIST_PORT", ports.distribution.to_string()),
        ("ERL_EPMD_PORT", ports.names.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
    ] {
        command.env(name, value);
    }
    for (name, file) in [
        // Contains the cookie that authenticates rabbitmqctl.
        ("HOME", ""),
        ("RABBITMQ_MNESIA_BASE", "store"),
        ("RABBITMQ_LOG_BASE", "log"),
        ("RABBITMQ_SCHEMA_DIR", "schema"),
        ("RABBITMQ_GENERATED_CONFIG_DIR", "config"),
        ("RABBITMQ_CONFIG_FILE", "rabbit"),
        ("RABBITMQ_CONF_ENV_FILE", "none"),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
    ] {
        command.env(name, dir.path().join(file));
    }
    command.env_remove("NOTIFY_SOCKET").current_dir(dir.path());
    command
}
