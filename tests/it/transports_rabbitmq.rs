//! The transport over RabbitMQ, against a real broker. A broker takes seconds to start, so tests
//! that do not break it share one, each with an exchange of its own.

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use lazy_layers_cache::{
    Delivery, RabbitMqExchangeType, RabbitMqOptions, RabbitMqTransport, TlsOptions, Transport,
};
use tokio::time::timeout;

use crate::support::{
    ms,
    proxy::{Mode, Proxy},
    rabbit_place::{Place, settle, transport},
    rabbitmq::RabbitServer,
    transports::{
        PATIENCE, TRUST, assert_no_task_is_left, check_delivery_in_order,
        check_subscribe_misses_nothing, expected, loss, message, next, publish, retry, take,
    },
};

#[tokio::test]
async fn every_instance_receives_every_message_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (one, other) = (transport(place.transient()), transport(place.transient()));
    check_delivery_in_order(&one, &other).await;
    let (one, other) = (transport(place.transient()), transport(place.transient()));
    check_subscribe_misses_nothing(&one, &other, 200).await;
}

#[tokio::test]
async fn every_instance_with_a_durable_queue_receives_every_message_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (one, other) = (transport(place.durable("a")), transport(place.durable("b")));
    check_delivery_in_order(&one, &other).await;
    let (one, other) = (transport(place.durable("c")), transport(place.durable("d")));
    check_subscribe_misses_nothing(&one, &other, 30).await;
}

#[tokio::test]
async fn a_subscriber_receives_messages_from_its_absence_when_it_resumes() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (publisher, subscriber) =
        (transport(place.transient().durable(true)), transport(place.durable("a")));
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(!subscribed.resumed, "it is the first subscription");
    publish(&publisher, 0..5).await;
    assert_eq!(take(&mut *subscribed.messages, 5).await, expected(0..5));
    settle(&mut *subscribed.messages).await;
    drop(subscribed);
    publish(&publisher, 5..300).await;
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    assert_eq!(take(&mut *subscribed.messages, 295).await, expected(5..300));
}

#[tokio::test]
async fn an_unacknowledged_message_is_redelivered_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.durable("a"));
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    drop(messages);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    publish(&transport, 5..6).await;
    // The broker may still be closing the old connection when the new one subscribes.
    let mut came = Vec::new();
    while came.len() < 4 {
        came.push(next(&mut *subscribed.messages).await);
    }
    came.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(came, expected(2..6));
}

#[tokio::test]
async fn a_transient_subscription_never_resumes() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let durable_but_not_on_disk =
        place.transient().durable(true).queue_name(place.queue("a")).persistent(false);
    for options in
        [place.transient(), durable_but_not_on_disk.exclusive_queue(false).auto_delete_queue(false)]
    {
        let place = Place::on(&server);
        let transport = transport(options.exchange(&place.name));
        for _ in 0..2 {
            let subscribed = transport.subscribe().await.unwrap();
            assert!(!subscribed.resumed);
        }
    }
}

#[tokio::test]
async fn a_deleted_queue_ends_the_subscription_and_a_new_one_does_not_resume() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.durable("a"));
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    let admin = place.admin().await;
    let (queue, options) = (place.queue("a"), QueueDeleteOptions::default());
    admin.queue_delete(queue.as_str().into(), options).await.unwrap();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    assert_eq!(next(&mut *messages).await, Delivery::Closed, "it stays closed");

    let subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    // Deleted and declared again by somebody else in between.
    drop(subscribed);
    admin.queue_delete(queue.as_str().into(), options).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    admin.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(1..2));
    drop(subscribed);
    assert!(
        transport.subscribe().await.unwrap().resumed,
        "a queue that somebody else declared is used"
    );
}

#[tokio::test]
async fn a_deleted_exchange_ends_the_subscription() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.transient());
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    let (name, options) = (place.name.as_str().into(), ExchangeDeleteOptions::default());
    place.admin().await.exchange_delete(name, options).await.unwrap();
    transport.publish(b"unroutable").await.unwrap_err();
    let (delivery, took) = loss(&mut *messages).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *messages, 1).await, expected(1..2));
}

#[tokio::test]
async fn a_lost_binding_fails_the_publish_and_ends_the_subscription() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.durable("a"));
    publish(&transport, 0..1).await;
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *messages, 1).await, expected(1..2));
    let (queue, exchange) = (place.queue("a"), place.name.as_str().into());
    let admin = place.admin().await;
    let unbound =
        admin.queue_unbind(queue.as_str().into(), exchange, "".into(), FieldTable::default());
    unbound.await.unwrap();
    transport.publish(b"unroutable").await.unwrap_err();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
}

#[tokio::test]
async fn messages_beyond_the_prefetch_stay_at_the_broker() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    // `rabbitmqctl` keeps the machine busy, and the broker may answer a heartbeat late.
    let transport = transport(place.durable("a").prefetch(10).heartbeat(PATIENCE));
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..200).await;
    let arguments = ["list_queues", "name", "messages_unacknowledged", "messages_ready"];
    let queues = server.ctl(&arguments);
    let queue = queues.lines().find(|line| line.contains(&place.queue("a"))).unwrap();
    assert!(queue.ends_with("10\t190"), "{queue}");
    assert_eq!(take(&mut *messages, 200).await, expected(0..200));
}

#[tokio::test]
async fn several_caches_can_share_an_exchange() {
    let server = RabbitServer::shared();
    for exchange_type in [RabbitMqExchangeType::Topic, RabbitMqExchangeType::Direct] {
        let place = Place::on(&server);
        let of = |key| transport(place.transient().exchange_type(exchange_type).routing_key(key));
        let (users, orders) = (of("cache.users"), of("cache.orders"));
        let mut messages = users.subscribe().await.unwrap().messages;
        let mut others = orders.subscribe().await.unwrap().messages;
        publish(&orders, 0..1).await;
        publish(&users, 1..2).await;
        assert_eq!(take(&mut *messages, 1).await, expected(1..2));
        assert_eq!(take(&mut *others, 1).await, expected(0..1));
    }
}

#[tokio::test]
async fn a_different_type_of_the_exchange_is_an_error() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    transport(place.transient()).ping().await.unwrap();
    let other =
        transport(place.transient().exchange_type(RabbitMqExchangeType::Topic).routing_key("key"));
    for error in [
        other.ping().await.unwrap_err(),
        other.publish(b"message").await.unwrap_err(),
        other.subscribe().await.err().unwrap(),
    ] {
        assert!(error.to_string().contains("exchange_type"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_of_the_application_stays_open() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let connection = Connection::connect(&place.url, ConnectionProperties::default()).await;
    let connection = Arc::new(connection.unwrap());
    let mut options = place.durable("a");
    options.url = None;
    let transport = RabbitMqTransport::with_connection(Arc::clone(&connection), options).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *messages, 3).await, expected(0..3));
    transport.disconnect().await.unwrap();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    assert!(transport.subscribe().await.unwrap().resumed);
    drop((transport, messages));
    connection.create_channel().await.unwrap();
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_task() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let dropped = transport(place.transient());
    let mut messages = dropped.subscribe().await.unwrap().messages;
    publish(&dropped, 0..1).await;
    drop(dropped);
    assert_eq!(
        take(&mut *messages, 1).await,
        expected(0..1),
        "a subscription outlives its transport"
    );
    drop(messages);
    assert_no_task_is_left().await;

    let disconnected = transport(place.transient());
    let mut messages = disconnected.subscribe().await.unwrap().messages;
    disconnected.ping().await.unwrap();
    disconnected.disconnect().await.unwrap();
    assert_eq!(loss(&mut *messages).await.0, Delivery::Closed);
    assert_no_task_is_left().await;
    disconnected.ping().await.unwrap();
    drop(disconnected);

    // Failed attempts leave no task either, at whatever step they fail.
    for wrong in [
        place.url.replace("guest@", "wrong@"),
        place.url.replace("%2f", "nowhere"),
        "amqp://127.0.0.1:1".to_owned(),
    ] {
        let options = RabbitMqOptions::new(wrong);
        transport(options.clone()).publish(b"message").await.unwrap_err();
        transport(options).subscribe().await.err().unwrap();
    }
    assert_no_task_is_left().await;
}

#[test]
fn everything_can_be_dropped_outside_of_a_runtime() {
    let server = RabbitServer::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let transport = transport(Place::on(&server).transient());
    let subscribed = runtime.block_on(async {
        transport.ping().await.unwrap();
        transport.subscribe().await.unwrap()
    });
    let half_done = {
        let mut subscribing = transport.subscribe();
        runtime.block_on(async { timeout(ms(1), &mut subscribing).await.map(drop) }).unwrap_err();
        subscribing
    };
    drop((half_done, subscribed));
    drop(runtime);
    drop(transport);
}

#[test]
fn a_call_without_a_runtime_is_an_error_and_no_panic() {
    let transport = transport(RabbitMqOptions::new("amqp://localhost"));
    for mut call in [transport.publish(b"message"), transport.ping()] {
        let waker = std::task::Waker::noop();
        let polled = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(matches!(polled, std::task::Poll::Ready(Err(_))));
    }
}

#[tokio::test]
async fn a_silent_broker_fails_every_call_in_time_and_its_sockets_are_closed() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", silent.local_addr().unwrap());
    let transport = transport(RabbitMqOptions::new(url).connect_timeout(ms(300)));
    let since = Instant::now();
    let results = join_all((0..20).map(|_| transport.publish(b"message"))).await;
    assert!(results.iter().all(Result::is_err));
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    transport.subscribe().await.err().unwrap();
    // The client keeps no connection open.
    silent.set_nonblocking(true).unwrap();
    let accepted = || silent.accept().ok().map(|(stream, _)| stream);
    let streams: Vec<_> = std::iter::from_fn(accepted).collect();
    assert!(streams.len() >= 2, "{}", streams.len());
    for mut stream in streams {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = Vec::new();
        let _ = stream.read_to_end(&mut greeting).unwrap();
        assert!(greeting.is_empty() || greeting.starts_with(b"AMQP"), "{greeting:?}");
    }
    assert_no_task_is_left().await;
}

/// Tolerates an answer to a heartbeat after three seconds, because `rabbitmqctl` keeps a small
/// machine busy.
fn patient(options: RabbitMqOptions) -> RabbitMqTransport {
    transport(options.confirm_timeout(ms(1_000)).heartbeat(ms(2_000)))
}

/// One test, because each part breaks the broker and a restart takes seconds.
#[tokio::test]
async fn a_broker_that_runs_out_of_memory_freezes_and_dies_is_used_again() {
    let mut server = RabbitServer::start();
    let place = Place::on(&server);
    // Both declare the exchange, so its options must be equal.
    let (durable, transient) =
        (patient(place.durable("a")), patient(place.transient().durable(true)));
    let mut from_durable = durable.subscribe().await.unwrap().messages;
    let mut from_transient = transient.subscribe().await.unwrap().messages;
    publish(&durable, 0..3).await;
    assert_eq!(take(&mut *from_durable, 3).await, expected(0..3));
    assert_eq!(take(&mut *from_transient, 3).await, expected(0..3));
    settle(&mut *from_durable).await;

    // Out of memory: publishes fail, and subscriptions go on.
    server.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    for _ in 0..3 {
        let since = Instant::now();
        durable.publish(b"refused").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    }
    for messages in [&mut from_durable, &mut from_transient] {
        timeout(TRUST, messages.next()).await.expect_err("the subscription goes on");
    }
    server.ctl(&["set_vm_memory_high_watermark", "0.9"]);
    retry(async || durable.publish(b"stored").await).await;
    for messages in [&mut from_durable, &mut from_transient] {
        // The broker may have stored an unconfirmed message later.
        while next(&mut **messages).await != Delivery::Message(b"stored".to_vec()) {}
        while timeout(ms(300), messages.next()).await.is_ok() {}
    }

    // Frozen: two and a half heartbeats end the subscriptions.
    server.freeze();
    let since = Instant::now();
    durable.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    for messages in [&mut from_durable, &mut from_transient] {
        assert_eq!(loss(&mut **messages).await.0, Delivery::Closed);
    }
    assert!(since.elapsed() < ms(5_500), "{:?}", since.elapsed());
    let since = Instant::now();
    durable.publish(b"nobody answers").await.unwrap_err();
    durable.subscribe().await.err().unwrap();
    assert!(since.elapsed() < ms(7_500), "{:?}", since.elapsed());
    server.thaw();
    let resubscribed = retry(async || durable.subscribe().await).await;
    assert!(resubscribed.resumed);
    let mut from_durable = resubscribed.messages;
    retry(async || durable.publish(b"again").await).await;
    while next(&mut *from_durable).await != Delivery::Message(b"again".to_vec()) {}
    settle(&mut *from_durable).await;

    // Killed and restarted: durable queues keep their messages.
    publish(&durable, 3..5).await;
    server.kill();
    let (delivery, took) = loss(&mut *from_durable).await;
    assert_eq!(delivery, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    durable.publish(b"nobody answers").await.unwrap_err();
    server.restart();
    retry(async || durable.publish(&message(5)).await).await;
    let resubscribed = retry(async || durable.subscribe().await).await;
    assert!(resubscribed.resumed);
    let mut from_durable = resubscribed.messages;
    assert_eq!(take(&mut *from_durable, 3).await, expected(3..6));
    assert!(!transient.subscribe().await.unwrap().resumed);
    drop((durable, transient, from_durable, from_transient));
    assert_no_task_is_left().await;
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Wrong = fn(RabbitMqOptions) -> RabbitMqOptions;
    let refused: [(&str, Wrong); 21] = [
        ("url", |_| RabbitMqOptions::default()),
        ("url", |it| it.url("amqp://user:hunter2@localhost/?cacertfile=authority.pem")),
        ("queue_max_bytes", |it| it.queue_max_bytes(1_000)),
        ("url", |_| RabbitMqOptions::new("http://localhost")),
        ("url", |it| it.tls(TlsOptions::required())),
        ("tls", |it| it.tls(TlsOptions::default().client_key("key.pem"))),
        ("exchange", |it| it.exchange("")),
        ("queue_name", |it| it.durable_invalidation_mode(true)),
        ("queue_name", |it| it.queue_name("amq.mine")),
        ("queue_name", |it| it.queue_name("")),
        ("durable", |it| it.durable_queue("a").durable(false)),
        ("persistent", |it| it.durable_queue("a").persistent(false)),
        ("exclusive_queue", |it| it.durable_queue("a").exclusive_queue(true)),
        ("auto_delete_queue", |it| it.durable_queue("a").auto_delete_queue(true)),
        ("routing_key", |it| it.exchange_type(RabbitMqExchangeType::Direct).routing_key("")),
        ("routing_key", |it| it.exchange_type(RabbitMqExchangeType::Topic).routing_key("cache.*")),
        ("prefetch", |it| it.prefetch(0)),
        ("queue_expires", |it| it.queue_expires(ms(10))),
        ("connect_timeout", |it| it.connect_timeout(ms(0))),
        ("confirm_timeout", |it| it.confirm_timeout(ms(0))),
        ("heartbeat", |it| it.heartbeat(ms(0))),
    ];
    for (option, wrong) in refused {
        let options = wrong(RabbitMqOptions::new("amqp://user:hunter2@localhost"));
        let error = RabbitMqTransport::new(options).unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_have_the_documented_defaults() {
    let options: RabbitMqOptions = toml::from_str(
        r#"
        url = "amqp://user:hunter2@localhost:5672"
        exchange_type = "topic"
        routing_key = "cache.users"
        durable_invalidation_mode = true
        queue_name = "shop-1-cache"
        prefetch = 50
        queue_expires = "2h"
        queue_max_bytes = 1000000
        "#,
    )
    .unwrap();
    let expected = RabbitMqOptions::new("amqp://user:hunter2@localhost:5672")
        .exchange_type(RabbitMqExchangeType::Topic)
        .routing_key("cache.users")
        .durable_queue("shop-1-cache")
        .prefetch(50)
        .queue_expires(Duration::from_secs(7_200))
        .queue_max_bytes(1_000_000);
    assert_eq!(options, expected);
    assert!(!format!("{options:?}").contains("hunter2"));
    assert!(!format!("{:?}", transport(options)).contains("hunter2"));

    let options = RabbitMqOptions::default();
    assert_eq!(options.exchange, "cache.invalidations");
    assert_eq!(options.exchange_type, RabbitMqExchangeType::Fanout);
    assert!(!options.durable_invalidation_mode && options.queue_name.is_none());
    assert_eq!((options.durable, options.persistent), (None, None));
    assert_eq!((options.exclusive_queue, options.auto_delete_queue), (None, None));
    assert_eq!((options.routing_key.as_str(), options.prefetch), ("", 100));
    assert_eq!((options.queue_expires, options.queue_max_bytes), (None, 32 << 20));
}

/// A caller may have a time limit of its own, which is shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_abandoned_call_is_replaced() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let proxy = Proxy::to(server.port());
    let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", proxy.port());
    let options = RabbitMqOptions::new(url).exchange(&place.name).confirm_timeout(ms(2_000));
    let transport = transport(options);
    for asks in [true, false] {
        transport.publish(b"before").await.unwrap();
        proxy.set(Mode::Blackhole);
        let limit = ms(50);
        let stopped = match asks {
            true => timeout(limit, transport.ping()).await.is_err(),
            false => timeout(limit, transport.publish(b"lost")).await.is_err(),
        };
        assert!(stopped, "the proxy drops everything");
        proxy.set(Mode::Pass);
        transport.publish(b"after").await.unwrap();
    }
}
