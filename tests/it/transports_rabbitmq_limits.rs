//! What RabbitMQ refuses, and what the transport over RabbitMQ holds in memory, against a real
//! broker.

use crate::support::{
    rabbit_place::{Place, transport},
    rabbitmq::RabbitServer,
    transports::{expected, next, publish, retry, take},
};
use futures_util::future::join_all;
use lazy_layers_cache::{Delivery, MessageRefused, Transport};

const KIB: usize = 1 << 10;

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_harms_no_other() {
    let server = RabbitServer::start_with_max_message_size(64 * KIB);
    let place = Place::on(&server);
    let (own, peer) = (transport(place.transient()), transport(place.transient()));
    let mut messages = peer.subscribe().await.unwrap().messages;
    let too_large = vec![b'x'; 64 * KIB + 1];
    let error = own.publish(&too_large).await.unwrap_err();
    assert!(error.is::<MessageRefused>(), "{error}");
    assert!(error.to_string().contains("max_message_size"), "{error}");
    // Others that are in flight at the same time are not refused.
    let small = join_all((0..20).map(async |_| retry(async || own.publish(b"small").await).await));
    let large = async {
        for _ in 0..5 {
            let error = retry(async || match own.publish(&too_large).await {
                Err(error) if error.is::<MessageRefused>() => Ok(error),
                Err(error) => Err(error),
                Ok(()) => panic!("the broker accepts it"),
            });
            error.await;
        }
    };
    tokio::join!(small, large);
    let deliveries = take(&mut *messages, 20).await;
    assert!(deliveries.iter().all(|it| *it == Delivery::Message(b"small".to_vec())));
    own.publish(&vec![b'x'; 64 * KIB]).await.unwrap();
}

#[tokio::test]
async fn a_message_that_a_permission_or_a_policy_forbids_is_refused() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    transport(place.transient()).ping().await.unwrap();
    let user = format!("{}-user", place.name);
    server.ctl(&["add_user", &user, "secret"]);
    server.ctl(&["set_permissions", &user, ".*", r"^(amq\.default|.*\.beacons)$", ".*"]);
    let url = place.url.replace("guest:guest", &format!("{user}:secret"));
    let reader = transport(place.transient().url(url));
    // The user may not bind a queue either, which takes the permission to write to it.
    let error = reader.subscribe().await.err().unwrap();
    assert!(error.to_string().contains("amq.gen"), "{error}");
    let mut subscribed = transport(place.transient()).subscribe().await.unwrap();
    let error = reader.publish(b"message").await.unwrap_err();
    assert!(error.is::<MessageRefused>() && error.to_string().contains(&place.name), "{error}");
    reader.announce(b"beacon").await.unwrap();
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Message(b"beacon".to_vec()));
    server.ctl(&["set_permissions", &user, ".*", ".*", ".*"]);
    retry(async || reader.publish(b"message").await).await;

    let place = Place::on(&server);
    let (durable, peer) = (transport(place.durable("a")), transport(place.durable("b")));
    drop(durable.subscribe().await.unwrap());
    let _peer = peer.subscribe().await.unwrap();
    let pattern = format!("^{}$", place.queue("a"));
    let policy = r#"{"max-length":2,"overflow":"reject-publish"}"#;
    server.ctl(&["set_policy", &place.name, &pattern, policy, "--apply-to", "queues"]);
    publish(&peer, 0..2).await;
    let error = peer.publish(b"one too many").await.unwrap_err();
    assert!(error.is::<MessageRefused>(), "{error}");
    let mut subscribed = durable.subscribe().await.unwrap();
    assert_eq!(take(&mut *subscribed.messages, 2).await, expected(0..2));
}

#[tokio::test]
async fn a_backlog_of_large_messages_ends_subscriptions_until_the_prefetch_fits_and_none_is_lost() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let own = transport(place.durable("a").queue_max_bytes(4 << 20));
    let peer = transport(place.durable("b"));
    let _peer = peer.subscribe().await.unwrap();
    drop(own.subscribe().await.unwrap());
    for number in 0..8u8 {
        peer.publish(&vec![number; 1_500 * KIB]).await.unwrap();
    }
    // Four messages ahead, of which two fit. The broker sends them before it answers.
    let mut subscribed = own.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Closed);
    drop(subscribed);
    let mut subscribed = own.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    subscribed.prober.send(1).await.unwrap();
    for number in 0..8u8 {
        match next(&mut *subscribed.messages).await {
            Delivery::Message(message) => assert_eq!(message[0], number),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(1));
}

#[tokio::test]
async fn a_message_larger_than_the_memory_for_all_is_a_gap() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    for options in [place.transient().durable(true), place.durable("a")] {
        let own = transport(options.queue_max_bytes(1 << 20));
        let mut messages = own.subscribe().await.unwrap().messages;
        own.publish(&vec![9; (1 << 20) + 1]).await.unwrap();
        own.publish(&vec![9; 1 << 20]).await.unwrap();
        let rest = take(&mut *messages, 2).await;
        assert_eq!(rest, [Delivery::Gap, Delivery::Message(vec![9; 1 << 20])]);
    }
}
