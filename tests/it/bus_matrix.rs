//! Every transport passes `check_transport`, and two caches over it exchange deletes, patterns,
//! clears, sets and primes. Messages that are duplicated, reordered, oversized, undecodable, of an
//! unknown type or of another namespace do no harm.

use lazy_layers_cache::{
    LocalTransport, RabbitMqOptions, RabbitMqTransport,
    testing::{SharedBus, check_transport},
};

use crate::support::{
    broker::{Broker, BrokerTransport, Kind},
    matrix::check_all,
    rabbitmq::RabbitServer,
    transports::{PATIENCE, assert_no_task_is_left},
};

async fn passes(name: &'static str, way: impl Fn(&str) -> BrokerTransport) {
    check_transport(&way("first"), &way("second")).await;
    check_all(name, way("one"), way("other"), way("raw")).await;
    drop(way);
    assert_no_task_is_left().await;
}

#[tokio::test]
async fn local() {
    let transport = LocalTransport::new();
    passes("local", |_| BrokerTransport(Box::new(transport.clone()))).await;
}

#[tokio::test]
async fn shared_bus() {
    let bus = SharedBus::new(1);
    passes("shared", |_| BrokerTransport(Box::new(bus.link()))).await;
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

/// With transient and with durable queues: on two exchanges of one broker, because a broker takes
/// seconds to start. A subscription ends if the broker does not answer for one and a half
/// heartbeats, as on a busy machine: so the heartbeat is long, because the rules hold on a broker
/// that answers.
#[tokio::test]
async fn rabbitmq() {
    let server = RabbitServer::shared();
    for (name, is_durable) in [("transient", false), ("durable", true)] {
        passes(name, |instance| {
            let options = RabbitMqOptions::new(server.url()).exchange(format!("matrix-{name}"));
            let options = options.heartbeat(PATIENCE).confirm_timeout(PATIENCE);
            let options = options.connect_timeout(PATIENCE);
            let durable = || options.clone().durable_queue(format!("matrix-{instance}"));
            let options = if is_durable { durable() } else { options.clone() };
            BrokerTransport(Box::new(RabbitMqTransport::new(options).unwrap()))
        })
        .await;
    }
}
