//! Brokers over TLS with every feature enabled: all clients agree on one cryptography provider.

use std::time::Instant;

use lazy_layers_cache::{
    JetStreamOptions, JetStreamTransport, NatsConnection, NatsOptions, NatsTransport,
    RabbitMqOptions, RabbitMqTransport, TlsOptions, Transport,
};

use crate::support::{
    ms,
    nats::NatsServer,
    rabbitmq::RabbitServer,
    transports::{assert_no_task_is_left, expected, publish, take},
};

/// A client that trusts the server's authority works, and a client that trusts only the system's
/// fails in time.
async fn check_trust(trusting: &dyn Transport, other: &dyn Transport) {
    let mut messages = trusting.subscribe().await.unwrap().messages;
    publish(trusting, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    let since = Instant::now();
    let error = other.publish(b"message").await.unwrap_err();
    assert!(since.elapsed() < ms(3_500), "{:?}", since.elapsed());
    let text = error_chain(&*error);
    assert!(text.contains("UnknownIssuer"), "{text}");
    other.subscribe().await.err().unwrap();
}

fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("{error} {error:?}; "))
        .collect()
}

#[tokio::test]
async fn nats_over_tls() {
    let server = NatsServer::start_with_tls();
    let url = server.url().replace("nats://", "tls://");
    let connection = |url: &str, tls| NatsConnection::default().servers([url]).tls(tls);
    let tls = TlsOptions::default().ca_file(server.authority());
    let core =
        |connection| NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let trusting = core(connection(&url, tls.clone()));
    check_trust(&trusting, &core(connection(&url, TlsOptions::default()))).await;
    // Without `tls://` in the URL, the server asks for TLS.
    let stream = |connection| {
        let options = JetStreamOptions::durable("a").subject("stream.it").connection(connection);
        JetStreamTransport::new(options).unwrap()
    };
    let trusting = stream(connection(&server.url(), tls));
    let other = stream(connection(&server.url(), TlsOptions::default()));
    check_trust(&trusting, &other).await;
}

#[tokio::test]
async fn rabbitmq_over_tls() {
    let (_server, port, authority) = RabbitServer::start_with_tls();
    let options = RabbitMqOptions::new(format!("amqps://guest:guest@localhost:{port}/%2f"));
    let tls = TlsOptions::required().ca_file(authority);
    let trusting = RabbitMqTransport::new(options.clone().tls(tls)).unwrap();
    let other = RabbitMqTransport::new(options).unwrap();
    check_trust(&trusting, &other).await;
    drop((trusting, other));
    assert_no_task_is_left().await;
}

#[cfg(feature = "redis-tls")]
#[tokio::test]
async fn redis_over_tls() {
    use crate::support::redis::RedisServer;
    use lazy_layers_cache::RedisTransport;

    let server = RedisServer::start_with_tls();
    let authority = std::fs::read(server.authority()).unwrap();
    let at = || RedisTransport::at(server.url());
    let trusting = at().root_certificates(authority).build().unwrap();
    check_trust(&trusting, &at().build().unwrap()).await;
    drop(trusting);
    assert_no_task_is_left().await;
}

#[tokio::test]
async fn the_error_names_a_file_without_a_certificate() {
    let tls = TlsOptions::required().ca_file("/dev/null");
    let connection = NatsConnection::default().tls(tls.clone());
    let nats = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let rabbitmq = RabbitMqTransport::new(RabbitMqOptions::new("amqps://localhost").tls(tls));
    for error in [
        nats.publish(b"message").await.unwrap_err(),
        rabbitmq.unwrap().publish(b"message").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("/dev/null"), "{error}");
    }
}

#[test]
fn a_url_without_tls_is_refused_where_a_certificate_is_named() {
    let tls = TlsOptions::default().ca_file("/dev/null");
    let error = RabbitMqTransport::new(RabbitMqOptions::new("amqp://localhost").tls(tls));
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains("amqps://"), "{error}");
}
