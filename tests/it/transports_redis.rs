//! Events over Redis Pub/Sub, with real servers.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    BoxError, Delivery, RedisTransport, RedisTransportBuilder, RedisTransportOptions, Transport,
};
use redis::{Connection, cmd};

use crate::support::{
    cluster::Cluster,
    ms,
    proxy::{Mode, Proxy},
    redis::RedisServer,
    sentinel::Sentinel,
    transports::{
        TRUST, assert_no_task_is_left, check_delivery_in_order, check_subscribe_misses_nothing,
        expected, loss, next, publish, retry, take,
    },
};

/// Where the TypeScript package publishes.
const CHANNEL: &str = "cache:invalidations";

fn builder(server: &RedisServer) -> RedisTransportBuilder {
    RedisTransport::at(server.url()).confirm_timeout(ms(1_000))
}

fn transport(server: &RedisServer) -> RedisTransport {
    builder(server).build().unwrap()
}

fn by_way_of(proxy: &Proxy) -> RedisTransport {
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    RedisTransport::at(url).confirm_timeout(ms(1_000)).build().unwrap()
}

fn subscribers(redis: &mut Connection) -> u64 {
    let (_, count): (String, u64) = cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL).query(redis).unwrap();
    count
}

/// What the server calls its clients that have subscribed.
fn kill_subscribers(redis: &mut Connection) -> u64 {
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query(redis).unwrap()
}

#[tokio::test]
async fn every_instance_receives_every_message_in_order() {
    let server = RedisServer::start();
    check_delivery_in_order(&transport(&server), &transport(&server)).await;
}

#[tokio::test]
async fn a_subscription_in_force_misses_nothing() {
    let server = RedisServer::start();
    let (publisher, subscriber) = (transport(&server), transport(&server));
    check_subscribe_misses_nothing(&publisher, &subscriber, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_waits_for_the_servers_confirmation() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let late = ms(300);
    proxy.set(Mode::Delay(late));
    let transport = by_way_of(&proxy);
    let since = Instant::now();
    let mut subscribing = pin!(transport.subscribe());
    let (mut redis, mut heard_of_it) = (server.connect(), None);
    let subscribed = loop {
        tokio::select! {
            subscribed = &mut subscribing => break subscribed,
            () = tokio::time::sleep(ms(5)) => {
                if heard_of_it.is_none() && subscribers(&mut redis) == 1 {
                    heard_of_it = Some(since.elapsed());
                }
            }
        }
    };
    let mut events = subscribed.unwrap().messages;
    let heard_of_it = heard_of_it.expect("the server has the subscription before we know of it");
    // One reply of three hundred milliseconds later.
    assert!(since.elapsed() > heard_of_it + late / 2, "{:?} {heard_of_it:?}", since.elapsed());
    cmd("PUBLISH").arg(CHANNEL).arg("event").exec(&mut redis).unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
}

#[tokio::test]
async fn bytes_pass_unchanged_by_the_channel_that_the_typescript_package_uses() {
    let server = RedisServer::start();
    // Which database a URL names makes no difference, nor which protocol.
    let url = server.url();
    for url in [url.clone(), format!("{url}7"), format!("{url}?protocol=resp3")] {
        let transport = RedisTransport::at(url).build().unwrap();
        let mut events = transport.subscribe().await.unwrap().messages;
        let mut theirs = server.connect();
        let mut theirs = theirs.as_pubsub();
        theirs.subscribe(CHANNEL).unwrap();
        let all: Vec<u8> = (0..=u8::MAX).chain(*b"\r\n$-1\r\n*3\r\n").collect();
        let mut redis = server.connect();
        for event in [all, b"HC1M\x80".to_vec(), Vec::new(), vec![0; 1 << 20]] {
            transport.publish(&event).await.unwrap();
            assert_eq!(theirs.get_message().unwrap().get_payload_bytes(), event);
            assert_eq!(next(&mut *events).await, Delivery::Message(event.clone()));
            cmd("PUBLISH").arg(CHANNEL).arg(&event).exec(&mut redis).unwrap();
            assert_eq!(next(&mut *events).await, Delivery::Message(event));
            theirs.get_message().unwrap();
        }
        transport.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_channel_is_a_name_and_no_pattern() {
    let server = RedisServer::start();
    let all = builder(&server).channel("shop:*").build().unwrap();
    let one = builder(&server).channel("shop:1").build().unwrap();
    let mut events = all.subscribe().await.unwrap().messages;
    one.publish(b"one").await.unwrap();
    all.publish(b"all").await.unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"all".to_vec()));
}

#[tokio::test]
async fn a_subscription_that_the_server_kills_is_over() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    assert_eq!(kill_subscribers(&mut server.connect()), 1);
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < ms(500), "{took:?}: not by the heartbeat");
    assert_eq!(next(&mut *events).await, Delivery::Closed, "and stays so");
    transport.publish(b"lost").await.unwrap();
    assert_eq!(subscribers(&mut server.connect()), 0, "nobody subscribed again in silence");
    let subscribed = transport.subscribe().await.unwrap();
    assert!(!subscribed.resumed);
    let mut events = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_publish_that_fails_is_the_last_on_its_connection() {
    let server = RedisServer::start();
    let transport = transport(&server);
    transport.publish(b"event").await.unwrap();
    let mut kill = cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    assert_eq!(kill.query::<u64>(&mut server.connect()).unwrap(), 2, "ours and the test's");
    transport.publish(b"event").await.unwrap_err();
    transport.publish(b"event").await.unwrap();
}

#[tokio::test]
async fn a_killed_server_ends_the_subscription_and_a_new_one_works_after_its_restart() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    transport.publish(b"lost").await.unwrap_err();
    transport.subscribe().await.err().unwrap();
    transport.ping().await.unwrap_err();

    server.restart();
    let subscribed = retry(async || transport.subscribe().await).await;
    assert!(!subscribed.resumed);
    let mut events = subscribed.messages;
    publish(&transport, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
}

#[tokio::test]
async fn a_quick_restart_of_the_server_also_ends_the_subscription() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.restart();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut events = retry(async || transport.subscribe().await).await.messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
}

#[tokio::test]
async fn a_frozen_server_ends_the_subscription_and_fails_a_publish_in_time() {
    let server = RedisServer::start();
    let transport = transport(&server);
    transport.publish(b"before").await.unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    server.freeze();
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    assert!(since.elapsed() < TRUST, "{:?}", since.elapsed());
    // Now by a new connection, which the kernel accepts.
    let since = Instant::now();
    transport.publish(b"nobody answers").await.unwrap_err();
    assert!(since.elapsed() < ms(3_500), "{:?}", since.elapsed());
    transport.subscribe().await.err().unwrap();
    server.thaw();
    let mut events = retry(async || transport.subscribe().await).await.messages;
    transport.publish(b"again").await.unwrap();
    while next(&mut *events).await != Delivery::Message(b"again".to_vec()) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_swallows_everything_is_noticed_in_time() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = by_way_of(&proxy);
    for mode in [Mode::Blackhole, Mode::LoseReplies, Mode::LoseRequests, Mode::Pause] {
        proxy.set(Mode::Pass);
        let mut events = retry(async || transport.subscribe().await).await.messages;
        retry(async || transport.publish(b"before").await).await;
        assert_eq!(next(&mut *events).await, Delivery::Message(b"before".to_vec()));
        proxy.set(mode);
        let (told, took) = loss(&mut *events).await;
        assert_eq!(told, Delivery::Closed, "{mode:?}");
        assert!(took < TRUST, "{mode:?}: {took:?}");
        let since = Instant::now();
        transport.publish(b"lost").await.unwrap_err();
        assert!(since.elapsed() < ms(1_500), "{mode:?}: {:?}", since.elapsed());
    }
}

/// The answer to a heartbeat comes behind them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_whose_events_come_late_is_over() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = by_way_of(&proxy);
    let mut events = transport.subscribe().await.unwrap().messages;
    proxy.set(Mode::Delay(ms(2_000)));
    let mut redis = server.connect();
    let since = Instant::now();
    let publishing = async {
        while since.elapsed() < TRUST {
            cmd("PUBLISH").arg(CHANNEL).arg("event").exec(&mut redis).unwrap();
            tokio::time::sleep(ms(10)).await;
        }
    };
    let reading = async {
        let mut came = 0;
        while next(&mut *events).await != Delivery::Closed {
            came += 1;
        }
        came
    };
    let came = tokio::select! {
        came = reading => came,
        () = publishing => panic!("not within {TRUST:?}"),
    };
    assert!(came > 0, "they did come, but late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_the_server_gives_up_is_told() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    // Not by the heartbeat.
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let slow = RedisTransport::at(url).heartbeat(Duration::from_secs(60)).build().unwrap();
    let mut events = slow.subscribe().await.unwrap().messages;
    server.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1");
    proxy.set(Mode::Pause);
    let (mut redis, large) = (server.connect(), vec![b'x'; 1 << 20]);
    while subscribers(&mut redis) == 1 {
        cmd("PUBLISH").arg(CHANNEL).arg(&large).exec(&mut redis).unwrap();
    }
    proxy.set(Mode::Pass);
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
}

#[tokio::test]
async fn a_slow_subscriber_receives_a_gap() {
    let server = RedisServer::start();
    let slow = builder(&server).queue_capacity(10).build().unwrap();
    let mut events = slow.subscribe().await.unwrap().messages;
    publish(&slow, 0..100).await;
    let (mut gaps, mut last) = (0, None);
    while last != Some(99) {
        match next(&mut *events).await {
            Delivery::Message(event) => {
                let number: usize = String::from_utf8(event).unwrap().parse().unwrap();
                let follows = last.map_or(0, |last: usize| last + 1) == number;
                assert!(follows || gaps > 0, "{number} after {last:?}, and nobody was told");
                last = Some(number);
            }
            Delivery::Gap => gaps += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(gaps > 0);
    publish(&slow, 100..105).await;
    assert_eq!(take(&mut *events, 5).await, expected(100..105));
}

#[tokio::test]
async fn a_password_or_a_user_who_may_just_do_this_will_do() {
    let server = RedisServer::start_with_password("secret");
    check_delivery_in_order(&transport(&server), &transport(&server)).await;

    let rules = "resetchannels &cache:invalidations -@all +publish +subscribe";
    let server = RedisServer::start_with_user("app", "secret", rules);
    let quick = builder(&server).heartbeat(ms(50)).build().unwrap();
    let mut events = quick.subscribe().await.unwrap().messages;
    // For some heartbeats, which are refused.
    let refused = || {
        let stats = server.info("commandstats");
        let (_, pings) = stats.split_once("cmdstat_ping:").unwrap();
        let (_, refused) = pings.split_once("rejected_calls=").unwrap();
        refused.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    retry(async || match refused() {
        5.. => Ok(()),
        count => Err(format!("{count} heartbeats")),
    })
    .await;
    publish(&quick, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));

    let other = builder(&server).channel("other").build().unwrap();
    other.subscribe().await.err().unwrap();
    let error = other.publish(b"event").await.unwrap_err().to_string();
    assert!(error.contains("permissions"), "{error}");
    let wrong = server.url().replace("secret", "wrong");
    let stranger = RedisTransport::at(wrong).build().unwrap();
    stranger.publish(b"event").await.unwrap_err();
    stranger.subscribe().await.err().unwrap();
    assert!(!format!("{stranger:?}").contains("wrong"));
}

#[tokio::test]
async fn a_user_who_is_taken_the_channel_away_is_told() {
    let server = RedisServer::start_with_user("app", "secret", "~* &* +@all");
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    let mut redis = server.connect();
    cmd("ACL").arg("SETUSER").arg("app").arg("resetchannels").exec(&mut redis).unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < ms(500), "{took:?}");
}

#[tokio::test]
async fn disconnect_ends_subscriptions_and_the_next_call_connects_anew() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut first = transport.subscribe().await.unwrap().messages;
    let mut second = transport.subscribe().await.unwrap().messages;
    transport.publish(b"event").await.unwrap();
    transport.disconnect().await.unwrap();
    for events in [&mut first, &mut second] {
        assert_eq!(loss(&mut **events).await.0, Delivery::Closed);
    }
    assert_no_task_is_left().await;
    let mut redis = server.connect();
    retry(async || match subscribers(&mut redis) {
        0 => Ok(()),
        count => Err(format!("{count} subscribers")),
    })
    .await;
    let mut events = transport.subscribe().await.unwrap().messages;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *events, 1).await, expected(0..1));
    transport.ping().await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_was_dropped_or_never_came_about_leaves_nothing() {
    let server = RedisServer::start();
    let transport = transport(&server);
    let mut redis = server.connect();
    // Cut short at every point where it waits, until one gets through.
    let mut polls = 0;
    let through = loop {
        let mut subscribing = transport.subscribe();
        let mut left = polls;
        let cut_short = std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(None);
            }
            left -= 1;
            subscribing.as_mut().poll(context).map(Some)
        });
        match cut_short.await {
            Some(subscribed) => break subscribed.unwrap(),
            None => drop(subscribing),
        }
        polls += 1;
    };
    assert!(polls > 2, "{polls}");
    let mut numbers = async |wanted: u64| {
        retry(async || match subscribers(&mut redis) {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} subscribers")),
        })
        .await;
    };
    numbers(1).await;
    drop(through);
    numbers(0).await;
    assert_no_task_is_left().await;
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_task() {
    let mut server = RedisServer::start();
    let transport = transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    transport.publish(b"event").await.unwrap();
    drop(transport);
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
    assert!(
        tokio::time::timeout(ms(50), events.next()).await.is_err(),
        "a subscription outlives its transport"
    );
    drop(events);
    assert_no_task_is_left().await;

    // Nor of one whose server has gone.
    let transport = self::transport(&server);
    let mut events = transport.subscribe().await.unwrap().messages;
    server.kill();
    loss(&mut *events).await;
    assert_no_task_is_left().await;
    drop((transport, events));
}

#[test]
fn all_of_it_may_be_dropped_outside_of_a_runtime_and_ends_with_it() {
    let server = RedisServer::start();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (first, second) = (runtime().unwrap(), runtime().unwrap());
    let transport = transport(&server);
    let subscribed = first.block_on(transport.subscribe()).unwrap();
    let mut events = first.block_on(transport.subscribe()).unwrap().messages;
    first.block_on(transport.publish(b"event")).unwrap();
    let half_done = {
        let mut subscribing = transport.subscribe();
        first.block_on(async {
            let _ = subscribing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        subscribing
    };
    drop(half_done);
    drop(subscribed);
    drop(first);
    let told = second.block_on(async { loss(&mut *events).await.0 });
    assert_eq!(told, Delivery::Closed, "nobody reads any more");
    second.block_on(retry(async || transport.publish(b"event").await));
    drop(second);
    drop(transport);
}

#[test]
fn a_call_without_a_runtime_is_an_error_and_no_panic() {
    let transport = RedisTransport::at("redis://127.0.0.1/").build().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let publishing = transport.publish(b"event").as_mut().poll(&mut context);
    assert!(matches!(publishing, Poll::Ready(Err(_))));
    let subscribing = transport.subscribe().as_mut().poll(&mut context);
    assert!(matches!(subscribing, Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_silent_server_fails_every_call_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", silent.local_addr().unwrap());
    let transport = RedisTransport::at(url).connect_timeout(ms(300)).build().unwrap();
    let since = Instant::now();
    let publishes: Vec<_> = (0..20).map(|_| transport.publish(b"event")).collect();
    let (results, subscribed) =
        tokio::join!(futures_util::future::join_all(publishes), transport.subscribe());
    for result in results {
        result.unwrap_err();
    }
    subscribed.err().unwrap();
    assert!(since.elapsed() < ms(1_500), "{:?}", since.elapsed());
    assert_no_task_is_left().await;
}

#[tokio::test]
async fn connections_and_clients_of_the_applications_own_will_do() {
    let mut server = RedisServer::start();
    let client = redis::Client::open(server.url()).unwrap();
    // With no limit of its own.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let over = || RedisTransport::over(client.clone()).confirm_timeout(ms(1_000));
    let mine = over().publish_over(connection.clone()).build().unwrap();
    let theirs = over().build().unwrap();
    check_delivery_in_order(&mine, &theirs).await;
    check_delivery_in_order(&theirs, &mine).await;

    // It is used, and not closed.
    let clients = |server: &RedisServer| {
        let list: String = cmd("CLIENT").arg("LIST").query(&mut server.connect()).unwrap();
        list.lines().count()
    };
    theirs.disconnect().await.unwrap();
    retry(async || match clients(&server) {
        3 => Ok(()),
        count => Err(format!("{count} clients: the test's two and the application's")),
    })
    .await;
    mine.publish(b"event").await.unwrap();
    assert_eq!(clients(&server), 3);
    mine.disconnect().await.unwrap();
    cmd("PING").exec_async(&mut connection.clone()).await.unwrap();

    server.freeze();
    let publishing = tokio::time::timeout(ms(1_500), mine.publish(b"nobody answers"));
    publishing.await.expect("an answer in time").unwrap_err();
    server.thaw();
    retry(async || mine.publish(b"event").await).await;
    server.kill();
    mine.publish(b"nobody is there").await.unwrap_err();
}

#[tokio::test]
async fn a_replica_is_refused_and_a_master_that_becomes_one_is_left() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let transport = transport(&server);
    transport.publish(b"event").await.unwrap();
    let mut events = transport.subscribe().await.unwrap().messages;
    let (mut redis, port) = (server.connect(), other.port().to_string());
    cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut redis).unwrap();
    transport.publish(b"to few").await.unwrap_err();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut few = server.connect();
    let mut few = few.as_pubsub();
    few.subscribe(CHANNEL).unwrap();
    transport.publish(b"to nobody").await.unwrap_err();
    transport.ping().await.unwrap_err();
    cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut redis).unwrap();
    transport.publish(b"to all").await.unwrap();
    assert_eq!(few.get_message().unwrap().get_payload_bytes(), b"to all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_a_sentinel_names_is_followed() {
    let sentinel = Sentinel::start();
    let master = format!("redis://{}/", Sentinel::MASTER);
    let following = RedisTransport::sentinel([sentinel.url()], master).build().unwrap();
    let mut events = following.subscribe().await.unwrap().messages;
    publish(&following, 0..3).await;
    assert_eq!(take(&mut *events, 3).await, expected(0..3));
    sentinel.failover();
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    let mut events = retry(async || following.subscribe().await).await.messages;
    // The old master takes events that nobody gets, until it is told that it is none any more.
    retry(async || {
        following.publish(b"event").await?;
        let event = tokio::time::timeout(ms(500), events.next()).await?;
        assert_eq!(event, Delivery::Message(b"event".to_vec()));
        Ok::<_, BoxError>(())
    })
    .await;
    assert_eq!(subscribers(&mut sentinel.first_replica().connect()), 1, "the new master's");
}

/// It answers still, and does not know that it is none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_a_sentinel_names_no_more_is_left() {
    let (sentinel, other) = (Sentinel::start(), RedisServer::start());
    let master = format!("redis://{}/", Sentinel::MASTER);
    let following =
        RedisTransport::sentinel([sentinel.url()], master).heartbeat(ms(100)).build().unwrap();
    let mut events = following.subscribe().await.unwrap().messages;
    following.publish(b"event").await.unwrap();
    assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));

    let mut theirs = other.connect();
    let mut theirs = theirs.as_pubsub();
    theirs.subscribe(CHANNEL).unwrap();
    theirs.set_read_timeout(Some(ms(50))).unwrap();
    let mut says = redis::Client::open(sentinel.url()).unwrap().get_connection().unwrap();
    let monitor = ["MONITOR", Sentinel::MASTER, "127.0.0.1", &other.port().to_string(), "1"];
    redis::pipe()
        .cmd("SENTINEL")
        .arg("REMOVE")
        .arg(Sentinel::MASTER)
        .cmd("SENTINEL")
        .arg(&monitor)
        .exec(&mut says)
        .unwrap();
    let (told, took) = loss(&mut *events).await;
    assert_eq!(told, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
    retry(async || {
        following.publish(b"moved").await.unwrap();
        theirs.get_message()
    })
    .await;
    let mut first = sentinel.first_master().connect();
    cmd("PING").exec(&mut first).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_any_node_will_do() {
    let cluster = Cluster::start();
    let all = RedisTransport::cluster(cluster.urls()).build().unwrap();
    for index in 0..3 {
        let node = transport(cluster.node(index));
        let here = node.subscribe().await.unwrap().messages;
        let anywhere = all.subscribe().await.unwrap().messages;
        let numbers = 10 * index..10 * (index + 1);
        publish(&all, numbers.clone()).await;
        for mut events in [here, anywhere] {
            let mut came = Vec::new();
            while came.len() < numbers.len() {
                let told = next(&mut *events).await;
                // What was published to another node before may come late.
                if !expected(0..numbers.start).contains(&told) {
                    came.push(told);
                }
            }
            assert_eq!(came, expected(numbers.clone()));
        }
        all.disconnect().await.unwrap();
    }
    all.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_or_does_not_answer_is_passed_over() {
    let mut cluster = Cluster::start();
    let all = RedisTransport::cluster(cluster.urls()).confirm_timeout(ms(1_000)).build().unwrap();
    let mut events = all.subscribe().await.unwrap().messages;
    let ours = (0..3)
        .find(|index| subscribers(&mut cluster.node(*index).connect()) == 1)
        .expect("one has the subscription");
    cluster.kill(ours);
    assert_eq!(loss(&mut *events).await.0, Delivery::Closed);
    cluster.node((ours + 1) % 3).freeze();
    // Each of the three is the first to be asked once.
    for _ in 0..3 {
        let since = Instant::now();
        let mut events = all.subscribe().await.unwrap().messages;
        assert!(since.elapsed() < ms(2_500), "{:?}", since.elapsed());
        retry(async || all.publish(b"event").await).await;
        assert_eq!(next(&mut *events).await, Delivery::Message(b"event".to_vec()));
        all.disconnect().await.unwrap();
    }
}

#[test]
fn wrong_options_are_refused_by_name_and_with_the_fix() {
    let at = || RedisTransport::at("redis://127.0.0.1/");
    let none = Vec::<String>::new;
    for (option, wrong) in [
        ("redis.url", RedisTransport::at("http://127.0.0.1")),
        ("redis.url", RedisTransport::cluster(["redis://127.0.0.1", "127.0.0.1"])),
        ("redis.cluster", RedisTransport::cluster(none())),
        ("redis.sentinel", RedisTransport::sentinel(none(), "redis://main")),
        ("channel", at().channel("")),
        ("queue_capacity", at().queue_capacity(0)),
        ("connect_timeout", at().connect_timeout(ms(0))),
        ("confirm_timeout", at().confirm_timeout(ms(0))),
        ("heartbeat", at().heartbeat(ms(1))),
    ] {
        let error = wrong.build().unwrap_err();
        assert_eq!(error.option(), option);
        let text = error.to_string();
        assert!(text.starts_with(option) && text.contains("; "), "{text}");
    }
}

#[test]
fn options_can_be_read_from_a_config_file_and_show_no_secret() {
    let options: RedisTransportOptions = toml::from_str(
        r#"
        channel = "shop:invalidations"
        queue_capacity = 100
        heartbeat = "2s"
        "#,
    )
    .unwrap();
    let expected = RedisTransportOptions::default()
        .channel("shop:invalidations")
        .queue_capacity(100)
        .heartbeat(Duration::from_secs(2));
    assert_eq!(options, expected);
    assert_eq!(RedisTransportOptions::default().channel, CHANNEL);
    let builder = RedisTransport::at("redis://user:hunter2@127.0.0.1/").options(options);
    assert!(!format!("{builder:?}").contains("hunter2"));
    assert!(!format!("{:?}", builder.build().unwrap()).contains("hunter2"));
}

/// Whoever waits above has limits of its own, which may be shorter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_abandoned_call_is_replaced() {
    let server = RedisServer::start();
    let proxy = Proxy::to(server.port());
    let transport = by_way_of(&proxy);
    for asks in [true, false] {
        transport.publish(b"before").await.unwrap();
        proxy.set(Mode::Blackhole);
        let limit = ms(50);
        let stopped = match asks {
            true => tokio::time::timeout(limit, transport.ping()).await.is_err(),
            false => tokio::time::timeout(limit, transport.publish(b"lost")).await.is_err(),
        };
        assert!(stopped, "nobody answers");
        proxy.set(Mode::Pass);
        transport.publish(b"after").await.unwrap();
    }
}
