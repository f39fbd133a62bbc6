//! Real brokers that are killed, frozen, and restarted with their stored data.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::support::{
    ms,
    nats::NatsServer,
    rabbitmq::{RabbitServer, greets},
};

/// A client of NATS that sends exactly the given lines.
struct Nats(BufReader<TcpStream>);

impl Nats {
    fn of(server: &NatsServer) -> Self {
        assert_eq!(server.url(), format!("nats://127.0.0.1:{}", server.port()));
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.receive().starts_with("INFO"));
        client.send("CONNECT {\"verbose\":false}\r\nSUB answers 1");
        client
    }

    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Returns JetStream's reply to a request.
    fn request(&mut self, subject: &str, request: &str) -> String {
        self.send(&format!("PUB {subject} answers {}\r\n{request}", request.len()));
        assert!(self.receive().starts_with("MSG answers"));
        self.receive()
    }
}

#[test]
fn a_nats_server_comes_back_with_its_streams() {
    let mut server = NatsServer::start();
    let mut client = Nats::of(&server);
    let stream = r#"{"name":"S","subjects":["s"],"storage":"file"}"#;
    let made = client.request("$JS.API.STREAM.CREATE.S", stream);
    assert!(made.contains("\"did_create\":true"), "{made}");
    let stored = client.request("s", "one");
    assert!(stored.contains("\"seq\":1"), "{stored}");

    server.kill();
    assert!(matches!(client.0.read(&mut [0; 64]), Ok(0) | Err(_)));
    server.restart();
    let state = Nats::of(&server).request("$JS.API.STREAM.INFO.S", "");
    assert!(state.contains("\"messages\":1"), "{state}");
}

#[test]
fn a_frozen_nats_server_answers_when_it_thaws() {
    let server = NatsServer::start();
    let mut client = Nats::of(&server);
    server.freeze();
    client.send("PING");
    client.0.get_mut().set_read_timeout(Some(ms(100))).unwrap();
    assert_eq!(client.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.thaw();
    client.0.get_mut().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(client.receive(), "PONG");
}

/// One test, because a broker takes seconds to start.
#[test]
fn rabbitmq_freezes_and_restarts_with_its_stored_data() {
    let mut server = RabbitServer::start();
    assert!(server.url().contains(&format!(":{}/", server.port())));
    assert_eq!(server.ctl(&["list_vhosts"]).trim(), "/");
    server.ctl(&["set_vm_memory_high_watermark", "0.3"]);
    server.ctl(&["add_vhost", "kept"]);

    server.freeze();
    assert_eq!(greets(server.port()).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.thaw();
    assert!(greets(server.port()).unwrap());

    server.kill();
    assert_eq!(greets(server.port()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.restart();
    assert!(server.ctl(&["list_vhosts"]).contains("kept"));
}
