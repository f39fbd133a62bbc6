//! Probes and beacons: their channels, their order, and the permissions that they need.

use std::time::Duration;

use lazy_layers_cache::{Delivery, MessageStream, RedisTransport, Subscribed, Transport};
use redis::cmd;

use super::{CHANNEL, builder, kill_subscribers, transport};
use crate::support::{
    cluster::Cluster,
    ms,
    redis::RedisServer,
    transports::{PATIENCE, TRUST, expected, loss, next, publish, retry, take},
};

/// The channels that somebody is subscribed to.
fn channels(server: &RedisServer) -> Vec<String> {
    cmd("PUBSUB").arg("CHANNELS").query(&mut server.connect()).unwrap()
}

async fn assert_nothing_arrives(messages: &mut dyn MessageStream) {
    let arrived = tokio::time::timeout(ms(50), messages.next()).await;
    assert!(arrived.is_err(), "{arrived:?}");
}

#[tokio::test]
async fn a_probe_arrives_at_its_own_subscription_after_all_that_was_published_before() {
    let server = RedisServer::start();
    let (one, other) = (transport(&server), transport(&server));
    let Subscribed { mut messages, prober, .. } = one.subscribe().await.unwrap();
    let mut theirs = other.subscribe().await.unwrap().messages;
    let mut second = one.subscribe().await.unwrap().messages;
    for number in [0, 1, u64::MAX] {
        publish(&one, 0..500).await;
        publish(&other, 500..1_000).await;
        prober.send(number).await.unwrap();
        publish(&other, 1_000..1_001).await;
        assert_eq!(take(&mut *messages, 1_000).await, expected(0..1_000));
        assert_eq!(next(&mut *messages).await, Delivery::Probe(number));
        assert_eq!(take(&mut *messages, 1).await, expected(1_000..1_001));
        for others in [&mut theirs, &mut second] {
            assert_eq!(take(&mut **others, 1_001).await, expected(0..1_001), "and no probe");
        }
    }
    assert_nothing_arrives(&mut *theirs).await;
}

#[tokio::test]
async fn beacons_arrive_everywhere_but_on_the_channel_of_the_typescript_package() {
    let server = RedisServer::start();
    let (one, other) = (transport(&server), transport(&server));
    let Subscribed { mut messages, prober, .. } = one.subscribe().await.unwrap();
    let mut theirs = other.subscribe().await.unwrap().messages;
    let mut typescript = server.connect();
    let mut typescript = typescript.as_pubsub();
    typescript.subscribe(CHANNEL).unwrap();
    one.announce(b"beacon").await.unwrap();
    prober.send(7).await.unwrap();
    one.publish(b"message").await.unwrap();
    let (beacon, message) =
        (Delivery::Message(b"beacon".to_vec()), Delivery::Message(b"message".to_vec()));
    let arrived = [beacon, Delivery::Probe(7), message];
    assert_eq!(take(&mut *messages, 3).await, arrived);
    assert_eq!(next(&mut *theirs).await, arrived[0]);
    assert_eq!(next(&mut *theirs).await, arrived[2]);
    typescript.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(typescript.get_message().unwrap().get_payload_bytes(), b"message");
    typescript.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    typescript.get_message().unwrap_err();
}

#[tokio::test]
async fn a_subscription_that_has_ended_leaves_no_channel_and_sends_no_probe() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let gone = async |wanted: usize| {
        retry(async || match channels(&server) {
            channels if channels.len() == wanted => Ok(()),
            channels => Err(format!("{channels:?}")),
        })
        .await;
    };
    let Subscribed { mut messages, prober, .. } = transport.subscribe().await.unwrap();
    let clients: String = cmd("CLIENT").arg("LIST").query(&mut server.connect()).unwrap();
    assert!(clients.contains(" name=lazy-layers-cache:subscriber "), "{clients}");
    let own = channels(&server).into_iter().filter(|it| it.starts_with(CHANNEL));
    assert_eq!(own.count(), 3, "messages, beacons, and the subscription's own probes");
    kill_subscribers(&mut server.connect());
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    prober.send(1).await.unwrap_err();
    gone(0).await;

    // Each subscription has a channel of its own.
    let first = transport.subscribe().await.unwrap();
    let second = transport.subscribe().await.unwrap();
    gone(4).await;
    first.prober.send(1).await.unwrap();
    let Subscribed { messages, prober, .. } = first;
    drop(messages);
    gone(3).await;
    prober.send(2).await.unwrap_err();
    let Subscribed { mut messages, prober, .. } = second;
    prober.send(3).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Probe(3));
    transport.disconnect().await.unwrap();
    prober.send(4).await.unwrap_err();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    gone(0).await;
}

#[tokio::test]
async fn whoever_knows_the_channel_of_the_probes_fills_no_memory_and_stops_nothing() {
    let server = RedisServer::start();
    let transport = builder(&server).queue_capacity(10).build().unwrap();
    let Subscribed { mut messages, prober, .. } = transport.subscribe().await.unwrap();
    let channel = channels(&server).into_iter().find(|it| it.contains(":probe:")).unwrap();
    let mut redis = server.connect();
    for payload in ["", "-1", "x", "\u{fffd}", "18446744073709551616"] {
        cmd("PUBLISH").arg(&channel).arg(payload).exec(&mut redis).unwrap();
    }
    let mut flood = redis::pipe();
    (0..1_000).for_each(|_| _ = flood.cmd("PUBLISH").arg(&channel).arg(5).ignore());
    flood.exec(&mut redis).unwrap();
    publish(&transport, 0..1).await;
    let arrived = async {
        let mut arrived = Vec::new();
        while arrived.last() != expected(0..1).first() {
            arrived.push(next(&mut *messages).await);
        }
        arrived
    };
    assert!(arrived.await.len() <= 12, "ten probes, a gap and the message at most");
    prober.send(6).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Probe(6));
}

#[tokio::test]
async fn a_user_who_may_not_use_the_other_channels_gets_an_error_with_the_fix() {
    let rules = "resetchannels &cache:invalidations -@all +publish +subscribe";
    let server = RedisServer::start_with_user("app", "secret", rules);
    let transport = transport(&server);
    let refused = |error: lazy_layers_cache::BoxError| {
        let text = error.to_string();
        assert!(text.contains("ACL SETUSER <user> &cache:invalidations &cache:invalidations:* "));
    };
    refused(transport.subscribe().await.err().unwrap());
    refused(transport.announce(b"beacon").await.unwrap_err());
    transport.publish(b"message").await.unwrap();
    // The fix works.
    let mut fix = cmd("ACL");
    fix.arg("SETUSER").arg("app").arg("&cache:invalidations:*");
    fix.exec(&mut server.connect()).unwrap();
    let Subscribed { mut messages, prober, .. } = transport.subscribe().await.unwrap();
    transport.announce(b"beacon").await.unwrap();
    prober.send(1).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Message(b"beacon".to_vec()));
    assert_eq!(next(&mut *messages).await, Delivery::Probe(1));
}

#[tokio::test]
async fn a_server_without_resp3_is_refused_with_the_fix() {
    let server = RedisServer::start_with(&["--rename-command", "HELLO", ""]);
    let text = transport(&server).subscribe().await.err().unwrap().to_string();
    assert!(text.ends_with("; the fix is a server or proxy that offers HELLO 3"), "{text}");
}

#[tokio::test]
async fn probes_take_the_way_of_the_messages() {
    let server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let external = RedisTransport::over(client).publish_over(connection).build().unwrap();
    let Subscribed { mut messages, prober, .. } = external.subscribe().await.unwrap();
    publish(&external, 0..1).await;
    prober.send(1).await.unwrap();
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    assert_eq!(next(&mut *messages).await, Delivery::Probe(1));

    // A publisher that cannot publish cannot probe.
    let other = RedisServer::start();
    let (mut redis, port) = (server.connect(), other.port().to_string());
    let transport = transport(&server);
    let Subscribed { mut messages, prober, .. } = transport.subscribe().await.unwrap();
    cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut redis).unwrap();
    prober.send(1).await.unwrap_err();
    // The subscription ends although no publisher was connected to the server when it changed.
    let (arrived, took) = loss(&mut *messages).await;
    assert_eq!(arrived, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    transport.subscribe().await.err().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_beacons_cross_a_cluster() {
    let cluster = Cluster::start();
    let at = |node: usize| RedisTransport::cluster([cluster.node(node).url()]).build().unwrap();
    let (one, other) = (at(0), at(1));
    let Subscribed { mut messages, prober, .. } = one.subscribe().await.unwrap();
    let mut theirs = other.subscribe().await.unwrap().messages;
    one.announce(b"beacon").await.unwrap();
    prober.send(1).await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Message(b"beacon".to_vec()));
    assert_eq!(next(&mut *messages).await, Delivery::Probe(1));
    assert_eq!(next(&mut *theirs).await, Delivery::Message(b"beacon".to_vec()));
}
