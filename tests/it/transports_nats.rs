//! The transport over NATS core, against a real server.

use std::time::{Duration, Instant};

use async_nats::RequestErrorKind;
use futures_util::StreamExt;
use lazy_layers_cache::{
    Delivery, NatsConnection, NatsOptions, NatsTransport, TlsOptions, Transport,
};

use crate::support::{
    ms,
    nats::NatsServer,
    transports::{
        PATIENCE, TRUST, assert_no_task_is_left, check_delivery_in_order,
        check_subscribe_misses_nothing, expected, loss, next, publish, retry, take,
    },
};

fn options(server: &NatsServer) -> NatsOptions {
    NatsOptions::default()
        .connection(NatsConnection::default().servers([server.url()]).confirm_timeout(ms(1_000)))
}

fn transport(server: &NatsServer) -> NatsTransport {
    NatsTransport::new(options(server)).unwrap()
}

async fn client(server: &NatsServer) -> async_nats::Client {
    async_nats::connect(server.url()).await.unwrap()
}

/// Returns the subscription when the server has it, since an echo that was published later is back.
async fn subscribed(client: &async_nats::Client, subject: &'static str) -> async_nats::Subscriber {
    let messages = client.subscribe(subject).await.unwrap();
    let mut echoes = client.subscribe("test.echo").await.unwrap();
    client.publish("test.echo", "".into()).await.unwrap();
    echoes.next().await.unwrap();
    messages
}

#[tokio::test]
async fn every_instance_receives_every_message_in_order() {
    let server = NatsServer::start();
    check_delivery_in_order(&transport(&server), &transport(&server)).await;
}

#[tokio::test]
async fn a_subscription_in_force_misses_nothing() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server), transport(&server));
    check_subscribe_misses_nothing(&publisher, &subscriber, 200).await;
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_and_a_new_one_works_after_its_restart() {
    let mut server = NatsServer::start();
    let transport = transport(&server);
    let mut messages = transport.subscribe().await.unwrap().messages;
    server.kill();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    assert_eq!(next(&mut *messages).await, Delivery::Closed, "it stays closed");
    transport.publish(b"lost").await.unwrap_err();
    transport.subscribe().await.err().unwrap();

    server.restart();
    let subscribed = retry(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    let mut messages = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_quick_restart_of_the_server_also_ends_the_subscription() {
    let mut server = NatsServer::start();
    let ours = transport(&server);
    let theirs = NatsTransport::with_client(client(&server).await, options(&server)).unwrap();
    for transport in [&ours, &theirs] {
        let mut messages = transport.subscribe().await.unwrap().messages;
        server.restart();
        assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
        let mut messages = retry(async || transport.subscribe().await).await.messages;
        publish(transport, 0..1).await;
        assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    }
}

#[tokio::test]
async fn a_frozen_server_ends_the_subscription_and_fails_a_publish_in_time() {
    let server = NatsServer::start();
    let ours = transport(&server);
    // The client alone would notice after minutes.
    let theirs = NatsTransport::with_client(client(&server).await, options(&server)).unwrap();
    for transport in [&ours, &theirs] {
        let mut messages = transport.subscribe().await.unwrap().messages;
        server.freeze();
        let since = Instant::now();
        transport.publish(b"nobody answers").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
        assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
        assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
        let since = Instant::now();
        transport.publish(b"nobody answers").await.unwrap_err();
        assert!(since.elapsed() < ms(4_500), "{:?}", since.elapsed());
        server.thaw();
        let mut messages = retry(async || transport.subscribe().await).await.messages;
        transport.publish(b"again").await.unwrap();
        while next(&mut *messages).await != Delivery::Message(b"again".to_vec()) {}
    }
}

#[tokio::test]
async fn a_frozen_server_ends_an_idle_subscription() {
    let server = NatsServer::start();
    let mut messages = transport(&server).subscribe().await.unwrap().messages;
    server.freeze();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
}

#[tokio::test]
async fn a_slow_subscriber_receives_a_gap() {
    let server = NatsServer::start();
    let slow = NatsTransport::new(options(&server).queue_capacity(10)).unwrap();
    let theirs =
        NatsTransport::with_client(client(&server).await, options(&server).queue_capacity(10))
            .unwrap();
    for slow in [slow, theirs] {
        let mut messages = slow.subscribe().await.unwrap().messages;
        publish(&slow, 0..100).await;
        assert_eq!(next(&mut *messages).await, Delivery::Gap);
        let Delivery::Message(first) = next(&mut *messages).await else { panic!("no message") };
        let first: usize = String::from_utf8(first).unwrap().parse().unwrap();
        assert!(first >= 90, "{first}");
        assert_eq!(take(&mut *messages, 99 - first).await, expected(first + 1..100));
        publish(&slow, 100..101).await;
        assert_eq!(take(&mut *messages, 1).await, expected(100..101), "the gap is delivered once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_behind_all_messages_that_were_published_before_it() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server), transport(&server));
    let mut probed = subscriber.subscribe().await.unwrap();
    let mut others = publisher.subscribe().await.unwrap();
    for round in 0..300 {
        let sent = round * 5..(round + 1) * 5;
        publish(&publisher, sent.clone()).await;
        probed.prober.send(round as u64).await.unwrap();
        let came = take(&mut *probed.messages, 6).await;
        assert_eq!(came[..5], expected(sent.clone()));
        assert_eq!(came[5], Delivery::Probe(round as u64));
        assert_eq!(take(&mut *others.messages, 5).await, expected(sent), "it is private");
    }
}

#[tokio::test]
async fn a_beacon_reaches_every_instance_on_a_subject_of_its_own() {
    let server = NatsServer::start();
    let (one, other) = (transport(&server), transport(&server));
    let client = client(&server).await;
    let mut published = subscribed(&client, "cache.invalidations").await;
    let mut announced = subscribed(&client, "cache.invalidations.beacons").await;
    let mut first = one.subscribe().await.unwrap().messages;
    let mut second = other.subscribe().await.unwrap().messages;
    one.announce(b"beacon").await.unwrap();
    for messages in [&mut first, &mut second] {
        assert_eq!(next(&mut **messages).await, Delivery::Message(b"beacon".to_vec()));
    }
    one.publish(b"message").await.unwrap();
    assert_eq!(announced.next().await.unwrap().payload, "beacon");
    assert_eq!(published.next().await.unwrap().payload, "message");
}

#[tokio::test]
async fn a_dropped_subscription_leaves_nothing_on_the_server() {
    let server = NatsServer::start();
    let transport = transport(&server);
    let client = client(&server).await;
    let mut inboxes = subscribed(&client, "_INBOX.>").await;
    let subscribed = transport.subscribe().await.unwrap();
    subscribed.prober.send(4_711).await.unwrap();
    let probes = loop {
        let message = inboxes.next().await.unwrap();
        if message.payload == "4711" {
            break message.subject.to_string();
        }
    };
    inboxes.unsubscribe().await.unwrap();
    drop(subscribed);
    for subject in ["cache.invalidations", "cache.invalidations.beacons", &probes] {
        retry(async || match client.request(subject.to_owned(), "".into()).await {
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
            other => Err(format!("{subject}: {other:?}")),
        })
        .await;
    }
    assert!(transport.ping().await.is_ok(), "the transport is still connected");
}

#[tokio::test]
async fn disconnect_ends_subscriptions_and_the_next_call_connects_anew() {
    let server = NatsServer::start();
    let transport = transport(&server);
    let mut messages = transport.subscribe().await.unwrap().messages;
    transport.disconnect().await.unwrap();
    assert_eq!(next(&mut *messages).await, Delivery::Closed);
    drop(messages);
    assert_no_task_is_left().await;
    transport.ping().await.unwrap();
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_task() {
    let mut server = NatsServer::start();
    let transport = transport(&server);
    let mut messages = transport.subscribe().await.unwrap().messages;
    drop(transport);
    assert!(
        tokio::time::timeout(ms(50), messages.next()).await.is_err(),
        "a subscription outlives its transport"
    );
    drop(messages);
    assert_no_task_is_left().await;

    // A lost server leaves no task either.
    let transport = NatsTransport::new(options(&server)).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    server.kill();
    loss(&mut *messages).await;
    assert_no_task_is_left().await;
    drop((transport, messages));
}

#[test]
fn everything_can_be_dropped_outside_of_a_runtime() {
    let server = NatsServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let transport = transport(&server);
    let subscribed = runtime.block_on(transport.subscribe()).unwrap();
    let half_done = {
        let mut subscribing = transport.subscribe();
        let waker = std::task::Waker::noop();
        runtime.block_on(async {
            let _ = subscribing.as_mut().poll(&mut std::task::Context::from_waker(waker));
        });
        subscribing
    };
    drop(half_done);
    drop(subscribed);
    drop(transport);
    drop(runtime);
}

#[test]
fn a_call_without_a_runtime_is_an_error_and_no_panic() {
    let transport = NatsTransport::new(NatsOptions::default()).unwrap();
    let mut publishing = transport.publish(b"message");
    let waker = std::task::Waker::noop();
    let polled = publishing.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(matches!(polled, std::task::Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_silent_server_fails_every_call_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("nats://{}", silent.local_addr().unwrap());
    let connection = NatsConnection::default().servers([server]).connect_timeout(ms(300));
    let transport = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let since = Instant::now();
    let publishes: Vec<_> = (0..20).map(|_| transport.publish(b"message")).collect();
    for result in futures_util::future::join_all(publishes).await {
        result.unwrap_err();
    }
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_no_task_is_left().await;
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Wrong = fn(NatsOptions) -> NatsOptions;
    fn with(change: impl FnOnce(NatsConnection) -> NatsConnection) -> NatsOptions {
        NatsOptions::default().connection(change(NatsConnection::default()))
    }
    let refused: [(&str, Wrong); 17] = [
        ("subject", |it| it.subject("")),
        ("subject", |it| it.subject("cache.*")),
        ("subject", |it| it.subject("cache..x")),
        ("subject", |it| it.subject("$JS.x")),
        ("queue_capacity", |it| it.queue_capacity(0)),
        ("queue_max_bytes", |it| it.queue_max_bytes(0)),
        ("connection.servers", |_| with(|it| it.servers::<String>([]))),
        ("connection.servers", |_| with(|it| it.servers(["http://localhost"]))),
        ("connection.servers", |_| with(|it| it.servers(["nats://u:p@a", "nats://b"]))),
        ("connection.servers", |_| with(|it| it.servers(["nats://u:%zz@a"]))),
        ("connection.token", |_| with(|it| it.token("t").user("u").password("p"))),
        ("connection.token", |_| with(|it| it.token("t").servers(["nats://u:p@localhost"]))),
        ("connection.tls", |_| with(|it| it.tls(TlsOptions::required().client_cert("cert.pem")))),
        ("connection.connect_timeout", |_| with(|it| it.connect_timeout(ms(0)))),
        ("connection.confirm_timeout", |_| with(|it| it.confirm_timeout(ms(0)))),
        ("connection.heartbeat", |_| with(|it| it.heartbeat(ms(1)))),
        ("connection.user", |_| with(|it| it.user("u"))),
    ];
    for (option, wrong) in refused {
        let error = NatsTransport::new(wrong(NatsOptions::default())).unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_show_no_secret() {
    let options: NatsOptions = toml::from_str(
        r#"
        subject = "shop.invalidations"
        [connection]
        servers = ["nats://user:hunter2@localhost:4222"]
        name = "shop-1"
        token = "hunter2"
        heartbeat = "2s"
        tls = { required = true, ca_file = "ca.pem" }
        "#,
    )
    .unwrap();
    let expected = NatsOptions::default().subject("shop.invalidations").connection(
        NatsConnection::default()
            .servers(["nats://user:hunter2@localhost:4222"])
            .name("shop-1")
            .token("hunter2")
            .heartbeat(Duration::from_secs(2))
            .tls(TlsOptions::required().ca_file("ca.pem")),
    );
    assert_eq!(options, expected);
    assert!(!format!("{options:?}").contains("hunter2"));
    assert!(PATIENCE > options.connection.connect_timeout);
}
