//! Brokers over TLS, with every feature on: all of them agree on who does the cryptography.

use std::time::Instant;

use lazy_layers_cache::{
    JetStreamOptions, JetStreamTransport, NatsConnection, NatsOptions, NatsTransport,
    RabbitMqOptions, RabbitMqTransport, TlsOptions, Transport,
};

use crate::support::{
    ms,
    nats::NatsServer,
    rabbitmq::RabbitServer,
    transports::{expected, no_task_is_left, publish, take},
};

/// With the server's authority it works, and with the system's it is refused, in time.
async fn trusts_only_whom_it_is_told_to(told: &dyn Transport, not_told: &dyn Transport) {
    let mut events = told.subscribe().await.unwrap().messages;
    publish(told, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    let since = Instant::now();
    let error = not_told.publish(b"event").await.unwrap_err();
    assert!(since.elapsed() < ms(3_500), "{:?}", since.elapsed());
    let text = error_chain(&*error);
    assert!(text.contains("UnknownIssuer"), "{text}");
    not_told.subscribe().await.err().unwrap();
}

fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("{error} {error:?}; "))
        .collect()
}

#[tokio::test]
async fn nats_is_reached_by_tls() {
    let server = NatsServer::start_with_tls();
    let url = server.url().replace("nats://", "tls://");
    let connection = |url: &str, tls| NatsConnection::default().servers([url]).tls(tls);
    let trusting = TlsOptions::default().ca_file(server.authority());
    let core =
        |connection| NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let told = core(connection(&url, trusting.clone()));
    trusts_only_whom_it_is_told_to(&told, &core(connection(&url, TlsOptions::default()))).await;
    // The server asks for TLS by itself, too.
    let stream = |connection| {
        let options = JetStreamOptions::durable("a").subject("stream.it").connection(connection);
        JetStreamTransport::new(options).unwrap()
    };
    let told = stream(connection(&server.url(), trusting));
    let not_told = stream(connection(&server.url(), TlsOptions::default()));
    trusts_only_whom_it_is_told_to(&told, &not_told).await;
}

#[tokio::test]
async fn rabbitmq_is_reached_by_tls() {
    let (_server, port, authority) = RabbitServer::start_with_tls();
    let options = RabbitMqOptions::new(format!("amqps://guest:guest@localhost:{port}/%2f"));
    let trusting = options.clone().tls(TlsOptions::required().ca_file(authority));
    let told = RabbitMqTransport::new(trusting).unwrap();
    let not_told = RabbitMqTransport::new(options).unwrap();
    trusts_only_whom_it_is_told_to(&told, &not_told).await;
    drop((told, not_told));
    no_task_is_left().await;
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn redis_is_reached_by_tls() {
    use crate::support::redis::RedisServer;
    use lazy_layers_cache::RedisTransport;

    let server = RedisServer::start_with_tls();
    let authority = std::fs::read(server.authority()).unwrap();
    let at = || RedisTransport::at(server.url());
    let told = at().root_certificates(authority).build().unwrap();
    trusts_only_whom_it_is_told_to(&told, &at().build().unwrap()).await;
    drop(told);
    no_task_is_left().await;
}

#[tokio::test]
async fn a_file_that_holds_no_certificate_is_named() {
    let tls = TlsOptions::required().ca_file("/dev/null");
    let connection = NatsConnection::default().tls(tls.clone());
    let nats = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let rabbitmq = RabbitMqTransport::new(RabbitMqOptions::new("amqps://localhost").tls(tls));
    for error in [
        nats.publish(b"event").await.unwrap_err(),
        rabbitmq.unwrap().publish(b"event").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}
