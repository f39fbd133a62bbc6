//! Replicas, Sentinel and Cluster: which server the transport uses.

use std::time::Instant;

use lazy_layers_cache::{BoxError, Delivery, RedisTransport, Transport};
use redis::cmd;

use super::{CHANNEL, subscribers, transport};
use crate::support::{
    cluster::Cluster,
    ms,
    redis::RedisServer,
    sentinel::Sentinel,
    transports::{TRUST, expected, loss, next, publish, retry, take},
};

#[tokio::test]
async fn a_replica_is_refused_and_a_master_that_becomes_one_is_left() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let transport = transport(&server);
    transport.publish(b"event").await.unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    let (mut redis, port) = (server.connect(), other.port().to_string());
    cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut redis).unwrap();
    transport.publish(b"to few").await.unwrap_err();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut few = server.connect();
    let mut few = few.as_pubsub();
    few.subscribe(CHANNEL).unwrap();
    transport.publish(b"to nobody").await.unwrap_err();
    transport.ping().await.unwrap_err();
    cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut redis).unwrap();
    transport.publish(b"to all").await.unwrap();
    assert_eq!(few.get_message().unwrap().get_payload_bytes(), b"to all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transport_follows_the_master_that_a_sentinel_names() {
    let sentinel = Sentinel::start();
    let master = format!("redis://{}/", Sentinel::MASTER);
    let following = RedisTransport::sentinel([sentinel.url()], master).build().unwrap();
    let mut events = following.subscribe().await.unwrap().messages;
    publish(&following, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    sentinel.failover();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut events = retry(async || following.subscribe().await).await.messages;
    // Until the old master is demoted it accepts messages that no subscriber receives.
    retry(async || {
        following.publish(b"event").await?;
        let event = tokio::time::timeout(ms(500), events.next()).await?;
        assert_eq!(event, Delivery::Message(b"event".to_vec()));
        Ok::<_, BoxError>(())
    })
    .await;
    assert_eq!(
        subscribers(&mut sentinel.first_replica().connect()),
        1,
        "the subscription is at the new master"
    );
}

/// The old master still answers, and does not know that it was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transport_leaves_a_master_that_the_sentinel_no_longer_names() {
    let (sentinel, other) = (Sentinel::start(), RedisServer::start());
    let master = format!("redis://{}/", Sentinel::MASTER);
    let following =
        RedisTransport::sentinel([sentinel.url()], master).heartbeat(ms(100)).build().unwrap();
    let mut events = following.subscribe().await.unwrap().messages;
    following.publish(b"event").await.unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));

    let mut theirs = other.connect();
    let mut theirs = theirs.as_pubsub();
    theirs.subscribe(CHANNEL).unwrap();
    theirs.set_read_timeout(Some(ms(50))).unwrap();
    let mut says = redis::Client::open(sentinel.url()).unwrap().get_connection().unwrap();
    let monitor = ["MONITOR", Sentinel::MASTER, "127.0.0.1", &other.port().to_string(), "1"];
    redis::pipe()
        .cmd("SENTINEL")
        .arg("REMOVE")
        .arg(Sentinel::MASTER)
        .cmd("SENTINEL")
        .arg(&monitor)
        .exec(&mut says)
        .unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    retry(async || {
        following.publish(b"moved").await.unwrap();
        theirs.get_message()
    })
    .await;
    let mut first = sentinel.first_master().connect();
    cmd("PING").exec(&mut first).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_can_be_used() {
    let cluster = Cluster::start();
    let all = RedisTransport::cluster(cluster.urls()).build().unwrap();
    for index in 0..3 {
        let node = transport(cluster.node(index));
        let here = node.subscribe().await.unwrap().messages;
        let anywhere = all.subscribe().await.unwrap().messages;
        let numbers = 10 * index..10 * (index + 1);
        publish(&all, numbers.clone()).await;
        for mut events in [here, anywhere] {
            let mut came = Vec::new();
            while came.len() < numbers.len() {
                let told = next(&mut *events).await;
                // Messages published to another node before may arrive late.
                if !expected(0..numbers.start).contains(&told) {
                    came.push(told);
                }
            }
            assert_eq!(came, expected(numbers.clone()));
        }
        all.disconnect().await.unwrap();
    }
    all.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_down_or_do_not_answer_are_skipped() {
    let mut cluster = Cluster::start();
    let all = RedisTransport::cluster(cluster.urls()).confirm_timeout(ms(1_000)).build().unwrap();
    let mut events = all.subscribe().await.unwrap().messages;
    let ours = (0..3)
        .find(|index| subscribers(&mut cluster.node(*index).connect()) == 1)
        .expect("one node has the subscription");
    cluster.kill(ours);
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    cluster.node((ours + 1) % 3).freeze();
    // Each of the three nodes is the first to be tried once.
    for _ in 0..3 {
        let since = Instant::now();
        let mut events = all.subscribe().await.unwrap().messages;
        assert!(since.elapsed() < ms(2_500), "{:?}", since.elapsed());
        retry(async || all.publish(b"event").await).await;
        assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
        all.disconnect().await.unwrap();
    }
}
