//! A redis-server for one table: on a free loopback port, without persistence, ended with the
//! table.

#[path = "../../tests/it/support/process.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "a file of the tests")]
pub(crate) mod process;

use std::{process::Command, time::Duration};

use lazy_layers_cache::{RedisOptions, RedisStore};
use redis::{Client, Connection};
use tempfile::TempDir;

use self::process::{Process, free_port, own_dir, wait_for};

pub(crate) struct Server {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        // Another program may take the free port before the server does. Then the next one is
        // tried.
        for _ in 0..10 {
            let (dir, port) = (own_dir(), free_port());
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
            command.args(["--appendonly", "no", "--dir"]).arg(dir.path());
            let process = Process::start(&mut command, "redis-server");
            let mut server = Self { process, port, _dir: dir };
            let answers = wait_for("redis-server", Duration::from_secs(10), || {
                if server.process.exited() {
                    return Some(false);
                }
                let mut connection = server.client().get_connection().ok()?;
                redis::cmd("PING").exec(&mut connection).ok().map(|()| true)
            });
            if answers {
                return server;
            }
        }
        panic!("redis-server started ten times and never answered");
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.url()).expect("a URL")
    }

    pub(crate) fn connect(&self) -> Connection {
        self.client().get_connection().expect("it answers")
    }

    /// A store whose supervisor checks the connection too rarely to be measured.
    pub(crate) fn store(&self) -> RedisStore {
        let mut options = RedisOptions::default();
        options.check_interval = Duration::from_secs(3_600);
        RedisStore::at(self.url()).options(options).build().expect("valid options")
    }

    pub(crate) fn freeze(&self) {
        self.process.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.process.thaw();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}
