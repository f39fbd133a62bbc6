//! Servers and networks that fail, and subscribers that are too slow.

use std::time::{Duration, Instant};

use lazy_layers_cache::{Delivery, RedisTransport, Transport};
use redis::cmd;

use super::{CHANNEL, builder, kill_subscribers, subscribers, through, transport};
use crate::support::{
    ms,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    transports::{TRUST, assert_no_task_is_left, expected, loss, next, publish, retry, take},
};

#[tokio::test]
async fn a_subscription_that_the_server_kills_ends() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    assert_eq!(kill_subscribers(&mut server.connect()), 1);
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < ms(500), "{took:?}: earlier than by the heartbeat");
    assert_eq!(next(&mut *events).await, Delivery::Closed, "the end of a subscription is final");
    transport.publish(b"lost").await.unwrap();
    assert_eq!(
        subscribers(&mut server.connect()),
        0,
        "the transport did not subscribe again on its own"
    );
    let subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    let mut events = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_publish_that_fails_is_the_last_on_its_connection() {
    let server = RedisServer::start();
    let transport = transport(&server);
    transport.publish(b"event").await.unwrap();
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    assert_eq!(
        kill.query::<u64>(&mut server.connect()).unwrap(),
        2,
        "the connections of the transport and of the test"
    );
    transport.publish(b"event").await.unwrap_err();
    transport.publish(b"event").await.unwrap();
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_and_a_new_one_works_after_its_restart() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    transport.publish(b"lost").await.unwrap_err();
    transport.subscribe().await.err().unwrap();
    transport.ping().await.unwrap_err();

    server.restart();
    let subscribed = retry(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    let mut events = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_quick_restart_of_the_server_also_ends_the_subscription() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.restart();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut events = retry(async || transport.subscribe().await).await.messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
}

#[tokio::test]
async fn a_frozen_server_ends_the_subscription_and_fails_a_publish_in_time() {
    let server = RedisServer::start();
    let transport = transport(&server);
    transport.publish(b"before").await.unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    server.freeze();
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
    // Now over a new connection, which the kernel accepts.
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(3_500), "{:?}", since.elapsed());
    transport.subscribe().await.err().unwrap();
    server.thaw();
    let mut events = retry(async || transport.subscribe().await).await.messages;
    transport.publish(b"again").await.unwrap();
    while next(&mut *events).await != Delivery::Message(b"again".to_vec()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_drops_everything_is_noticed_in_time() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = through(&proxy);
    for mode in [Mode::Blackhole, Mode::LoseReplies, Mode::LoseRequests, Mode::Pause] {
        proxy.set(Mode::Pass);
        let mut events = retry(async || transport.subscribe().await).await.messages;
        retry(async || transport.publish(b"before").await).await;
        assert_eq!(next(&mut *events).await, Delivery::Message(b"before".to_vec()));
        proxy.set(mode);
        let (told, took) = loss(&mut *events).await;
        assert_eq!(told, Delivery::Closed, "{mode:?}");
        assert!(took < TRUST, "{mode:?}: {took:?}");
        let since = Instant::now();
        transport.publish(b"lost").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{mode:?}: {:?}", since.elapsed());
    }
}

/// The reply to a ping arrives after the messages that were published before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_whose_messages_are_late_ends() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = through(&proxy);
    let mut events = transport.subscribe().await.unwrap().messages;
    proxy.set(Mode::Delay(ms(2_000)));
    let mut redis = server.connect();
    let since = Instant::now();
    let publishing = async {
        while since.elapsed() < TRUST {
            cmd("PUBLISH").arg(CHANNEL).arg("event").exec(&mut redis).unwrap();
            tokio::time::sleep(ms(10)).await;
        }
    };
    let reading = async {
        let mut came = 0;
        while next(&mut *events).await != Delivery::Closed {
            came += 1;
        }
        came
    };
    let came = tokio::select! {
        came = reading => came,
        () = publishing => panic!("not within {TRUST:?}"),
    };
    assert!(came > 0, "messages arrived, but late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_the_server_drops_ends() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    // A heartbeat that is too slow to notice.
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let slow = RedisTransport::at(url).heartbeat(Duration::from_secs(60)).build().unwrap();
    let mut events = slow.subscribe().await.unwrap().messages;
    server.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1");
    proxy.set(Mode::Pause);
    let (mut redis, large) = (server.connect(), vec![b'x'; 1 << 20]);
    while subscribers(&mut redis) == 1 {
        cmd("PUBLISH").arg(CHANNEL).arg(&large).exec(&mut redis).unwrap();
    }
    proxy.set(Mode::Pass);
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
}

#[tokio::test]
async fn a_slow_subscriber_receives_a_gap() {
    let server = RedisServer::start();
    let slow = builder(&server).queue_capacity(10).build().unwrap();
    let mut events = slow.subscribe().await.unwrap().messages;
    publish(&slow, 0..100).await;
    let (mut gaps, mut last) = (0, None);
    while last != Some(99) {
        match next(&mut *events).await {
            Delivery::Message(event) => {
                let number: usize = String::from_utf8(event).unwrap().parse().unwrap();
                let follows = last.map_or(0, |last: usize| last + 1) == number;
                assert!(follows || gaps > 0, "{number} after {last:?} without a gap");
                last = Some(number);
            }
            Delivery::Gap => gaps += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(gaps > 0);
    publish(&slow, 100..105).await;
    assert_eq!(take(&mut *events, 5).await, expected(100..105));
}

#[tokio::test]
async fn a_subscription_ends_when_its_user_loses_the_channel() {
    let server = RedisServer::start_with_user("app", "secret", "~* &* +@all");
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    let mut redis = server.connect();
    cmd("ACL").arg("SETUSER").arg("app").arg("resetchannels").exec(&mut redis).unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < ms(500), "{took:?}");
}

#[tokio::test]
async fn a_silent_server_fails_every_call_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", silent.local_addr().unwrap());
    let transport = RedisTransport::at(url).connect_timeout(ms(300)).build().unwrap();
    let since = Instant::now();
    let publishes: Vec<_> = (0..20).map(|_| transport.publish(b"event")).collect();
    let (results, subscribed) =
        tokio::join!(futures_util::future::join_all(publishes), transport.subscribe());
    for result in results {
        result.unwrap_err();
    }
    subscribed.err().unwrap();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_no_task_is_left().await;
}

/// The cache has limits of its own, which may be shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_abandoned_call_is_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = through(&proxy);
    for asks in [true, false] {
        transport.publish(b"before").await.unwrap();
        proxy.set(Mode::Blackhole);
        let limit = ms(50);
        let stopped = match asks {
            true => tokio::time::timeout(limit, transport.ping()).await.is_err(),
            false => tokio::time::timeout(limit, transport.publish(b"lost")).await.is_err(),
        };
        assert!(stopped, "nobody answers");
        proxy.set(Mode::Pass);
        transport.publish(b"after").await.unwrap();
    }
}
