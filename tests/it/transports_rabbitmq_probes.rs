//! Probes and beacons of the transport over RabbitMQ, against a real broker.

use crate::support::{
    rabbit_place::{Place, settle, transport},
    rabbitmq::RabbitServer,
    transports::{expected, loss, next, publish, take},
};
use futures_util::StreamExt;
use lapin::{
    options::{
        BasicConsumeOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::FieldTable,
};
use lazy_layers_cache::{Delivery, RabbitMqExchangeType, Transport};

fn none() -> FieldTable {
    FieldTable::default()
}

#[tokio::test]
async fn a_probe_comes_back_after_all_messages_that_were_published_before_it() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    for (own, peer) in
        [(place.transient(), place.transient()), (place.durable("a"), place.durable("b"))]
    {
        let place = Place::on(&server);
        let (own, peer) = (own.exchange(&place.name), peer.exchange(&place.name));
        let (own, peer) = (transport(own), transport(peer));
        let mut subscribed = own.subscribe().await.unwrap();
        let mut others = peer.subscribe().await.unwrap();
        publish(&peer, 0..150).await;
        publish(&own, 150..300).await;
        subscribed.prober.send(7).await.unwrap();
        publish(&peer, 300..301).await;
        let mut deliveries = expected(0..300);
        deliveries.push(Delivery::Probe(7));
        deliveries.extend(expected(300..301));
        assert_eq!(take(&mut *subscribed.messages, 302).await, deliveries);
        assert_eq!(take(&mut *others.messages, 301).await, expected(0..301), "no probe of a peer");
        subscribed.prober.send(u64::MAX).await.unwrap();
        assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(u64::MAX));
    }
}

#[tokio::test]
async fn a_replay_is_not_current_before_its_probe_is_back() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (absent, peer) = (transport(place.durable("a")), transport(place.durable("b")));
    let _peer = peer.subscribe().await.unwrap();
    drop(absent.subscribe().await.unwrap());
    publish(&peer, 0..500).await;
    let mut subscribed = absent.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    subscribed.prober.send(1).await.unwrap();
    publish(&peer, 500..501).await;
    let mut deliveries = expected(0..500);
    deliveries.push(Delivery::Probe(1));
    deliveries.extend(expected(500..501));
    assert_eq!(take(&mut *subscribed.messages, 502).await, deliveries);
}

#[tokio::test]
async fn a_probe_is_seen_by_no_later_subscription_and_does_not_stay_in_the_queue() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let durable = transport(place.durable("a"));
    let first = durable.subscribe().await.unwrap();
    for number in 0..5 {
        first.prober.send(number).await.unwrap();
    }
    let prober = first.prober;
    drop(first.messages);
    prober.send(5).await.expect_err("the subscription has ended");
    let mut second = durable.subscribe().await.unwrap();
    assert!(second.resumed);
    second.prober.send(6).await.unwrap();
    assert_eq!(next(&mut *second.messages).await, Delivery::Probe(6));
    settle(&mut *second.messages).await;
    drop(second);
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let (admin, queue) = (place.admin().await, place.queue("a"));
    let queue = admin.queue_declare(queue.as_str().into(), passive, none());
    assert_eq!(queue.await.unwrap().message_count(), 0);
}

#[tokio::test]
async fn a_probe_to_a_deleted_queue_ends_the_subscription() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let durable = transport(place.durable("a"));
    let mut subscribed = durable.subscribe().await.unwrap();
    let admin = place.admin().await;
    let options = QueueDeleteOptions::default();
    admin.queue_delete(place.queue("a").as_str().into(), options).await.unwrap();
    subscribed.prober.send(1).await.unwrap_err();
    assert_eq!(loss(&mut *subscribed.messages).await.0, Delivery::Closed);
}

#[tokio::test]
async fn a_beacon_reaches_every_instance_and_is_stored_for_none() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (present, absent) = (transport(place.durable("a")), transport(place.durable("b")));
    let transient = transport(place.transient().durable(true));
    // An instance of the TypeScript package binds its queue to the exchange of the messages.
    let admin = place.admin().await;
    drop(absent.subscribe().await.unwrap());
    let (queue, exchange) = (place.queue("typescript"), place.name.as_str().into());
    let options = QueueDeclareOptions::default();
    admin.queue_declare(queue.as_str().into(), options, none()).await.unwrap();
    let options = QueueBindOptions::default();
    admin.queue_bind(queue.as_str().into(), exchange, "".into(), options, none()).await.unwrap();

    let mut first = present.subscribe().await.unwrap();
    let mut second = transient.subscribe().await.unwrap();
    for _ in 0..20 {
        present.announce(b"beacon").await.unwrap();
    }
    for subscribed in [&mut first, &mut second] {
        let beacons = vec![Delivery::Message(b"beacon".to_vec()); 20];
        assert_eq!(take(&mut *subscribed.messages, 20).await, beacons);
    }
    let got = admin.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await;
    assert!(got.unwrap().is_none(), "no beacon for TypeScript");
    let mut subscribed = absent.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    settle(&mut *subscribed.messages).await;
}

#[tokio::test]
async fn caches_that_share_an_exchange_do_not_receive_each_others_beacons() {
    let server = RabbitServer::shared();
    for exchange_type in [RabbitMqExchangeType::Topic, RabbitMqExchangeType::Direct] {
        let place = Place::on(&server);
        let of = |key| transport(place.transient().exchange_type(exchange_type).routing_key(key));
        let (users, orders) = (of("cache.users"), of("cache.orders"));
        let mut messages = users.subscribe().await.unwrap().messages;
        orders.announce(b"of orders").await.unwrap();
        users.announce(b"of users").await.unwrap();
        assert_eq!(next(&mut *messages).await, Delivery::Message(b"of users".to_vec()));
    }
}

#[tokio::test]
async fn a_subscription_does_not_resume_beside_another_consumer_of_its_queue() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (own, peer) = (transport(place.durable("a")), transport(place.durable("b")));
    let _peer = peer.subscribe().await.unwrap();
    drop(own.subscribe().await.unwrap());
    publish(&peer, 0..2).await;
    // As after the connection of the last subscription has hung: the broker keeps messages for it.
    let admin = place.admin().await;
    let (queue, options) = (place.queue("a"), BasicConsumeOptions::default());
    let consume = admin.basic_consume(queue.as_str().into(), "".into(), options, none());
    let mut dead = consume.await.unwrap();
    dead.next().await.unwrap().unwrap();
    let subscribed = own.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    drop(subscribed);
    admin.close(200, "gone".into()).await.unwrap();
    let mut subscribed = own.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    subscribed.prober.send(2).await.unwrap();
    assert_eq!(take(&mut *subscribed.messages, 2).await, expected(0..2));
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(2));
}

#[tokio::test]
async fn a_subscription_ends_the_last_one_to_its_queue_that_nobody_reads() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let own = transport(place.durable("a"));
    let mut last = own.subscribe().await.unwrap();
    publish(&own, 0..2).await;
    let mut subscribed = own.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    publish(&own, 2..4).await;
    assert_eq!(take(&mut *subscribed.messages, 4).await, expected(0..4));
    assert_eq!(next(&mut *last.messages).await, Delivery::Closed);
}
