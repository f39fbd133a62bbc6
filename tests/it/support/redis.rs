//! A real redis-server of a test's own, on a free loopback port, gone with the test.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) struct RedisServer {
    process: Child,
    port: u16,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        // Between finding a free port and the server's taking it, another may: then try the next.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let process = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| {
                    panic!(
                        "redis-server does not start ({error}): these tests need it; install it \
                         with `apt-get install redis-server`, or run scripts/test"
                    )
                });
            let mut server = Self { process, port };
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server started ten times and never answered");
    }

    pub(crate) fn connect(&self) -> redis::Connection {
        self.try_connect().expect("the server answers")
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        redis::Client::open(("127.0.0.1", self.port))?.get_connection()
    }

    fn answers(&mut self) -> bool {
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_connect().is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
