//! The transport over NATS JetStream, against a real server.

use std::time::{Duration, Instant};

use async_nats::jetstream::{
    self,
    consumer::pull,
    stream::{Config, Stream},
};
use lazy_layers_cache::{
    CacheManager, Delivery, EventBus, JetStreamOptions, JetStreamStorage, JetStreamTransport,
    MessageStream, NatsConnection, Transport,
};
use tokio::time::timeout;

use crate::support::{
    ms,
    nats::NatsServer,
    transports::{
        TRUST, assert_no_task_is_left, check_delivery_in_order, check_subscribe_misses_nothing,
        expected, loss, message, next, publish, retry, take,
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

/// Asks for one more message, which acknowledges all that arrived.
async fn settle(messages: &mut dyn MessageStream) {
    timeout(ms(50), messages.next()).await.expect_err("no further message arrives");
}

#[tokio::test]
async fn every_instance_receives_every_message_in_order() {
    let server = NatsServer::start();
    check_delivery_in_order(&transport(&server, "a"), &transport(&server, "b")).await;
}

#[tokio::test]
async fn the_caches_of_a_manager_share_a_consumer() {
    let server = NatsServer::start();
    let bus = EventBus::new(transport(&server, "a"));
    let manager = CacheManager::builder().event_bus(bus).build().unwrap();
    let build = |name: &str| manager.cache::<u64, String>(name).build().unwrap();
    let caches: Vec<_> = (0..20).map(|number| build(&format!("cache-{number}"))).collect();
    manager.ready().await.unwrap();
    for cache in &caches {
        assert!(cache.delete(&7).await.unwrap().settled(ms(10_000)).await);
    }
    let state = stream(&server).await.cached_info().state.clone();
    assert_eq!((state.messages, state.consumer_count), (20, 1));
    manager.close().await;
}

#[tokio::test]
async fn a_subscription_in_force_misses_nothing() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    check_subscribe_misses_nothing(&publisher, &subscriber, 200).await;
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
async fn a_subscriber_receives_messages_from_its_absence_when_it_resumes() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    let mut messages = subscriber.subscribe().await.unwrap().messages;
    publish(&publisher, 0..5).await;
    assert_eq!(take(&mut *messages, 5).await, expected(0..5));
    settle(&mut *messages).await;
    drop(messages);
    publish(&publisher, 5..300).await;
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    assert_eq!(take(&mut *subscribed.messages, 295).await, expected(5..300));
}

#[tokio::test]
async fn an_unacknowledged_message_is_redelivered_in_order() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    drop(messages);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    publish(&transport, 5..6).await;
    assert_eq!(take(&mut *subscribed.messages, 4).await, expected(2..6));
}

#[tokio::test]
async fn another_process_of_the_same_name_receives_the_unacknowledged_messages() {
    let server = NatsServer::start();
    let before = transport(&server, "a");
    let mut messages = before.subscribe().await.unwrap().messages;
    publish(&before, 0..5).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    drop((messages, before));
    let mut subscribed = transport(&server, "a").subscribe().await.unwrap();
    assert!(!subscribed.resumed, "a new process does not know what its predecessor applied");
    assert_eq!(take(&mut *subscribed.messages, 3).await, expected(2..5));
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_which_resumes_after_its_restart() {
    let mut server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 2).await, expected(0..2));
    server.kill();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    transport.publish(b"lost").await.unwrap_err();

    server.restart();
    let mut subscribed = retry(async || transport.subscribe().await).await;
    assert!(subscribed.resumed);
    publish(&transport, 3..5).await;
    // The third message may have been delivered and acknowledged while `loss` waited.
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
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    server.restart();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    let mut subscribed = retry(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    publish(&transport, 3..4).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(3..4));
}

#[tokio::test]
async fn a_frozen_server_ends_the_subscription_and_fails_a_publish_in_time() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    server.freeze();
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
    server.thaw();
    let subscribed = retry(async || transport.subscribe().await).await;
    assert!(subscribed.resumed);
    publish(&transport, 0..1).await;
}

#[tokio::test]
async fn a_deleted_consumer_ends_the_subscription() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    settle(&mut *messages).await;
    stream(&server).await.delete_consumer("a").await.unwrap();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    publish(&transport, 3..5).await;
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed, "the stream still has everything");
    assert_eq!(take(&mut *subscribed.messages, 2).await, expected(3..5));
}

#[tokio::test]
async fn a_consumer_ends_a_day_after_its_instance_and_the_instance_resumes_without_it() {
    let server = NatsServer::start();
    let forever = options(&server, "b").inactive_threshold(ms(0));
    let forever = JetStreamTransport::new(forever).unwrap();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    forever.subscribe().await.unwrap();
    let stream = stream(&server).await;
    let threshold =
        async |name: &str| stream.consumer_info(name).await.unwrap().config.inactive_threshold;
    assert_eq!(threshold("a").await, Duration::from_secs(86_400));
    assert_eq!(threshold("b").await, ms(0));
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    settle(&mut *messages).await;
    drop(messages);
    // The server does the same to a consumer whose time has come.
    stream.delete_consumer("a").await.unwrap();
    publish(&transport, 3..5).await;
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed, "the process knows its position");
    assert_eq!(take(&mut *subscribed.messages, 2).await, expected(3..5));
    stream.delete_consumer("a").await.unwrap();
    let options = options(&server, "a");
    let mut subscribed = JetStreamTransport::new(options).unwrap().subscribe().await.unwrap();
    assert!(!subscribed.resumed, "a new process does not");
    publish(&transport, 5..6).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(5..6), "it begins at the end");
}

#[tokio::test]
async fn a_deleted_stream_ends_the_subscription_and_a_new_one_does_not_resume() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    admin(&server).await.delete_stream("CACHE_INVALIDATIONS").await.unwrap();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    // The publish creates a new stream, with as many messages as the old one had.
    publish(&transport, 3..9).await;
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    publish(&transport, 9..10).await;
    while next(&mut *subscribed.messages).await != Delivery::Message(message(9)) {}
}

/// The server frees the name of a stream before it has removed the files.
#[tokio::test]
async fn a_deleted_stream_is_created_again_only_after_a_pause() {
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
async fn messages_that_the_stream_removed_become_a_gap() {
    let server = NatsServer::start();
    let options = options(&server, "a").max_messages(10).prefetch(5);
    let transport = JetStreamTransport::new(options).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..100).await;
    let mut came = Vec::new();
    while came.last() != Some(&Delivery::Message(message(99))) {
        came.push(next(&mut *messages).await);
    }
    assert!(came.contains(&Delivery::Gap), "{came:?}");
    let after = came.iter().rposition(|it| *it == Delivery::Gap).unwrap();
    assert_eq!(came[after + 1..], expected(100 - (came.len() - after - 1)..100));

    // Messages removed while there was no subscription: it does not resume.
    settle(&mut *messages).await;
    drop(messages);
    publish(&transport, 100..150).await;
    assert!(!transport.subscribe().await.unwrap().resumed);
}

#[tokio::test]
async fn a_purge_becomes_a_gap_without_a_later_message() {
    let server = NatsServer::start();
    let transport = JetStreamTransport::new(options(&server, "a").prefetch(1)).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    stream(&server).await.purge().await.unwrap();
    let mut came = next(&mut *messages).await;
    while came != Delivery::Gap {
        came = next(&mut *messages).await;
    }
}

#[tokio::test]
async fn a_subscription_does_not_resume_after_an_unprocessed_gap() {
    let server = NatsServer::start();
    let transport = JetStreamTransport::new(options(&server, "a").prefetch(1)).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    for sequence in [3, 4] {
        stream(&server).await.delete_message(sequence).await.unwrap();
    }
    while next(&mut *messages).await != Delivery::Gap {}
    drop(messages);
    assert!(!transport.subscribe().await.unwrap().resumed);
}

#[tokio::test]
async fn existing_streams_and_consumers_are_used_unchanged() {
    let server = NatsServer::start();
    let options = options(&server, "a").ensure_stream(false).ensure_consumer(false);
    let transport = JetStreamTransport::new(options).unwrap();
    transport.subscribe().await.err().expect("no stream");
    transport.publish(b"message").await.unwrap_err();
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
    transport.publish(b"message").await.unwrap();
    let config = pull::Config {
        durable_name: Some("a".to_owned()),
        ack_wait: ms(300),
        ..pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap();
    let created = stream.consumer_info("a").await.unwrap().created;

    let mut messages = transport.subscribe().await.unwrap().messages;
    assert_eq!(next(&mut *messages).await, Delivery::Message(b"message".to_vec()));
    publish(&transport, 0..2).await;
    assert_eq!(take(&mut *messages, 2).await, expected(0..2));
    settle(&mut *messages).await;
    drop(messages);
    publish(&transport, 2..4).await;
    let subscribed = retry(async || {
        // The last acknowledgement takes a moment to reach the server.
        transport
            .subscribe()
            .await
            .map_err(|error| error.to_string())
            .and_then(|it| if it.resumed { Ok(it) } else { Err("not resumed".to_owned()) })
    })
    .await;
    let mut messages = subscribed.messages;
    assert_eq!(take(&mut *messages, 2).await, expected(2..4));
    assert_eq!(stream.consumer_info("a").await.unwrap().created, created);
    // The last message was not acknowledged: the server redelivers it after `ack_wait`.
    drop(messages);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    subscribed.prober.send(1).await.expect_err("a message is still to be redelivered");
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(3..4));
    settle(&mut *subscribed.messages).await;
    retry(async || subscribed.prober.send(2).await).await;
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(2));
}

#[tokio::test]
async fn a_probe_is_delivered_once_all_messages_before_it_are_processed() {
    let server = NatsServer::start();
    let (publisher, subscriber) = (transport(&server, "a"), transport(&server, "b"));
    let mut subscribed = subscriber.subscribe().await.unwrap();
    subscribed.prober.send(1).await.unwrap();
    assert_eq!(next(&mut *subscribed.messages).await, Delivery::Probe(1), "nothing is to come");
    assert_eq!(stream(&server).await.get_info().await.unwrap().state.last_sequence, 0);
    for round in 0..50 {
        let sent = round * 5..(round + 1) * 5;
        publish(&publisher, sent.clone()).await;
        subscribed.prober.send(round as u64).await.unwrap();
        publish(&publisher, sent.end..sent.end + 1).await;
        assert_eq!(take(&mut *subscribed.messages, 5).await, expected(sent.clone()));
        let last = take(&mut *subscribed.messages, 2).await;
        assert_eq!(last[0], Delivery::Probe(round as u64));
        assert_eq!(last[1..], expected(sent.end..sent.end + 1));
    }
    // A call of `next` that waits already notices the probe.
    settle(&mut *subscribed.messages).await;
    let (delivery, sent) =
        tokio::join!(next(&mut *subscribed.messages), subscribed.prober.send(4_711));
    sent.unwrap();
    assert_eq!(delivery, Delivery::Probe(4_711));
}

#[tokio::test]
async fn a_probe_of_purged_messages_is_behind_their_gap() {
    let server = NatsServer::start();
    let transport = JetStreamTransport::new(options(&server, "a").prefetch(1)).unwrap();
    let mut subscribed = transport.subscribe().await.unwrap();
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(0..1));
    subscribed.prober.send(7).await.unwrap();
    stream(&server).await.purge().await.unwrap();
    let mut came = Vec::new();
    while came.last() != Some(&Delivery::Probe(7)) {
        came.push(next(&mut *subscribed.messages).await);
    }
    assert!(came.contains(&Delivery::Gap), "{came:?}");
}

#[tokio::test]
async fn no_probe_of_a_replaced_stream_is_delivered() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let subscribed = transport.subscribe().await.unwrap();
    admin(&server).await.delete_stream("CACHE_INVALIDATIONS").await.unwrap();
    subscribed.prober.send(1).await.unwrap_err();
    publish(&transport, 0..1).await;
    subscribed.prober.send(2).await.unwrap_err();
}

#[tokio::test]
async fn a_beacon_reaches_every_instance_and_is_not_stored() {
    let server = NatsServer::start();
    let (one, other) = (transport(&server, "a"), transport(&server, "b"));
    one.announce(b"nobody listens").await.unwrap();
    let mut first = one.subscribe().await.unwrap().messages;
    let mut second = other.subscribe().await.unwrap().messages;
    other.announce(b"beacon").await.unwrap();
    for messages in [&mut first, &mut second] {
        assert_eq!(next(&mut **messages).await, Delivery::Message(b"beacon".to_vec()));
    }
    assert_eq!(stream(&server).await.get_info().await.unwrap().state.last_sequence, 0);
    // Messages are acknowledged as before, and beacons do not hide them.
    publish(&one, 0..2).await;
    assert_eq!(take(&mut *first, 2).await, expected(0..2));
    drop((first, second));
    let client = async_nats::connect(server.url()).await.unwrap();
    retry(async || match client.request("cache.invalidations.beacons", "".into()).await {
        Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_would_store_beacons_is_refused() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let wide = Config {
        name: "CACHE_INVALIDATIONS".to_owned(),
        subjects: vec!["cache.>".to_owned()],
        ..Config::default()
    };
    admin(&server).await.create_stream(wide).await.unwrap();
    let announced = transport.announce(b"beacon").await.unwrap_err().to_string();
    let subscribed = transport.subscribe().await.err().unwrap().to_string();
    for error in [announced, subscribed] {
        assert!(error.contains("cache.>") && error.contains("beacons"), "{error}");
    }
    assert_eq!(stream(&server).await.get_info().await.unwrap().state.last_sequence, 0);
}

#[tokio::test]
async fn without_jetstream_the_errors_say_so() {
    let server = NatsServer::start_without_jetstream();
    let transport = transport(&server, "a");
    let error = transport.subscribe().await.err().unwrap().to_string();
    assert!(error.contains("-js"), "{error}");
    let error = transport.ping().await.unwrap_err().to_string();
    assert!(error.contains("-js"), "{error}");
    transport.publish(b"message").await.unwrap_err();
}

#[tokio::test]
async fn a_subject_of_another_stream_is_an_error() {
    let server = NatsServer::start();
    let transport = transport(&server, "a");
    let other = Config {
        name: "OTHER".to_owned(),
        subjects: vec!["cache.*".to_owned()],
        ..Config::default()
    };
    admin(&server).await.create_stream(other).await.unwrap();
    let error = transport.publish(b"message").await.unwrap_err().to_string();
    assert!(error.contains("OTHER"), "{error}");
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_task() {
    let mut server = NatsServer::start();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let transport = transport(&server, "a");
        let mut messages = transport.subscribe().await.unwrap().messages;
        publish(&transport, 0..1).await;
        assert_eq!(take(&mut *messages, 1).await, expected(0..1));
        drop((transport, messages));
        assert_no_task_is_left().await;

        let transport = JetStreamTransport::new(options(&server, "a")).unwrap();
        let mut messages = transport.subscribe().await.unwrap().messages;
        transport.disconnect().await.unwrap();
        assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
        transport.subscribe().await.unwrap();
        server.restart();
        kept.push((transport, messages));
    }
    drop(kept);
    assert_no_task_is_left().await;
}

#[test]
fn a_subscription_can_be_dropped_outside_of_a_runtime() {
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
    let refused: [(&str, Wrong); 15] = [
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
        ("queue_max_bytes", |it| it.queue_max_bytes(0)),
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
fn options_can_be_read_from_a_config_file_and_have_the_documented_defaults() {
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
    assert_eq!((options.prefetch, options.queue_max_bytes), (200, 33_554_432));
    assert_eq!(options.inactive_threshold, Duration::from_secs(86_400));
    assert!(options.ensure_stream && options.ensure_consumer);
}
