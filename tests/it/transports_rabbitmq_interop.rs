//! An instance of the TypeScript package can declare what a Rust instance has declared in RabbitMQ,
//! and the other way round, against a real broker. (`tests/mixed/queues.rs` does so with amqplib
//! itself.)

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use lazy_layers_cache::{RabbitMqOptions, RabbitMqTransport, Transport};

use crate::support::{
    ms,
    rabbit_place::{Place, transport},
    rabbitmq::RabbitServer,
    transports::{expected, publish, take},
};

/// Declares exchange and queue as amqplib does for the options of the TypeScript package, and binds
/// them.
async fn assert_as_amqplib(place: &Place, queue: &str, is_durable: bool) {
    let admin = place.admin().await;
    let options =
        ExchangeDeclareOptions { durable: is_durable, ..ExchangeDeclareOptions::default() };
    let (exchange, none) = (place.name.as_str(), FieldTable::default);
    admin.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, none()).await.unwrap();
    let options = QueueDeclareOptions {
        durable: is_durable,
        auto_delete: !is_durable,
        ..QueueDeclareOptions::default()
    };
    admin.queue_declare(queue.into(), options, none()).await.unwrap();
    let options = QueueBindOptions::default();
    admin.queue_bind(queue.into(), exchange.into(), "".into(), options, none()).await.unwrap();
}

#[tokio::test]
async fn amqplib_can_assert_what_a_rust_instance_has_declared_and_the_other_way_round() {
    let server = RabbitServer::shared();
    for is_durable in [true, false] {
        for is_first in [true, false] {
            let place = Place::on(&server);
            let queue = place.queue("a");
            let own = transport(match is_durable {
                true => place.durable("a"),
                false => place.transient().queue_name(&queue).exclusive_queue(false),
            });
            if is_first {
                assert_as_amqplib(&place, &queue, is_durable).await;
            }
            let mut subscribed = own.subscribe().await.unwrap();
            if !is_first {
                assert_as_amqplib(&place, &queue, is_durable).await;
            }
            publish(&own, 0..2).await;
            assert_eq!(take(&mut *subscribed.messages, 2).await, expected(0..2));
        }
    }
}

#[tokio::test]
async fn an_expiry_is_an_argument_of_the_queue_only_if_the_user_asks_for_it() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    drop(transport(place.durable("a")).subscribe().await.unwrap());
    let expiring = transport(place.durable("b").queue_expires(ms(600_000)));
    drop(expiring.subscribe().await.unwrap());
    let queues = server.ctl(&["list_queues", "name", "arguments"]);
    let arguments_of = |queue: &str| {
        let queue = place.queue(queue);
        let mut lines = queues.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(name, _)| *name == queue).unwrap().1.to_owned()
    };
    assert_eq!(arguments_of("a"), "[]");
    assert!(arguments_of("b").contains("600000"), "{queues}");
    // A queue with other arguments is used as it is.
    drop(transport(place.durable("b")).subscribe().await.unwrap());
}

#[tokio::test]
async fn a_url_may_end_with_a_slash_and_names_its_vhost_by_its_path() {
    let server = RabbitServer::shared();
    let base = format!("amqp://guest:guest@127.0.0.1:{}", server.port());
    for path in ["", "/", "/%2f", "/?heartbeat=3&channelMax=16&frameMax=8192&locale=en_US"] {
        let options = RabbitMqOptions::new(format!("{base}{path}"));
        transport(options).ping().await.unwrap();
    }
    for wrong in ["/nowhere", "//"] {
        let transport = transport(RabbitMqOptions::new(format!("{base}{wrong}")));
        assert_eq!(transport.ping().await.is_ok(), wrong == "//");
    }
    RabbitMqTransport::new(RabbitMqOptions::new(format!("{base}/?verify=none"))).unwrap_err();
}
