//! Brokers that die, freeze, and come back with what they stored.

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

/// A client of NATS that says just what it is told.
struct Nats(BufReader<TcpStream>);

impl Nats {
    fn of(server: &NatsServer) -> Self {
        assert_eq!(server.url(), format!("nats://127.0.0.1:{}", server.port()));
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.hear().starts_with("INFO"));
        client.say("CONNECT {\"verbose\":false}\r\nSUB answers 1");
        client
    }

    fn say(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What JetStream says to a request.
    fn ask(&mut self, subject: &str, request: &str) -> String {
        self.say(&format!("PUB {subject} answers {}\r\n{request}", request.len()));
        assert!(self.hear().starts_with("MSG answers"));
        self.hear()
    }
}

#[test]
fn a_nats_server_comes_back_with_its_streams() {
    let mut server = NatsServer::start();
    let mut client = Nats::of(&server);
    let stream = r#"{"name":"S","subjects":["s"],"storage":"file"}"#;
    let made = client.ask("$JS.API.STREAM.CREATE.S", stream);
    assert!(made.contains("\"did_create\":true"), "{made}");
    let stored = client.ask("s", "one");
    assert!(stored.contains("\"seq\":1"), "{stored}");

    server.kill();
    assert!(matches!(client.0.read(&mut [0; 64]), Ok(0) | Err(_)));
    server.restart();
    let state = Nats::of(&server).ask("$JS.API.STREAM.INFO.S", "");
    assert!(state.contains("\"messages\":1"), "{state}");
}

#[test]
fn a_frozen_nats_server_answers_when_it_thaws() {
    let server = NatsServer::start();
    let mut client = Nats::of(&server);
    server.freeze();
    client.say("PING");
    client.0.get_mut().set_read_timeout(Some(ms(100))).unwrap();
    assert_eq!(client.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.thaw();
    client.0.get_mut().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(client.hear(), "PONG");
}

/// One test, since a broker takes seconds to start.
#[test]
fn a_rabbit_obeys_freezes_and_comes_back_with_what_it_stored() {
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
