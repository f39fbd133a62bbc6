//! What speaks like a sentinel, and says what the test wants.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

pub(crate) struct Oracle {
    port: u16,
    says: Arc<Mutex<Option<(u16, u64)>>>,
}

impl Oracle {
    /// Names the server of loopback at this port for the master, by the agreement with this number.
    pub(crate) fn that_names(port: u16, agreement: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let says = Arc::new(Mutex::new(Some((port, agreement))));
        let heard = Arc::clone(&says);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if heard.lock().unwrap().is_none() {
                    return;
                }
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || answer(client.unwrap(), &heard));
            }
        });
        Self { port: own, says }
    }

    pub(crate) fn name(&self, port: u16, agreement: u64) {
        *self.says.lock().unwrap() = Some((port, agreement));
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        *self.says.lock().unwrap() = None;
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(client: TcpStream, says: &Mutex<Option<(u16, u64)>>) {
    let mut client = BufReader::new(client);
    while let Some(words) = command(&mut client) {
        let Some((port, agreement)) = *says.lock().unwrap() else { return };
        let said = match (&*words[0], words.get(1).map(|word| &**word)) {
            ("SENTINEL", Some("GET-MASTER-ADDR-BY-NAME")) => {
                array(["127.0.0.1", &port.to_string()])
            }
            ("SENTINEL", Some("MASTER")) => array(["config-epoch", &agreement.to_string()]),
            _ => "+OK\r\n".to_owned(),
        };
        if client.get_mut().write_all(said.as_bytes()).is_err() {
            return;
        }
    }
}

fn array(words: [&str; 2]) -> String {
    let words = words.map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*2\r\n{}", words.concat())
}

/// `None` at the end.
fn command(client: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    (0..number(client)?)
        .map(|_| {
            let mut word = vec![0; number(client)? + 2];
            client.read_exact(&mut word).ok()?;
            Some(std::str::from_utf8(&word).ok()?.trim_end().to_owned())
        })
        .collect()
}

/// What stands after the mark of a kind.
fn number(client: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    client.read_line(&mut line).ok()?;
    line.trim_end().get(1..)?.parse().ok()
}
