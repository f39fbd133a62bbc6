//! A redis-server that is killed, frozen, restarted, or requires a password.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use redis::{Client, Commands, ConnectionLike, cmd};

use crate::support::{
    ms,
    redis::{RedisServer, field},
};

#[test]
fn a_killed_server_restarts_on_its_port_with_exactly_its_saved_data() {
    let mut server = RedisServer::start();
    let url = server.url();
    let mut client = server.connect();
    let () = client.set("saved", 1).unwrap();
    server.save();
    let () = client.set("saved", 2).unwrap();
    let () = client.set("lost", 1).unwrap();

    server.kill();
    assert!(cmd("PING").exec(&mut client).is_err());
    let gone = TcpStream::connect(("127.0.0.1", server.port())).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);

    server.restart();
    assert_eq!(server.url(), url);
    let mut client = Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(client.get("saved"), Ok(Some(1)));
    assert_eq!(client.get("lost"), Ok(None::<i32>));
}

#[test]
fn an_orderly_shutdown_saves_first() {
    let mut server = RedisServer::start();
    let () = server.connect().set("k", 1).unwrap();
    server.shutdown_save();
    assert!(server.dir().join("dump.rdb").exists());
    server.restart();
    assert_eq!(server.connect().get("k"), Ok(Some(1)));
}

#[test]
fn a_dropped_server_removes_its_directory() {
    let server = RedisServer::start();
    server.save();
    let dir = server.dir().to_owned();
    assert!(dir.exists());
    drop(server);
    assert!(!dir.exists());
}

#[test]
fn a_frozen_server_accepts_and_does_not_answer_until_it_thaws() {
    let server = RedisServer::start();
    server.freeze();
    let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.set_read_timeout(Some(ms(100))).unwrap();
    client.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    assert_eq!(client.read(&mut answer).unwrap_err().kind(), ErrorKind::WouldBlock);

    server.thaw();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn commands_and_round_trips_are_counted_without_those_of_the_count() {
    let server = RedisServer::start();
    let mut client = server.connect();
    cmd("PING").exec(&mut client).unwrap();
    let (commands, trips) = (server.commands_processed(), server.round_trips());
    assert_eq!((server.commands_processed(), server.round_trips()), (commands, trips));

    server.config_set("maxmemory", "100mb");
    redis::pipe().set("a", 1).get("a").get("b").exec(&mut client).unwrap();
    assert_eq!(server.commands_processed() - commands, 3);
    assert_eq!(server.round_trips() - trips, 1);
    assert_eq!(server.calls("get"), 2);
    assert_eq!(server.calls("del"), 0);
}

#[test]
fn a_server_takes_arguments_and_settings() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.connect();
    let mut setting = |name: &str| -> Vec<String> {
        cmd("CONFIG").arg("GET").arg(name).query(&mut client).unwrap()
    };
    assert_eq!(setting("maxmemory-policy"), ["maxmemory-policy", "allkeys-lru"]);
    server.config_set("maxmemory-policy", "noeviction");
    assert_eq!(setting("maxmemory-policy"), ["maxmemory-policy", "noeviction"]);
}

#[test]
fn a_server_with_a_password_answers_only_to_it() {
    let mut server = RedisServer::start_with_password("open-sesame");
    let plain = format!("redis://127.0.0.1:{}/", server.port());
    let mut stranger = Client::open(plain).unwrap().get_connection().unwrap();
    let refused = cmd("GET").arg("k").exec(&mut stranger).unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"));

    server.restart();
    let mut friend = Client::open(server.url()).unwrap().get_connection().unwrap();
    assert!(friend.check_connection());
}

#[test]
fn a_user_is_limited_by_its_acl_rules() {
    let server = RedisServer::start_with_user("cache", "pass", "~app:* +get +set");
    let plain = format!("redis://127.0.0.1:{}/", server.port());
    let mut stranger = Client::open(plain).unwrap().get_connection().unwrap();
    assert!(cmd("GET").arg("app:k").exec(&mut stranger).is_err());

    let mut user = Client::open(server.url()).unwrap().get_connection().unwrap();
    let () = user.set("app:k", 1).unwrap();
    let refused = cmd("SET").arg("other:k").arg(1).exec(&mut user).unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
}

#[test]
fn a_server_with_tls_is_trusted_only_through_its_authority() {
    let server = RedisServer::start_with_tls();
    assert!(server.url().starts_with("rediss://"));
    let () = server.connect().set("k", "secret").unwrap();
    let port = server.url().rsplit_once(':').unwrap().1.trim_end_matches('/').to_owned();
    let get = |trusted: &std::path::Path| {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert"])
            .arg(trusted)
            .args(["get", "k"])
            .output()
            .expect("redis-cli comes with redis-server");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(get(server.authority()).trim(), "secret");
    let other = RedisServer::start_with_tls();
    assert_eq!(get(other.authority()), "");
}

#[test]
fn fields_are_found_by_their_whole_name() {
    assert_eq!(field("# Stats\r\nkeys_all:1\r\nkeys:2\r\n", "keys"), Some("2"));
}
