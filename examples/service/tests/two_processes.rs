//! Two processes of the service over one SQLite file and a real Redis, which the test starts.

#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "so a test fails")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Service {
    process: Process,
    address: String,
    log: BufReader<ChildStdout>,
}

impl Service {
    fn start(folder: &Path, redis: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_service"))
            .env("SERVICE__LISTEN", "127.0.0.1:0")
            .env("SERVICE__DATABASE", folder.join("service.sqlite"))
            .env("REDIS_URL", redis)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        let process = Process(child);
        let mut line = String::new();
        while !line.contains("the service is ready") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the service ended at its start");
        }
        let address = line.split_once("address=").unwrap().1.trim().to_owned();
        Self { process, address, log }
    }

    /// Returns the status and the body.
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: service\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").expect("a response");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> String {
        self.send("GET", path, "").1
    }

    /// Asks the process to end, as a supervisor does, and returns the rest of its log.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM).unwrap();
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        assert!(self.process.0.wait().unwrap().success(), "{log}");
        log
    }
}

/// Starts a Redis on a free port, and returns its URL.
fn redis(folder: &Path) -> (Process, String) {
    for _ in 0..10 {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server does not start ({error}): install it"));
        let mut process = Process(child);
        // Another program may take the port before the server does: then the next one is tried.
        while process.0.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (process, format!("redis://127.0.0.1:{port}/"));
            }
            sleep(Duration::from_millis(5));
        }
    }
    panic!("redis-server was started ten times and ended each time");
}

#[test]
fn a_change_in_one_process_reaches_the_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let (_redis, url) = redis(folder.path());
    let (one, two) = (Service::start(folder.path(), &url), Service::start(folder.path(), &url));

    assert!(one.get("/products/3").contains("25.0"));
    assert!(two.get("/products/3").contains("25.0"));
    let loads = "lazy_layers_cache_loads_total{cache=\"products\"}";
    assert!(two.get("/metrics").contains(&format!("{loads} 0")), "the value came from one");

    let changed = r#"{"name":"Kettle","category":"kitchen","price":26.0}"#;
    assert_eq!(one.send("PUT", "/products/3", changed).0, 204);
    assert!(one.get("/products/3").contains("26.0"));
    let begun = Instant::now();
    while !two.get("/products/3").contains("26.0") {
        assert!(begun.elapsed() < PATIENCE, "the other process serves the old price");
    }
    assert!(two.get("/health/ready").contains("\"transport\":\"redis\""));

    for service in [one, two] {
        assert!(service.end().contains("the service has ended"));
    }
}
