//! A fake Redis Sentinel: answers the address and the config epoch that a test sets.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

pub(crate) struct FakeSentinel {
    port: u16,
    /// The master's port and config epoch; `None` ends the server.
    master: Arc<Mutex<Option<(u16, u64)>>>,
}

impl FakeSentinel {
    /// A sentinel that names the server on loopback at `port` as the master.
    pub(crate) fn naming(port: u16, config_epoch: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let master = Arc::new(Mutex::new(Some((port, config_epoch))));
        let named = Arc::clone(&master);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if named.lock().unwrap().is_none() {
                    return;
                }
                let named = Arc::clone(&named);
                std::thread::spawn(move || answer(client.unwrap(), &named));
            }
        });
        Self { port: own, master }
    }

    pub(crate) fn name(&self, port: u16, config_epoch: u64) {
        *self.master.lock().unwrap() = Some((port, config_epoch));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for FakeSentinel {
    fn drop(&mut self) {
        *self.master.lock().unwrap() = None;
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(client: TcpStream, master: &Mutex<Option<(u16, u64)>>) {
    let mut client = BufReader::new(client);
    while let Some(words) = command(&mut client) {
        let Some((port, config_epoch)) = *master.lock().unwrap() else { return };
        let reply = match (&*words[0], words.get(1).map(|word| &**word)) {
            ("SENTINEL", Some("GET-MASTER-ADDR-BY-NAME")) => {
                array(["127.0.0.1", &port.to_string()])
            }
            ("SENTINEL", Some("MASTER")) => array(["config-epoch", &config_epoch.to_string()]),
            _ => "+OK\r\n".to_owned(),
        };
        if client.get_mut().write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

fn array(words: [&str; 2]) -> String {
    let words = words.map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*2\r\n{}", words.concat())
}

/// Reads one command; `None` at the end of the connection.
pub(crate) fn command(client: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    (0..number(client)?)
        .map(|_| {
            let mut word = vec![0; number(client)? + 2];
            client.read_exact(&mut word).ok()?;
            Some(std::str::from_utf8(&word).ok()?.trim_end().to_owned())
        })
        .collect()
}

/// Reads a line and returns the number after its type byte.
fn number(client: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).ok()?;
    line.trim_end().get(1..)?.parse().ok()
}
