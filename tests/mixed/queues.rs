//! A Rust instance and amqplib (Node.js) on one RabbitMQ: each can declare what the other one has.

use std::process::Command;

use lazy_layers_cache::{Delivery, RabbitMqOptions, RabbitMqTransport, Transport};

use crate::support::rabbitmq::RabbitServer;

#[tokio::test(flavor = "multi_thread")]
async fn amqplib_declares_what_rust_has_declared_and_the_other_way_round() {
    let server = RabbitServer::start();
    // As amqplib takes it: nothing after the slash is the vhost `/`.
    let url = server.url().replace("%2f", "");
    for (name, is_durable, is_rust_first) in
        [("a", true, true), ("b", true, false), ("c", false, true), ("d", false, false)]
    {
        let options = RabbitMqOptions::new(&url).exchange(format!("exchange-{name}"));
        let options = match is_durable {
            true => options.durable_queue(name),
            false => options.queue_name(name).exclusive_queue(false),
        };
        let assert_by_amqplib = || {
            let status = Command::new("node")
                .args(["queues.mjs", &url, &options.exchange, name, &is_durable.to_string()])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wire"))
                .status()
                .unwrap_or_else(|error| panic!("node does not start ({error})"));
            assert!(status.success(), "{name}: amqplib is refused");
        };
        if !is_rust_first {
            assert_by_amqplib();
        }
        let transport = RabbitMqTransport::new(options.clone()).unwrap();
        let mut subscribed = transport.subscribe().await.unwrap();
        if is_rust_first {
            assert_by_amqplib();
        }
        transport.publish(b"message").await.unwrap();
        assert_eq!(subscribed.messages.next().await, Delivery::Message(b"message".to_vec()));
    }
}
