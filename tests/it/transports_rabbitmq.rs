//! Events over RabbitMQ, with a real broker. It takes seconds to start: tests that do not break it
//! share one, each with an exchange of its own.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use lazy_layers_cache::{
    Delivery, MessageStream, RabbitMqExchangeType, RabbitMqOptions, RabbitMqTransport, TlsOptions,
    Transport,
};
use tokio::time::timeout;

use crate::support::{
    ms,
    proxy::{Mode, Proxy},
    rabbitmq::RabbitServer,
    transports::{
        PATIENCE, TRUST, a_subscription_begins_before_it_returns, event,
        everyone_gets_everything_in_order, expected, loss, next, no_task_is_left, publish, take,
        until_it_works,
    },
};

/// An exchange and names of queues that no other test has.
struct Place {
    url: String,
    name: String,
}

impl Place {
    fn on(server: &RabbitServer) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self { url: server.url(), name: format!("test-{}", COUNT.fetch_add(1, Ordering::SeqCst)) }
    }

    fn passing(&self) -> RabbitMqOptions {
        RabbitMqOptions::new(&self.url).exchange(&self.name).confirm_timeout(ms(1_000))
    }

    fn queue(&self, instance: &str) -> String {
        format!("{}-{instance}", self.name)
    }

    fn durable(&self, instance: &str) -> RabbitMqOptions {
        self.passing().durable_queue(self.queue(instance))
    }

    async fn admin(&self) -> lapin::Channel {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await;
        connection.unwrap().create_channel().await.unwrap()
    }
}

fn transport(options: RabbitMqOptions) -> RabbitMqTransport {
    RabbitMqTransport::new(options).unwrap()
}

/// Says that all that came was dealt with.
async fn settle(events: &mut dyn MessageStream) {
    timeout(ms(100), events.next()).await.expect_err("nothing more comes");
}

#[tokio::test]
async fn every_instance_gets_every_event_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (one, other) = (transport(place.passing()), transport(place.passing()));
    everyone_gets_everything_in_order(&one, &other).await;
    let (one, other) = (transport(place.passing()), transport(place.passing()));
    a_subscription_begins_before_it_returns(&one, &other, 200).await;
}

#[tokio::test]
async fn every_instance_with_a_queue_of_its_own_gets_every_event_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (one, other) = (transport(place.durable("a")), transport(place.durable("b")));
    everyone_gets_everything_in_order(&one, &other).await;
    let (one, other) = (transport(place.durable("c")), transport(place.durable("d")));
    a_subscription_begins_before_it_returns(&one, &other, 30).await;
}

#[tokio::test]
async fn what_was_published_meanwhile_comes_when_the_subscriber_is_back() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let (publisher, subscriber) =
        (transport(place.passing().durable(true)), transport(place.durable("a")));
    let mut subscribed = subscriber.subscribe().await.unwrap();
    assert!(!subscribed.resumed, "there was none before");
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
async fn an_event_that_was_not_dealt_with_comes_again_and_in_order() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.durable("a"));
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..5).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    drop(events);
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(subscribed.resumed);
    publish(&transport, 5..6).await;
    // The old connection may still be saying goodbye while the new one listens.
    let mut came = Vec::new();
    while came.len() < 4 {
        came.push(next(&mut *subscribed.messages).await);
    }
    came.sort_by_key(|it| format!("{it:?}"));
    assert_eq!(came, expected(2..6));
}

#[tokio::test]
async fn a_passing_subscription_never_resumes() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let durable_but_not_on_disk =
        place.passing().durable(true).queue_name(place.queue("a")).persistent(false);
    for options in
        [place.passing(), durable_but_not_on_disk.exclusive_queue(false).auto_delete_queue(false)]
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
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
    let admin = place.admin().await;
    let (queue, options) = (place.queue("a"), QueueDeleteOptions::default());
    admin.queue_delete(queue.as_str().into(), options).await.unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    assert_eq!(next(&mut *events).await, Delivery::Closed, "and stays so");

    let subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    // Deleted and made again by somebody else meanwhile.
    drop(subscribed);
    admin.queue_delete(queue.as_str().into(), options).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    admin.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let mut subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(1..2));
    drop(subscribed);
    assert!(transport.subscribe().await.unwrap().resumed, "a queue made elsewhere serves as well");
}

#[tokio::test]
async fn a_deleted_exchange_ends_the_subscription() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.passing());
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    let (name, options) = (place.name.as_str().into(), ExchangeDeleteOptions::default());
    place.admin().await.exchange_delete(name, options).await.unwrap();
    transport.publish(b"nobody would get it").await.unwrap_err();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *events, 1).await, expected(1..2));
}

#[tokio::test]
async fn a_lost_binding_fails_the_publish_and_ends_the_subscription() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let transport = transport(place.durable("a"));
    publish(&transport, 0..1).await;
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 1..2).await;
    assert_eq!(take(&mut *events, 1).await, expected(1..2));
    let (queue, exchange) = (place.queue("a"), place.name.as_str().into());
    let admin = place.admin().await;
    let unbound =
        admin.queue_unbind(queue.as_str().into(), exchange, "".into(), FieldTable::default());
    unbound.await.unwrap();
    transport.publish(b"nobody would get it").await.unwrap_err();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
}

#[tokio::test]
async fn what_a_slow_subscriber_does_not_take_stays_at_the_broker() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    // A broker that is asked for its queues while the machine is busy may answer late.
    let transport = transport(place.durable("a").prefetch(10).heartbeat(PATIENCE));
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..200).await;
    let arguments = ["list_queues", "name", "messages_unacknowledged", "messages_ready"];
    let queues = server.ctl(&arguments);
    let queue = queues.lines().find(|line| line.contains(&place.queue("a"))).unwrap();
    assert!(queue.ends_with("10\t190"), "{queue}");
    assert_eq!(take(&mut *events, 200).await, expected(0..200));
}

#[tokio::test]
async fn several_caches_can_share_an_exchange() {
    let server = RabbitServer::shared();
    for exchange_type in [RabbitMqExchangeType::Topic, RabbitMqExchangeType::Direct] {
        let place = Place::on(&server);
        let of = |key| transport(place.passing().exchange_type(exchange_type).routing_key(key));
        let (users, orders) = (of("cache.users"), of("cache.orders"));
        let mut events = users.subscribe().await.unwrap().messages;
        let mut others = orders.subscribe().await.unwrap().messages;
        publish(&orders, 0..1).await;
        publish(&users, 1..2).await;
        assert_eq!(take(&mut *events, 1).await, expected(1..2));
        assert_eq!(take(&mut *others, 1).await, expected(0..1));
    }
}

#[tokio::test]
async fn instances_that_disagree_about_the_exchange_are_told() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    transport(place.passing()).ping().await.unwrap();
    let other =
        transport(place.passing().exchange_type(RabbitMqExchangeType::Topic).routing_key("key"));
    for error in [
        other.ping().await.unwrap_err(),
        other.publish(b"event").await.unwrap_err(),
        other.subscribe().await.err().unwrap(),
    ] {
        assert!(error.to_string().contains("exchange_type"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_of_the_users_serves_and_stays_open() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let connection = Connection::connect(&place.url, ConnectionProperties::default()).await;
    let connection = Arc::new(connection.unwrap());
    let mut options = place.durable("a");
    options.url = None;
    let transport = RabbitMqTransport::with_connection(Arc::clone(&connection), options).unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    transport.disconnect().await.unwrap();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    assert!(transport.subscribe().await.unwrap().resumed);
    drop((transport, events));
    connection.create_channel().await.unwrap();
}

#[tokio::test]
async fn nothing_is_left_of_a_transport_that_was_dropped() {
    let server = RabbitServer::shared();
    let place = Place::on(&server);
    let dropped = transport(place.passing());
    let mut events = dropped.subscribe().await.unwrap().messages;
    publish(&dropped, 0..1).await;
    drop(dropped);
    assert_eq!(take(&mut *events, 1).await, expected(0..1), "a subscription outlives it");
    drop(events);
    no_task_is_left().await;

    let kept = transport(place.passing());
    let mut events = kept.subscribe().await.unwrap().messages;
    kept.ping().await.unwrap();
    kept.disconnect().await.unwrap();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    no_task_is_left().await;
    kept.ping().await.unwrap();
    drop(kept);

    // Nor of attempts that fail, however far they come.
    for wrong in [
        place.url.replace("guest@", "wrong@"),
        place.url.replace("%2f", "nowhere"),
        "amqp://127.0.0.1:1".to_owned(),
    ] {
        let options = RabbitMqOptions::new(wrong);
        transport(options.clone()).publish(b"event").await.unwrap_err();
        transport(options).subscribe().await.err().unwrap();
    }
    no_task_is_left().await;
}

#[test]
fn all_of_it_may_be_dropped_outside_of_a_runtime() {
    let server = RabbitServer::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let transport = transport(Place::on(&server).passing());
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
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let transport = transport(RabbitMqOptions::new("amqp://localhost"));
    for mut call in [transport.publish(b"event"), transport.ping()] {
        let waker = std::task::Waker::noop();
        let polled = call.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(matches!(polled, std::task::Poll::Ready(Err(_))));
    }
}

#[tokio::test]
async fn a_broker_that_does_not_answer_fails_in_time_and_is_hung_up_on() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", silent.local_addr().unwrap());
    let transport = transport(RabbitMqOptions::new(url).connect_timeout(ms(300)));
    let since = Instant::now();
    let results = join_all((0..20).map(|_| transport.publish(b"event"))).await;
    assert!(results.iter().all(Result::is_err));
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    transport.subscribe().await.err().unwrap();
    // Nothing of the client keeps the connection open.
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
    no_task_is_left().await;
}

/// One whose broker may take three seconds to answer: `rabbitmqctl` keeps a small machine busy.
fn patient(options: RabbitMqOptions) -> RabbitMqTransport {
    transport(options.heartbeat(ms(2_000)))
}

/// One test, since each part breaks the broker and it takes seconds to come back.
#[tokio::test]
async fn a_broker_that_dies_freezes_and_runs_out_of_memory_is_noticed_and_used_again() {
    let mut server = RabbitServer::start();
    let place = Place::on(&server);
    // Of the options of the exchange the two must agree.
    let (durable, passing) = (patient(place.durable("a")), patient(place.passing().durable(true)));
    let mut kept = durable.subscribe().await.unwrap().messages;
    let mut passed = passing.subscribe().await.unwrap().messages;
    publish(&durable, 0..3).await;
    assert_eq!(take(&mut *kept, 3).await, expected(0..3));
    assert_eq!(take(&mut *passed, 3).await, expected(0..3));
    settle(&mut *kept).await;

    // No memory: nothing is taken, and what is received goes on being so.
    server.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    for _ in 0..3 {
        let since = Instant::now();
        durable.publish(b"not taken").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    }
    for events in [&mut kept, &mut passed] {
        timeout(TRUST, events.next()).await.expect_err("the subscription goes on");
    }
    server.ctl(&["set_vm_memory_high_watermark", "0.9"]);
    until_it_works(async || durable.publish(b"taken").await).await;
    for events in [&mut kept, &mut passed] {
        // What was not confirmed may have been taken later.
        while next(&mut **events).await != Delivery::Message(b"taken".to_vec()) {}
        while timeout(ms(300), events.next()).await.is_ok() {}
    }

    // Frozen.
    server.freeze();
    let since = Instant::now();
    durable.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    for events in [&mut kept, &mut passed] {
        assert_eq!(loss(&mut **events).await.0, Delivery::Closed);
    }
    // Two and a half heartbeats.
    assert!(since.elapsed() < ms(5_500), "{:?}", since.elapsed());
    let since = Instant::now();
    durable.publish(b"nobody answers").await.unwrap_err();
    durable.subscribe().await.err().unwrap();
    assert!(since.elapsed() < ms(7_500), "{:?}", since.elapsed());
    server.thaw();
    let resubscribed = until_it_works(async || durable.subscribe().await).await;
    assert!(resubscribed.resumed);
    let mut kept = resubscribed.messages;
    until_it_works(async || durable.publish(b"again").await).await;
    while next(&mut *kept).await != Delivery::Message(b"again".to_vec()) {}
    settle(&mut *kept).await;

    // Dead, and back with what it had.
    publish(&durable, 3..5).await;
    server.kill();
    let (told, took) = loss(&mut *kept).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    durable.publish(b"nobody is there").await.unwrap_err();
    server.restart();
    until_it_works(async || durable.publish(&event(5)).await).await;
    let resubscribed = until_it_works(async || durable.subscribe().await).await;
    assert!(resubscribed.resumed);
    let mut kept = resubscribed.messages;
    assert_eq!(take(&mut *kept, 3).await, expected(3..6));
    assert!(!passing.subscribe().await.unwrap().resumed);
    drop((durable, passing, kept, passed));
    no_task_is_left().await;
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    type Wrong = fn(RabbitMqOptions) -> RabbitMqOptions;
    let refused: [(&str, Wrong); 19] = [
        ("url", |_| RabbitMqOptions::default()),
        ("url", |_| RabbitMqOptions::new("http://localhost")),
        ("url", |it| it.tls(TlsOptions::required())),
        ("tls", |it| {
            let mut tls = TlsOptions::default();
            tls.client_key = Some("key.pem".into());
            it.tls(tls)
        }),
        ("exchange", |it| it.exchange("")),
        ("queue_name", |mut it| {
            it.durable_invalidation_mode = true;
            it
        }),
        ("queue_name", |it| it.queue_name("amq.mine")),
        ("queue_name", |it| it.queue_name("")),
        ("durable", |it| {
            let mut it = it.durable_queue("a");
            it.durable = Some(false);
            it
        }),
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
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_have_the_defaults_of_the_documents() {
    let options: RabbitMqOptions = toml::from_str(
        r#"
        url = "amqp://user:hunter2@localhost:5672"
        exchange_type = "topic"
        routing_key = "cache.users"
        durable_invalidation_mode = true
        queue_name = "shop-1-cache"
        prefetch = 50
        queue_expires = "2h"
        "#,
    )
    .unwrap();
    let expected = RabbitMqOptions::new("amqp://user:hunter2@localhost:5672")
        .exchange_type(RabbitMqExchangeType::Topic)
        .routing_key("cache.users")
        .durable_queue("shop-1-cache")
        .prefetch(50)
        .queue_expires(Duration::from_secs(7_200));
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
}

/// Whoever waits above has limits of its own, which may be shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_somebody_stopped_waiting_is_not_asked_again() {
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
        assert!(stopped, "nobody answers");
        proxy.set(Mode::Pass);
        transport.publish(b"after").await.unwrap();
    }
}
