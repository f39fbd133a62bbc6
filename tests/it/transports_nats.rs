//! Events over NATS core, with a real server.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    Delivery, NatsConnection, NatsOptions, NatsTransport, TlsOptions, Transport,
};

use crate::support::{
    ms,
    nats::NatsServer,
    transports::{
        PATIENCE, TRUST, a_subscription_begins_before_it_returns,
        everyone_gets_everything_in_order, expected, loss, next, no_task_is_left, publish, take,
        until_it_works,
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

#[tokio::test]
async fn every_instance_gets_every_event_in_order() {
    let server = NatsServer::start();
    everyone_gets_everything_in_order(&transport(&server), &transport(&server)).await;
}

#[tokio::test]
async fn a_subscription_that_has_returned_misses_nothing() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server), transport(&server));
    a_subscription_begins_before_it_returns(&publisher, &subscriber, 200).await;
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_and_a_new_one_works_once_it_is_back() {
    let mut server = NatsServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    assert_eq!(next(&mut *events).await, Delivery::Closed, "and stays so");
    transport.publish(b"lost").await.unwrap_err();
    transport.subscribe().await.err().unwrap();

    server.restart();
    let subscribed = until_it_works(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    let mut events = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_server_that_comes_back_at_once_has_lost_events_all_the_same() {
    let mut server = NatsServer::start();
    let ours = transport(&server);
    let theirs = NatsTransport::with_client(client(&server).await, options(&server)).unwrap();
    for transport in [&ours, &theirs] {
        let mut events = transport.subscribe().await.unwrap().messages;
        server.restart();
        assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
        let mut events = until_it_works(async || transport.subscribe().await).await.messages;
        publish(transport, 0..1).await;
        assert_eq!(take(&mut *events, 1).await, expected(0..1));
    }
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_fails_a_publish_in_time() {
    let server = NatsServer::start();
    let ours = transport(&server);
    // This client itself would notice after minutes.
    let theirs = NatsTransport::with_client(client(&server).await, options(&server)).unwrap();
    for transport in [&ours, &theirs] {
        let mut events = transport.subscribe().await.unwrap().messages;
        server.freeze();
        let since = Instant::now();
        transport.publish(b"nobody answers").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
        assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
        assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
        let since = Instant::now();
        transport.publish(b"nobody answers").await.unwrap_err();
        assert!(since.elapsed() < ms(4_500), "{:?}", since.elapsed());
        server.thaw();
        let mut events = until_it_works(async || transport.subscribe().await).await.messages;
        transport.publish(b"again").await.unwrap();
        while next(&mut *events).await != Delivery::Message(b"again".to_vec()) {}
    }
}

#[tokio::test]
async fn an_idle_subscription_notices_a_frozen_server_by_itself() {
    let server = NatsServer::start();
    let mut events = transport(&server).subscribe().await.unwrap().messages;
    server.freeze();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
}

#[tokio::test]
async fn whoever_falls_behind_is_told_of_a_gap() {
    let server = NatsServer::start();
    let slow = NatsTransport::new(options(&server).queue_capacity(10)).unwrap();
    let theirs =
        NatsTransport::with_client(client(&server).await, options(&server).queue_capacity(10))
            .unwrap();
    for slow in [slow, theirs] {
        let mut events = slow.subscribe().await.unwrap().messages;
        publish(&slow, 0..100).await;
        assert_eq!(next(&mut *events).await, Delivery::Gap);
        let Delivery::Message(first) = next(&mut *events).await else { panic!("no event") };
        let first: usize = String::from_utf8(first).unwrap().parse().unwrap();
        assert!(first >= 90, "{first}");
        assert_eq!(take(&mut *events, 99 - first).await, expected(first + 1..100));
        publish(&slow, 100..101).await;
        assert_eq!(take(&mut *events, 1).await, expected(100..101), "one gap, told once");
    }
}

#[tokio::test]
async fn disconnecting_ends_subscriptions_and_the_next_call_connects_anew() {
    let server = NatsServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    transport.disconnect().await.unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Closed);
    drop(events);
    no_task_is_left().await;
    transport.ping().await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_transport_that_was_dropped() {
    let mut server = NatsServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    drop(transport);
    assert!(
        tokio::time::timeout(ms(50), events.next()).await.is_err(),
        "a subscription outlives its transport"
    );
    drop(events);
    no_task_is_left().await;

    // Nor of one whose server has gone.
    let transport = NatsTransport::new(options(&server)).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    loss(&mut *events).await;
    no_task_is_left().await;
    drop((transport, events));
}

#[test]
fn all_of_it_may_be_dropped_outside_of_a_runtime() {
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
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let transport = NatsTransport::new(NatsOptions::default()).unwrap();
    let mut publishing = transport.publish(b"event");
    let waker = std::task::Waker::noop();
    let polled = publishing.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(matches!(polled, std::task::Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_server_that_does_not_answer_fails_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("nats://{}", silent.local_addr().unwrap());
    let connection = NatsConnection::default().servers([server]).connect_timeout(ms(300));
    let transport = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    let since = Instant::now();
    let publishes: Vec<_> = (0..20).map(|_| transport.publish(b"event")).collect();
    for result in futures_util::future::join_all(publishes).await {
        result.unwrap_err();
    }
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    no_task_is_left().await;
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Wrong = fn(NatsOptions) -> NatsOptions;
    fn with(change: impl FnOnce(NatsConnection) -> NatsConnection) -> NatsOptions {
        NatsOptions::default().connection(change(NatsConnection::default()))
    }
    let refused: [(&str, Wrong); 13] = [
        ("subject", |it| it.subject("")),
        ("subject", |it| it.subject("cache.*")),
        ("subject", |it| it.subject("cache..x")),
        ("subject", |it| it.subject("$JS.x")),
        ("queue_capacity", |it| it.queue_capacity(0)),
        ("connection.servers", |_| with(|it| it.servers::<String>([]))),
        ("connection.servers", |_| with(|it| it.servers(["http://localhost"]))),
        ("connection.token", |_| with(|it| it.token("t").user("u").password("p"))),
        ("connection.tls", |_| {
            with(|it| {
                let mut tls = TlsOptions::required();
                tls.client_cert = Some("cert.pem".into());
                it.tls(tls)
            })
        }),
        ("connection.connect_timeout", |_| with(|it| it.connect_timeout(ms(0)))),
        ("connection.confirm_timeout", |_| with(|it| it.confirm_timeout(ms(0)))),
        ("connection.heartbeat", |_| with(|it| it.heartbeat(ms(1)))),
        ("connection.user", |_| {
            with(|it| {
                let mut it = it.user("u").password("p");
                it.password = None;
                it
            })
        }),
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
