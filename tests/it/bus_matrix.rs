//! Every transport keeps the rules of transports, and two caches over it tell each other
//! everything: deletes, patterns, clears, sets, primes; what comes twice, comes back, comes in
//! another order, is too large, cannot be read, is of an unknown type or of another namespace.

use lazy_layers_cache::{
    LocalTransport, RabbitMqOptions, RabbitMqTransport,
    testing::{SharedBus, check_transport},
};

use crate::support::{
    broker::{Broker, Kind, Way},
    matrix::every_cell,
    rabbitmq::RabbitServer,
    transports::no_task_is_left,
};

async fn passes(name: &'static str, way: impl Fn(&str) -> Way) {
    check_transport(&way("first"), &way("second")).await;
    every_cell(name, way("one"), way("other"), way("raw")).await;
    drop(way);
    no_task_is_left().await;
}

#[tokio::test]
async fn local() {
    let transport = LocalTransport::new();
    passes("local", |_| Way(Box::new(transport.clone()))).await;
}

#[tokio::test]
async fn a_shared_bus_in_memory() {
    let bus = SharedBus::new(1);
    passes("shared", |_| Way(Box::new(bus.link()))).await;
}

#[tokio::test]
async fn redis() {
    let broker = Broker::start(Kind::Redis);
    passes("redis", |instance| broker.transport(instance)).await;
}

#[tokio::test]
async fn nats() {
    let broker = Broker::start(Kind::Nats);
    passes("nats", |instance| broker.transport(instance)).await;
}

#[tokio::test]
async fn jetstream() {
    let broker = Broker::start(Kind::JetStream);
    passes("jetstream", |instance| broker.transport(instance)).await;
}

/// With queues that go, and with queues that stay: on two exchanges of one broker, which takes
/// seconds to start.
#[tokio::test]
async fn rabbitmq() {
    let server = RabbitServer::shared();
    for (name, is_durable) in [("passing", false), ("durable", true)] {
        passes(name, |instance| {
            let options = RabbitMqOptions::new(server.url()).exchange(format!("matrix-{name}"));
            let durable = || options.clone().durable_queue(format!("matrix-{instance}"));
            let options = if is_durable { durable() } else { options.clone() };
            Way(Box::new(RabbitMqTransport::new(options).unwrap()))
        })
        .await;
    }
}
