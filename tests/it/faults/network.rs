//! A network that loses, delays, cuts and breaks, in front of a real redis-server.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use redis::Commands;

use crate::support::{
    ms,
    process::wait_for,
    proxy::{Mode, Proxy},
    redis::RedisServer,
};

const PONG: &[u8] = b"+PONG\r\n";

fn behind_a_proxy() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    (server, proxy)
}

/// A client that says just what it is told, with patience for what does come.
struct Client(TcpStream);

impl Client {
    fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn say(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn hear(&mut self, bytes: usize) -> Vec<u8> {
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = vec![0; bytes];
        self.0.read_exact(&mut answer).unwrap();
        answer
    }

    fn ping(&mut self) {
        self.say("PING");
        assert_eq!(self.hear(PONG.len()), PONG);
    }

    fn hears_nothing(&mut self) {
        self.0.set_read_timeout(Some(ms(60))).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn is_reset(&mut self) {
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_network_that_passes_changes_nothing_and_counts() {
    let (_server, proxy) = behind_a_proxy();
    let (mut one, mut other) = (Client::of(&proxy), Client::of(&proxy));
    one.ping();
    other.ping();
    assert_eq!(proxy.connections(), 2);
    assert_eq!(proxy.requested(), 12);
    assert_eq!(proxy.replied(), 14);

    let value = "v".repeat(1 << 20);
    let mut client =
        redis::Client::open(("127.0.0.1", proxy.port())).unwrap().get_connection().unwrap();
    let () = client.set("k", &value).unwrap();
    assert_eq!(client.get("k"), Ok(value));
}

#[test]
fn a_black_hole_loses_everything_and_tells_nobody() {
    let (server, proxy) = behind_a_proxy();
    let mut standing = Client::of(&proxy);
    standing.ping();
    proxy.set(Mode::Blackhole);
    let mut new = Client::of(&proxy);
    standing.say("SET k 1");
    new.say("SET k 1");
    standing.hears_nothing();
    new.hears_nothing();
    assert_eq!(server.calls("set"), 0);

    proxy.set(Mode::Pass);
    standing.ping();
    new.ping();
    assert_eq!(server.calls("set"), 0, "lost for good");
}

#[test]
fn a_black_hole_hides_a_server_that_dies() {
    let (mut server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::Blackhole);
    server.kill();
    client.hears_nothing();
    Client::of(&proxy).hears_nothing();
    proxy.set(Mode::Pass);
    client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(client.0.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn lost_requests_are_never_seen_and_lost_replies_are_for_deeds_done() {
    let (server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::LoseRequests);
    client.say("INCR lost");
    client.hears_nothing();
    proxy.set(Mode::LoseReplies);
    client.say("INCR done");
    wait_for("the command", Duration::from_secs(10), || (server.calls("incr") == 1).then_some(()));
    client.hears_nothing();
    let mut redis = server.connect();
    let kept: Vec<Option<i32>> =
        redis::cmd("MGET").arg("lost").arg("done").query(&mut redis).unwrap();
    assert_eq!(kept, [None, Some(1)]);
}

#[test]
fn a_pause_loses_nothing() {
    let (server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::Pause);
    client.say("INCR k");
    client.hears_nothing();
    assert_eq!(server.calls("incr"), 0);
    proxy.set(Mode::Pass);
    assert_eq!(client.hear(4), b":1\r\n");
}

#[test]
fn a_delay_is_added_once_a_round_trip() {
    let (_server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::Delay(ms(150)));
    let start = Instant::now();
    client.ping();
    let took = start.elapsed();
    assert!(took >= ms(150), "{took:?}");

    // Replies under way at the same time are late at the same time.
    let start = Instant::now();
    for _ in 0..20 {
        client.say("PING");
    }
    client.hear(20 * PONG.len());
    let took = start.elapsed();
    assert!(took >= ms(150) && took < 20 * ms(150), "{took:?}");
}

#[test]
fn a_throttle_lets_so_many_bytes_through_a_second() {
    let (server, proxy) = behind_a_proxy();
    let () = server.connect().set("k", "v".repeat(2_000)).unwrap();
    let mut client = Client::of(&proxy);
    proxy.set(Mode::Throttle(10_000));
    let start = Instant::now();
    client.say("GET k");
    client.hear(2_009);
    let took = start.elapsed();
    assert!(took >= ms(180), "{took:?}");
}

#[test]
fn a_reply_is_cut_in_its_middle() {
    let (server, proxy) = behind_a_proxy();
    let () = server.connect().set("k", "0123456789").unwrap();
    let mut standing = Client::of(&proxy);
    standing.ping();
    proxy.set(Mode::CutReply(8));
    let mut new = Client::of(&proxy);
    for client in [&mut standing, &mut new] {
        client.say("GET k");
        let mut answer = Vec::new();
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.0.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"$10\r\n012");
    }
}

#[test]
fn a_reset_breaks_what_stands_and_what_is_new() {
    let (_server, proxy) = behind_a_proxy();
    let mut standing = Client::of(&proxy);
    standing.ping();
    proxy.set(Mode::Reset);
    standing.is_reset();
    Client::of(&proxy).is_reset();
    proxy.set(Mode::Pass);
    Client::of(&proxy).ping();
}

#[test]
fn a_network_that_refuses_is_there_again_when_it_passes() {
    let (_server, proxy) = behind_a_proxy();
    let mut standing = Client::of(&proxy);
    standing.ping();
    proxy.set(Mode::Refuse);
    standing.is_reset();
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.set(Mode::Pass);
    Client::of(&proxy).ping();
}

#[test]
fn new_connections_may_fare_otherwise_than_those_that_stand() {
    let (_server, proxy) = behind_a_proxy();
    let mut standing = Client::of(&proxy);
    standing.ping();
    proxy.set_for_new(Mode::Reset);
    Client::of(&proxy).is_reset();
    standing.ping();
    proxy.set_for_new(Mode::Refuse);
    standing.ping();
}

#[tokio::test(start_paused = true)]
async fn the_network_keeps_real_time_beside_a_paused_clock() {
    let (_server, proxy) = behind_a_proxy();
    proxy.set(Mode::Delay(ms(50)));
    let mut client = Client::of(&proxy);
    let start = Instant::now();
    client.ping();
    assert!(start.elapsed() >= ms(50));
}
