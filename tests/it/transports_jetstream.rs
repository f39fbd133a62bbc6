//! Events over NATS JetStream, with a real server.

use std::time::{Duration, Instant};

use async_nats::jetstream::{
    self,
    consumer::pull,
    stream::{Config, Stream},
};
use lazy_layers_cache::{
    Delivery, JetStreamOptions, JetStreamStorage, JetStreamTransport, MessageStream,
    NatsConnection, Transport,
};
use tokio::time::timeout;

use crate::support::{
    ms,
    nats::NatsServer,
    transports::{
        TRUST, a_subscription_begins_before_it_returns, event, everyone_gets_everything_in_order,
        expected, loss, next, no_task_is_left, publish, take, until_it_works,
    },
};

fn options(server: &NatsServer, name: &str) -> JetStreamOptions {
    JetStreamOptions::durable(name)
        .connection(NatsConnection::default().servers([server.url()]).confirm_timeout(ms(1_000)))
}

fn transport(server: &NatsServer, name: &str) -> JetStreamTransport {
    JetStreamTransport::new(options(server, name)).unwrap()
}

async fn admin(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

async fn stream(server: &NatsServer) -> Stream {
    admin(server).await.get_stream("CACHE_INVALIDATIONS").await.unwrap()
}

/// Says that all that came was dealt with.
async fn settle(events: &mut dyn MessageStream) {
    timeout(ms(50), events.next()).await.expect_err("nothing more comes");
}

#[tokio::test]
async fn every_instance_gets_every_event_in_order() {
    let server = NatsServer::start();
    everyone_gets_everything_in_order(&transport(&server, "a"), &transport(&server, "b")).await;
}

#[tokio::test]
async fn a_subscription_that_has_returned_misses_nothing() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    a_subscription_begins_before_it_returns(&publisher, &subscriber, 200).await;
}

#[tokio::test]
async fn the_first_subscription_begins_now_and_does_not_resume() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    publish(&publisher, 0..3).await;
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    publish(&publisher, 3..4).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(3..4));
}

#[tokio::test]
async fn what_was_published_meanwhile_comes_when_the_subscriber_is_back() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    let mut events = subscriber.subscribe().await.unwrap().messages;
    publish(&publisher, 0..5).await;
    assert_eq!(take(&mut *events, 5).await, expected(0..5));
    settle(&mut *events).await;
    drop(events);
    publish(&publisher, 5..300).await;
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    assert_eq!(take(&mut *subscribed.messages, 295).await, expected(5..300));
}

#[tokio::test]
async fn an_event_that_was_not_dealt_with_comes_again_and_in_order() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    drop(events);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    publish(&transport, 5..6).await;
    assert_eq!(take(&mut *subscribed.messages, 4).await, expected(2..6));
}

#[tokio::test]
async fn another_process_of_the_same_name_goes_on_with_what_was_left_undone() {
    let server = NatsServer::start();
    let before = transport(&server, "a");
    let mut events = before.subscribe().await.unwrap().messages;
    publish(&before, 0..5).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    drop((events, before));
    let mut subscribed = transport(&server, "a").subscribe().await.unwrap();
    assert!(!subscribed.resumed, "its cache is empty, and nothing is known about before");
    assert_eq!(take(&mut *subscribed.messages, 3).await, expected(2..5));
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_which_resumes_once_it_is_back() {
    let mut server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 2).await, expected(0..2));
    server.kill();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    transport.publish(b"lost").await.unwrap_err();

    server.restart();
    let mut subscribed = until_it_works(async || transport.subscribe().await).await;
    assert!(subscribed.resumed);
    publish(&transport, 3..5).await;
    // The third had been brought, and asking for more said that it was dealt with.
    let mut came = take(&mut *subscribed.messages, 2).await;
    if came == expected(2..4) {
        came = [expected(3..4), take(&mut *subscribed.messages, 1).await].concat();
    }
    assert_eq!(came, expected(3..5));
}

#[tokio::test]
async fn a_stream_in_memory_is_lost_with_its_server_and_does_not_resume() {
    let mut server = NatsServer::start();
    let options = options(&server, "a").storage(JetStreamStorage::Memory);
    let transport = JetStreamTransport::new(options).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    server.restart();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut subscribed = until_it_works(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    publish(&transport, 3..4).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(3..4));
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_fails_a_publish_in_time() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut events = transport.subscribe().await.unwrap().messages;
    server.freeze();
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
    server.thaw();
    let subscribed = until_it_works(async || transport.subscribe().await).await;
    assert!(subscribed.resumed);
    publish(&transport, 0..1).await;
}

#[tokio::test]
async fn a_deleted_consumer_ends_the_subscription() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    settle(&mut *events).await;
    stream(&server).await.delete_consumer("a").await.unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    publish(&transport, 3..5).await;
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed, "the stream still has everything");
    assert_eq!(take(&mut *subscribed.messages, 2).await, expected(3..5));
}

#[tokio::test]
async fn a_deleted_stream_ends_the_subscription_and_a_new_one_does_not_resume() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    admin(&server).await.delete_stream("CACHE_INVALIDATIONS").await.unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    // Publishing makes a new stream, with as many events as the old one had.
    publish(&transport, 3..9).await;
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    publish(&transport, 9..10).await;
    while next(&mut *subscribed.messages).await != Delivery::Message(event(9)) {}
}

/// The server removes its files after it has freed its name.
#[tokio::test]
async fn a_deleted_stream_is_left_alone_for_a_while_before_it_is_made_anew() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    publish(&transport, 0..3).await;
    admin(&server).await.delete_stream("CACHE_INVALIDATIONS").await.unwrap();
    let since = Instant::now();
    publish(&transport, 3..4).await;
    assert!(since.elapsed() >= ms(500), "{:?}", since.elapsed());
    assert_eq!(stream(&server).await.get_info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn what_the_stream_did_not_keep_is_told_as_a_gap() {
    let server = NatsServer::start();
    let options = options(&server, "a").max_messages(10).prefetch(5);
    let transport = JetStreamTransport::new(options).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..100).await;
    let mut came = Vec::new();
    while came.last() != Some(&Delivery::Message(event(99))) {
        came.push(next(&mut *events).await);
    }
    assert!(came.contains(&Delivery::Gap), "{came:?}");
    let after = came.iter().rposition(|it| *it == Delivery::Gap).unwrap();
    assert_eq!(came[after + 1..], expected(100 - (came.len() - after - 1)..100));

    // While it was away: not resumed.
    settle(&mut *events).await;
    drop(events);
    publish(&transport, 100..150).await;
    assert!(!transport.subscribe().await.unwrap().resumed);
}

#[tokio::test]
async fn what_was_purged_before_it_was_brought_is_told_without_an_event_after_it() {
    let server = NatsServer::start();
    let transport = JetStreamTransport::new(options(&server, "a").prefetch(1)).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
    stream(&server).await.purge().await.unwrap();
    let mut came = next(&mut *events).await;
    while came != Delivery::Gap {
        came = next(&mut *events).await;
    }
}

#[tokio::test]
async fn a_gap_that_was_not_dealt_with_is_not_forgotten_by_the_next_subscription() {
    let server = NatsServer::start();
    let transport = JetStreamTransport::new(options(&server, "a").prefetch(1)).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
    for sequence in [3, 4] {
        stream(&server).await.delete_message(sequence).await.unwrap();
    }
    while next(&mut *events).await != Delivery::Gap {}
    drop(events);
    assert!(!transport.subscribe().await.unwrap().resumed);
}

#[tokio::test]
async fn streams_and_consumers_that_were_set_up_elsewhere_are_used_as_they_are() {
    let server = NatsServer::start();
    let options = options(&server, "a").ensure_stream(false).ensure_consumer(false);
    let transport = JetStreamTransport::new(options).unwrap();
    transport.subscribe().await.err().expect("no stream");
    transport.publish(b"event").await.unwrap_err();
    transport.ping().await.unwrap_err();
    let stream = admin(&server)
        .await
        .create_stream(Config {
            name: "CACHE_INVALIDATIONS".to_owned(),
            subjects: vec!["cache.invalidations".to_owned()],
            ..Config::default()
        })
        .await
        .unwrap();
    transport.subscribe().await.err().expect("no consumer");
    transport.publish(b"event").await.unwrap();
    let config = pull::Config {
        durable_name: Some("a".to_owned()),
        ack_wait: ms(300),
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap();
    let created = stream.consumer_info("a").await.unwrap().created;

    let mut events = transport.subscribe().await.unwrap().messages;
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
    publish(&transport, 0..2).await;
    assert_eq!(take(&mut *events, 2).await, expected(0..2));
    settle(&mut *events).await;
    drop(events);
    publish(&transport, 2..4).await;
    let subscribed = until_it_works(async || {
        // The server takes a moment to hear of the last acknowledgement.
        transport
            .subscribe()
            .await
            .map_err(|error| error.to_string())
            .and_then(|it| if it.resumed { Ok(it) } else { Err("not resumed".to_owned()) })
    })
    .await;
    let mut events = subscribed.messages;
    assert_eq!(take(&mut *events, 2).await, expected(2..4));
    assert_eq!(stream.consumer_info("a").await.unwrap().created, created);
    // The last one was not dealt with, and comes again, but not at once.
    drop(events);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(3..4));
}

#[tokio::test]
async fn without_jetstream_the_errors_say_so() {
    let server = NatsServer::start_without_jetstream();
    let transport = transport(&server, "a");
    let error = transport.subscribe().await.err().unwrap().to_string();
    assert!(error.contains("-js"), "{error}");
    let error = transport.ping().await.unwrap_err().to_string();
    assert!(error.contains("-js"), "{error}");
    transport.publish(b"event").await.unwrap_err();
}

#[tokio::test]
async fn a_subject_that_another_stream_takes_is_an_error() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let other = Config {
        name: "OTHER".to_owned(),
        subjects: vec!["cache.*".to_owned()],
        ..Config::default()
    };
    admin(&server).await.create_stream(other).await.unwrap();
    let error = transport.publish(b"event").await.unwrap_err().to_string();
    assert!(error.contains("OTHER"), "{error}");
}

#[tokio::test]
async fn nothing_is_left_of_a_transport_that_was_dropped() {
    let mut server = NatsServer::start();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let transport = transport(&server, "a");
        let mut events = transport.subscribe().await.unwrap().messages;
        publish(&transport, 0..1).await;
        assert_eq!(take(&mut *events, 1).await, expected(0..1));
        drop((transport, events));
        no_task_is_left().await;

        let transport = JetStreamTransport::new(options(&server, "a")).unwrap();
        let mut events = transport.subscribe().await.unwrap().messages;
        transport.disconnect().await.unwrap();
        assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
        transport.subscribe().await.unwrap();
        server.restart();
        kept.push((transport, events));
    }
    drop(kept);
    no_task_is_left().await;
}

#[test]
fn a_subscription_may_be_dropped_outside_of_a_runtime() {
    let server = NatsServer::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let transport = transport(&server, "a");
    let subscribed = runtime.block_on(transport.subscribe()).unwrap();
    drop(runtime);
    drop(subscribed);
    drop(transport);
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Wrong = fn(JetStreamOptions) -> JetStreamOptions;
    let refused: [(&str, Wrong); 14] = [
        ("durable_name", |_| JetStreamOptions::default()),
        ("durable_name", |_| JetStreamOptions::durable("a.b")),
        ("subject", |it| it.subject("cache.>")),
        ("stream", |it| it.stream("")),
        ("stream", |it| it.stream("a b")),
        ("max_age", |it| it.max_age(ms(0))),
        ("max_messages", |it| it.max_messages(0)),
        ("max_messages", |it| it.max_messages(u64::MAX)),
        ("replicas", |it| it.replicas(6)),
        ("ack_wait", |it| it.ack_wait(ms(0))),
        ("max_deliver", |it| it.max_deliver(0)),
        ("prefetch", |it| it.prefetch(0)),
        ("inactive_threshold", |it| it.inactive_threshold(ms(1))),
        ("connection.servers", |it| it.connection(NatsConnection::default().servers::<String>([]))),
    ];
    for (option, wrong) in refused {
        let error = JetStreamTransport::new(wrong(JetStreamOptions::durable("a"))).unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_have_the_defaults_of_the_documents() {
    let options: JetStreamOptions = toml::from_str(
        r#"
        durable_name = "shop-1-cache"
        storage = "memory"
        max_age = "24h"
        "#,
    )
    .unwrap();
    let expected = JetStreamOptions::durable("shop-1-cache")
        .storage(JetStreamStorage::Memory)
        .max_age(Duration::from_secs(86_400));
    assert_eq!(options, expected);

    let options = JetStreamOptions::default();
    assert_eq!(options.subject, "cache.invalidations");
    assert_eq!(options.stream, "CACHE_INVALIDATIONS");
    assert_eq!(options.storage, JetStreamStorage::File);
    assert_eq!((options.max_age, options.max_messages), (None, None));
    assert_eq!((options.ack_wait, options.max_deliver), (ms(30_000), 10));
    assert!(options.ensure_stream && options.ensure_consumer);
}
