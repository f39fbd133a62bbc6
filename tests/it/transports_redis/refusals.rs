//! Messages that the server would refuse again, and errors that only look alike.

use lazy_layers_cache::{BoxError, MessageRefused, RedisTransport, Transport};
use redis::{Connection, cmd};

use super::{builder, through, transport};
use crate::support::{
    ms,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    transports::{expected, publish, retry, take},
};

const LARGE: usize = 4 << 20;

/// Returns the text of a refusal.
fn refusal(error: BoxError) -> String {
    error.downcast::<MessageRefused>().expect("a refusal").to_string()
}

#[tokio::test]
async fn a_channel_that_a_rule_forbids_refuses_every_message() {
    let rules = "resetchannels &cache:invalidations &cache:invalidations:* -@all +publish \
                 +subscribe";
    let server = RedisServer::start_with_user("app", "secret", rules);
    let other = builder(&server).channel("other").build().unwrap();
    for error in [other.publish(b"m").await.unwrap_err(), other.announce(b"b").await.unwrap_err()] {
        let text = refusal(error);
        assert!(text.contains("ACL SETUSER <user> &other &other:* +publish"), "{text}");
    }
    let allowed = transport(&server);
    allowed.publish(b"m").await.unwrap();
    let mut rule = cmd("ACL");
    rule.arg("SETUSER").arg("app").arg("-publish").exec(&mut server.connect()).unwrap();
    refusal(allowed.publish(b"m").await.unwrap_err());
    let mut rule = cmd("ACL");
    rule.arg("SETUSER").arg("app").arg("+publish").exec(&mut server.connect()).unwrap();
    allowed.publish(b"m").await.unwrap();
    // Over a connection of the application.
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let external =
        RedisTransport::over(client).publish_over(connection).channel("other").build().unwrap();
    refusal(external.publish(b"m").await.unwrap_err());
}

#[tokio::test]
async fn a_server_without_the_command_refuses_every_message() {
    let server = RedisServer::start_with(&["--rename-command", "PUBLISH", ""]);
    let text = refusal(transport(&server).publish(b"m").await.unwrap_err());
    assert!(text.contains("unknown command"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_length_of_an_argument_is_refused_each_time() {
    let server = RedisServer::start_with(&["--proto-max-bulk-len", "1mb"]);
    let proxy = Proxy::to(server.port());
    proxy.set(Mode::Delay(ms(2)));
    for transport in [transport(&server), through(&proxy)] {
        transport.publish(b"m").await.unwrap();
        let mut messages = transport.subscribe().await.unwrap().messages;
        for turn in 0..20 {
            let large = vec![b'x'; (1 << 20) + 1 + turn * 100_000];
            let text = refusal(transport.publish(&large).await.unwrap_err());
            assert!(text.contains("proto-max-bulk-len"), "{text}");
            publish(&transport, turn..turn + 1).await;
        }
        assert_eq!(take(&mut *messages, 20).await, expected(0..20));
        transport.publish(&vec![b'x'; 1 << 20]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_which_the_server_closes_the_connection_is_refused_the_second_time() {
    let limits: [fn(&mut Connection); 2] = [
        |redis| set(redis, "client-query-buffer-limit", "1mb"),
        |redis| set(redis, "maxmemory-clients", "2mb"),
    ];
    for limit in limits {
        let server = RedisServer::start_with_user("app", "secret", "~* &* +@all -config");
        limit(&mut server.connect());
        let transport = transport(&server);
        transport.publish(b"m").await.unwrap();
        let large = vec![b'x'; LARGE];
        let first = transport.publish(&large).await.unwrap_err();
        assert!(!first.is::<MessageRefused>(), "{first}");
        for _ in 0..3 {
            let text = refusal(transport.publish(&large).await.unwrap_err());
            assert!(text.contains("client-query-buffer-limit"), "{text}");
            transport.publish(b"m").await.unwrap();
        }
        set(&mut server.connect(), "client-query-buffer-limit", "1gb");
        set(&mut server.connect(), "maxmemory-clients", "0");
        transport.publish(&large).await.unwrap();
    }
}

fn set(redis: &mut Connection, option: &str, value: &str) {
    cmd("CONFIG").arg("SET").arg(option).arg(value).exec(redis).unwrap();
}

#[tokio::test]
async fn a_message_above_a_limit_that_the_user_may_read_is_refused_at_once() {
    let server = RedisServer::start_with(&["--client-query-buffer-limit", "1mb"]);
    let transport = transport(&server);
    for _ in 0..3 {
        let text = refusal(transport.publish(&vec![b'x'; LARGE]).await.unwrap_err());
        assert!(text.contains("CONFIG SET client-query-buffer-limit"), "{text}");
        transport.publish(b"m").await.unwrap();
    }
}

/// Servers that die, and networks that break, refuse nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_refuses_no_message() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let large = vec![b'x'; LARGE];
    for _ in 0..3 {
        transport.publish(&large).await.unwrap();
        server.kill();
        for _ in 0..3 {
            let error = transport.publish(&large).await.unwrap_err();
            assert!(!error.is::<MessageRefused>(), "{error}");
        }
        server.restart();
    }
    server.freeze();
    for _ in 0..2 {
        let error = transport.publish(&large).await.unwrap_err();
        assert!(!error.is::<MessageRefused>(), "{error}");
    }
    server.thaw();
    retry(async || transport.publish(&large).await).await;
}
