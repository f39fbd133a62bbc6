//! The Redis that the processes share: the one at `REDIS_URL`, or else a redis-server that this
//! program starts and ends.

use std::{
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub(super) struct Redis {
    url: String,
    own: Option<Own>,
}

struct Own {
    child: Child,
    _folder: tempfile::TempDir,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Redis {
    pub(super) fn find() -> Result<Self, Box<dyn Error>> {
        match std::env::var("REDIS_URL") {
            Ok(url) => Ok(Self { url, own: None }),
            Err(_) => Self::start(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn description(&self) -> String {
        match self.own {
            Some(_) => format!("started by this program, {}", self.url),
            None => "the server at REDIS_URL".to_owned(),
        }
    }

    fn start() -> Result<Self, Box<dyn Error>> {
        // Another program may take the free port before the server does. Then the next one is
        // tried.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let folder = tempfile::tempdir()?;
            let child = Command::new("redis-server")
                .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| {
                    format!(
                        "redis-server does not start ({error}): set REDIS_URL to one that runs, \
                         or install it (`apt-get install redis-server`, `brew install redis`)"
                    )
                })?;
            let mut own = Own { child, _folder: folder };
            let begun = Instant::now();
            while begun.elapsed() < PATIENCE && own.child.try_wait()?.is_none() {
                if answers(port).unwrap_or(false) {
                    return Ok(Self { url: format!("redis://127.0.0.1:{port}/"), own: Some(own) });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Err("redis-server was started ten times and never answered".into())
    }
}

fn answers(port: u16) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(b"PING\r\n")?;
    let mut answer = [0; 5];
    connection.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG")
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
