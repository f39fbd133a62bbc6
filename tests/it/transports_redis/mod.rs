//! The transport over Redis Pub/Sub, with real servers.

mod faults;
mod floods;
mod lifetime;
mod nodes;
mod probes;
mod refusals;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    Delivery, RedisTransport, RedisTransportBuilder, RedisTransportOptions, Transport,
};
use redis::{Connection, cmd};

use crate::support::{
    ms,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    transports::{
        check_delivery_in_order, check_subscribe_misses_nothing, expected, next, publish, retry,
        take,
    },
};

/// The channel of the TypeScript package.
const CHANNEL: &str = "cache:invalidations";

fn builder(server: &RedisServer) -> RedisTransportBuilder {
    RedisTransport::at(server.url()).confirm_timeout(ms(1_000))
}

fn transport(server: &RedisServer) -> RedisTransport {
    builder(server).build().unwrap()
}

fn through(proxy: &Proxy) -> RedisTransport {
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    RedisTransport::at(url).confirm_timeout(ms(1_000)).build().unwrap()
}

fn subscribers(redis: &mut Connection) -> u64 {
    let (_, count): (String, u64) = cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL).query(redis).unwrap();
    count
}

/// Kills all connections that have subscribed, and returns their number.
fn kill_subscribers(redis: &mut Connection) -> u64 {
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query(redis).unwrap()
}

#[tokio::test]
async fn every_instance_receives_every_message_in_order() {
    let server = RedisServer::start();
    check_delivery_in_order(&transport(&server), &transport(&server)).await;
}

#[tokio::test]
async fn a_subscription_in_force_misses_nothing() {
    let server = RedisServer::start();
    let (publisher, subscriber) = (transport(&server), transport(&server));
    check_subscribe_misses_nothing(&publisher, &subscriber, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_waits_for_the_servers_confirmation() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let late = ms(300);
    proxy.set(Mode::Delay(late));
    let transport = through(&proxy);
    let since = Instant::now();
    let mut subscribing = pin!(transport.subscribe());
    let (mut redis, mut confirmed_after) = (server.connect(), None);
    let subscribed = loop {
        tokio::select! {
            subscribed = &mut subscribing => break subscribed,
            () = tokio::time::sleep(ms(5)) => {
                if confirmed_after.is_none() && subscribers(&mut redis) == 1 {
                    confirmed_after = Some(since.elapsed());
                }
            }
        }
    };
    let mut events = subscribed.unwrap().messages;
    let confirmed_after =
        confirmed_after.expect("the server has the subscription before the transport returns");
    // The reply to the subscription takes another 300 ms.
    assert!(
        since.elapsed() > confirmed_after + late / 2,
        "{:?} {confirmed_after:?}",
        since.elapsed()
    );
    cmd("PUBLISH").arg(CHANNEL).arg("event").exec(&mut redis).unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
}

#[tokio::test]
async fn bytes_pass_unchanged_by_the_channel_that_the_typescript_package_uses() {
    let server = RedisServer::start();
    // Neither the database in a URL nor the protocol makes a difference.
    let url = server.url();
    for url in [url.clone(), format!("{url}7"), format!("{url}?protocol=resp3")] {
        let transport = RedisTransport::at(url).build().unwrap();
        let mut events = transport.subscribe().await.unwrap().messages;
        let mut theirs = server.connect();
        let mut theirs = theirs.as_pubsub();
        theirs.subscribe(CHANNEL).unwrap();
        let all: Vec<u8> = (0..=u8::MAX).chain(*b"\r\n$-1\r\n*3\r\n").collect();
        let mut redis = server.connect();
        for event in [all, b"HC1M\x80".to_vec(), Vec::new(), vec![0; 1 << 20]] {
            transport.publish(&event).await.unwrap();
            assert_eq!(theirs.get_message().unwrap().get_payload_bytes(), event);
            assert_eq!(next(&mut *events).await, Delivery::Message(event.clone()));
            cmd("PUBLISH").arg(CHANNEL).arg(&event).exec(&mut redis).unwrap();
            assert_eq!(next(&mut *events).await, Delivery::Message(event));
            theirs.get_message().unwrap();
        }
        transport.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_channel_is_a_name_and_no_pattern() {
    let server = RedisServer::start();
    let all = builder(&server).channel("shop:*").build().unwrap();
    let one = builder(&server).channel("shop:1").build().unwrap();
    let mut events = all.subscribe().await.unwrap().messages;
    one.publish(b"one").await.unwrap();
    all.publish(b"all").await.unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"all".to_vec()));
}

#[tokio::test]
async fn a_password_or_a_user_with_few_permissions_is_enough() {
    let server = RedisServer::start_with_password("secret");
    check_delivery_in_order(&transport(&server), &transport(&server)).await;

    let rules = "resetchannels &cache:invalidations &cache:invalidations:* -@all +publish \
                 +subscribe";
    let server = RedisServer::start_with_user("app", "secret", rules);
    let quick = builder(&server).heartbeat(ms(50)).build().unwrap();
    let mut events = quick.subscribe().await.unwrap().messages;
    // The server refuses the pings of some heartbeats.
    let refused = || {
        let stats = server.info("commandstats");
        let (_, pings) = stats.split_once("cmdstat_ping:").unwrap();
        let (_, refused) = pings.split_once("rejected_calls=").unwrap();
        refused.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    retry(async || match refused() {
        5.. => Ok(()),
        count => Err(format!("{count} heartbeats")),
    })
    .await;
    publish(&quick, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));

    let other = builder(&server).channel("other").build().unwrap();
    other.subscribe().await.err().unwrap();
    let error = other.publish(b"event").await.unwrap_err().to_string();
    assert!(error.contains("permissions"), "{error}");
    let wrong = server.url().replace("secret", "wrong");
    let stranger = RedisTransport::at(wrong).build().unwrap();
    stranger.publish(b"event").await.unwrap_err();
    stranger.subscribe().await.err().unwrap();
    assert!(!format!("{stranger:?}").contains("wrong"));
}

#[tokio::test]
async fn connections_and_clients_of_the_application_can_be_used() {
    let mut server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    // The connection has no limit for replies.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let over = || RedisTransport::over(client.clone()).confirm_timeout(ms(1_000));
    let mine = over().publish_over(connection.clone()).build().unwrap();
    let theirs = over().build().unwrap();
    check_delivery_in_order(&mine, &theirs).await;
    check_delivery_in_order(&theirs, &mine).await;

    // The transport uses the connection and does not close it.
    let clients = |server: &RedisServer| {
        let list: String = cmd("CLIENT").arg("LIST").query(&mut server.connect()).unwrap();
        list.lines().count()
    };
    theirs.disconnect().await.unwrap();
    retry(async || match clients(&server) {
        3 => Ok(()),
        count => Err(format!("{count} clients: the test's two and the application's")),
    })
    .await;
    mine.publish(b"event").await.unwrap();
    assert_eq!(clients(&server), 3);
    mine.disconnect().await.unwrap();
    cmd("PING").exec_async(&mut connection.clone()).await.unwrap();

    server.freeze();
    let publishing = tokio::time::timeout(ms(1_500), mine.publish(b"nobody answers"));
    publishing.await.expect("an answer in time").unwrap_err();
    server.thaw();
    retry(async || mine.publish(b"event").await).await;
    server.kill();
    mine.publish(b"nobody is there").await.unwrap_err();
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    let at = || RedisTransport::at("redis://127.0.0.1/");
    let none = Vec::<String>::new;
    for (option, wrong) in [
        ("redis.url", RedisTransport::at("http://127.0.0.1")),
        ("redis.url", RedisTransport::cluster(["redis://127.0.0.1", "127.0.0.1"])),
        ("redis.cluster", RedisTransport::cluster(none())),
        ("redis.sentinel", RedisTransport::sentinel(none(), "redis://main")),
        ("channel", at().channel("")),
        ("queue_capacity", at().queue_capacity(0)),
        ("queue_max_bytes", at().queue_max_bytes(0)),
        ("connect_timeout", at().connect_timeout(ms(0))),
        ("confirm_timeout", at().confirm_timeout(ms(0))),
        ("heartbeat", at().heartbeat(ms(1))),
    ] {
        let error = wrong.build().unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_show_no_secret() {
    let options: RedisTransportOptions = toml::from_str(
        r#"
        channel = "shop:invalidations"
        queue_capacity = 100
        queue_max_bytes = 1000
        heartbeat = "2s"
        "#,
    )
    .unwrap();
    let expected = RedisTransportOptions::default()
        .channel("shop:invalidations")
        .queue_capacity(100)
        .queue_max_bytes(1_000)
        .heartbeat(Duration::from_secs(2));
    assert_eq!(options, expected);
    assert_eq!(RedisTransportOptions::default().channel, CHANNEL);
    let builder = RedisTransport::at("redis://user:hunter2@127.0.0.1/").options(options);
    assert!(!format!("{builder:?}").contains("hunter2"));
    assert!(!format!("{:?}", builder.build().unwrap()).contains("hunter2"));
}
