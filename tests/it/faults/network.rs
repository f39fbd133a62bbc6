//! The proxy, in each of its modes, in front of a real redis-server.

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

/// A client that sends exactly the given commands, and waits up to 10 s for an answer.
struct Client(TcpStream);

impl Client {
    fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    fn send(&mut self, command: &str) {
        self.0.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    fn receive(&mut self, bytes: usize) -> Vec<u8> {
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = vec![0; bytes];
        self.0.read_exact(&mut answer).unwrap();
        answer
    }

    fn ping(&mut self) {
        self.send("PING");
        assert_eq!(self.receive(PONG.len()), PONG);
    }

    fn receives_nothing(&mut self) {
        self.0.set_read_timeout(Some(ms(60))).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    fn is_reset(&mut self) {
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(self.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_passing_proxy_changes_nothing_and_counts_bytes() {
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
fn a_black_hole_silently_loses_everything() {
    let (server, proxy) = behind_a_proxy();
    let mut existing = Client::of(&proxy);
    existing.ping();
    proxy.set(Mode::Blackhole);
    let mut new = Client::of(&proxy);
    existing.send("SET k 1");
    new.send("SET k 1");
    existing.receives_nothing();
    new.receives_nothing();
    assert_eq!(server.calls("set"), 0);

    proxy.set(Mode::Pass);
    existing.ping();
    new.ping();
    assert_eq!(server.calls("set"), 0, "the commands stay lost");
}

#[test]
fn a_black_hole_hides_a_server_that_dies() {
    let (mut server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::Blackhole);
    server.kill();
    client.receives_nothing();
    Client::of(&proxy).receives_nothing();
    proxy.set(Mode::Pass);
    client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(client.0.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn lost_requests_never_arrive_and_lost_replies_belong_to_executed_requests() {
    let (server, proxy) = behind_a_proxy();
    let mut client = Client::of(&proxy);
    client.ping();
    proxy.set(Mode::LoseRequests);
    client.send("INCR lost");
    client.receives_nothing();
    proxy.set(Mode::LoseReplies);
    client.send("INCR done");
    wait_for("the command", Duration::from_secs(10), || (server.calls("incr") == 1).then_some(()));
    client.receives_nothing();
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
    client.send("INCR k");
    client.receives_nothing();
    assert_eq!(server.calls("incr"), 0);
    proxy.set(Mode::Pass);
    assert_eq!(client.receive(4), b":1\r\n");
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

    // Concurrent replies are delayed concurrently.
    let start = Instant::now();
    for _ in 0..20 {
        client.send("PING");
    }
    client.receive(20 * PONG.len());
    let took = start.elapsed();
    assert!(took >= ms(150) && took < 20 * ms(150), "{took:?}");
}

#[test]
fn a_throttle_limits_bytes_per_second() {
    let (server, proxy) = behind_a_proxy();
    let () = server.connect().set("k", "v".repeat(2_000)).unwrap();
    let mut client = Client::of(&proxy);
    proxy.set(Mode::Throttle(10_000));
    let start = Instant::now();
    client.send("GET k");
    client.receive(2_009);
    let took = start.elapsed();
    assert!(took >= ms(180), "{took:?}");
}

#[test]
fn a_reply_is_cut_in_its_middle() {
    let (server, proxy) = behind_a_proxy();
    let () = server.connect().set("k", "0123456789").unwrap();
    let mut existing = Client::of(&proxy);
    existing.ping();
    proxy.set(Mode::CutReply(8));
    let mut new = Client::of(&proxy);
    for client in [&mut existing, &mut new] {
        client.send("GET k");
        let mut answer = Vec::new();
        client.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.0.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"$10\r\n012");
    }
}

#[test]
fn a_reset_breaks_existing_and_new_connections() {
    let (_server, proxy) = behind_a_proxy();
    let mut existing = Client::of(&proxy);
    existing.ping();
    proxy.set(Mode::Reset);
    existing.is_reset();
    Client::of(&proxy).is_reset();
    proxy.set(Mode::Pass);
    Client::of(&proxy).ping();
}

#[test]
fn a_refusing_proxy_accepts_again_when_it_passes() {
    let (_server, proxy) = behind_a_proxy();
    let mut existing = Client::of(&proxy);
    existing.ping();
    proxy.set(Mode::Refuse);
    existing.is_reset();
    let refused = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    proxy.set(Mode::Pass);
    Client::of(&proxy).ping();
}

#[test]
fn new_connections_can_have_another_mode_than_existing_ones() {
    let (_server, proxy) = behind_a_proxy();
    let mut existing = Client::of(&proxy);
    existing.ping();
    proxy.set_for_new(Mode::Reset);
    Client::of(&proxy).is_reset();
    existing.ping();
    proxy.set_for_new(Mode::Refuse);
    existing.ping();
}

#[tokio::test(start_paused = true)]
async fn the_proxy_runs_on_real_time_beside_a_paused_clock() {
    let (_server, proxy) = behind_a_proxy();
    proxy.set(Mode::Delay(ms(50)));
    let mut client = Client::of(&proxy);
    let start = Instant::now();
    client.ping();
    assert!(start.elapsed() >= ms(50));
}
