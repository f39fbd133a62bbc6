//! The permissions that JetStream needs of its user: each that is missing is reported, and no
//! message is delivered again and again because its acknowledgement is denied.

use std::time::{Duration, Instant};

use async_nats::{
    ConnectOptions,
    jetstream::{self, consumer::Info},
};
use lazy_layers_cache::{
    Delivery, EventBus, JetStreamOptions, JetStreamTransport, NatsConnection, Transport, WireCodec,
};

use crate::support::{
    Cache, Log, ms,
    nats::NatsServer,
    transports::{TRUST, expected, loss, next, publish, retry, take},
};

/// A user with this permission denied, one for each that a subscription needs.
const DENIED: [(&str, &str); 5] = [
    ("uninformed", "$JS.API.STREAM.INFO.CACHE_INVALIDATIONS"),
    ("unknowing", "$JS.API.CONSUMER.INFO.CACHE_INVALIDATIONS.>"),
    ("uncreated", "$JS.API.CONSUMER.CREATE.CACHE_INVALIDATIONS.>"),
    ("unfed", "$JS.API.CONSUMER.MSG.NEXT.>"),
    ("unacknowledged", "$JS.ACK.>"),
];

/// The permissions that the documentation of the transport lists.
const ALLOWED: &str = r#"
    { user: minimal, password: pw, permissions: {
        publish: { allow: [
            "cache.invalidations", "cache.invalidations.beacons", "_INBOX.>",
            "$JS.API.STREAM.INFO.CACHE_INVALIDATIONS",
            "$JS.API.STREAM.CREATE.CACHE_INVALIDATIONS",
            "$JS.API.CONSUMER.*.CACHE_INVALIDATIONS.>",
            "$JS.API.CONSUMER.*.*.CACHE_INVALIDATIONS.>",
            "$JS.ACK.CACHE_INVALIDATIONS.>"
        ] },
        subscribe: { allow: [ "cache.invalidations.beacons", "_INBOX.>" ] }
    } }
"#;

fn users(more: &str) -> String {
    let denied = DENIED.iter().map(|(user, subject)| {
        let denied = format!("permissions: {{ publish: {{ deny: \"{subject}\" }} }}");
        format!("{{ user: {user}, password: pw, {denied} }}\n")
    });
    let users: String = denied.collect();
    format!("authorization {{ users = [ {{ user: all, password: pw }}\n{users}{ALLOWED}{more}] }}")
}

fn options(server: &NatsServer, user: &str, name: &str) -> JetStreamOptions {
    let connection = NatsConnection::default().servers([server.url_of(user)]);
    let options = JetStreamOptions::durable(name).ack_wait(ms(200));
    options.connection(connection.confirm_timeout(ms(2_000)))
}

fn transport(server: &NatsServer, user: &str, name: &str) -> JetStreamTransport {
    JetStreamTransport::new(options(server, user, name)).unwrap()
}

fn cache(bus: impl Into<EventBus>) -> Cache {
    let builder = Cache::builder().ttl(ms(600_000)).name("test");
    builder.event_bus(bus, WireCodec::new()).build().unwrap()
}

async fn client(server: &NatsServer, user: &str) -> async_nats::Client {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), "pw".to_owned());
    options.connect(server.url()).await.unwrap()
}

async fn consumer(server: &NatsServer, name: &str) -> Info {
    let context = jetstream::new(client(server, "all").await);
    let stream = context.get_stream("CACHE_INVALIDATIONS").await.unwrap();
    stream.consumer_info(name).await.unwrap()
}

#[tokio::test]
async fn the_documented_permissions_suffice() {
    let server = NatsServer::configured(&users(""));
    let bus = EventBus::new(transport(&server, "minimal", "a"));
    let (one, other) = (cache(bus.clone()), cache(transport(&server, "minimal", "b")));
    let log = Log::of(&one);
    for cache in [&one, &other] {
        cache.ready().await.unwrap();
    }
    for round in 0..3 {
        one.set("k", round).await.unwrap();
        other.delete("k").await.unwrap();
        retry(async || one.get_l1("k").map_or(Ok(()), |_| Err("not deleted"))).await;
        // The next subscription replaces the consumer.
        bus.disconnect().await.unwrap();
        retry(async || match one.health().event_bus.unwrap().subscribed {
            true => Ok(()),
            false => Err("not subscribed"),
        })
        .await;
    }
    let events = log.take();
    assert!(!events.iter().any(|event| event.ends_with("error")), "{events:?}");
    assert_eq!(consumer(&server, "a").await.num_redelivered, 0);
}

#[tokio::test]
async fn a_subscription_without_a_permission_is_an_error_that_names_it() {
    let server = NatsServer::configured(&users(""));
    let all = transport(&server, "all", "all");
    publish(&all, 0..3).await;
    for (user, denied) in DENIED {
        let subject = denied.trim_end_matches(['>', '.']);
        let transport = transport(&server, user, user);
        for _ in 0..2 {
            let since = Instant::now();
            let error = transport.subscribe().await.err().unwrap().to_string();
            assert!(error.contains(subject), "{user}: {error}");
            assert!(since.elapsed() < ms(3_000), "{user}: {:?}", since.elapsed());
        }
    }
    for user in ["unfed", "unacknowledged"] {
        // Only the application learns what the server has denied to its client.
        let client = client(&server, user).await;
        let transport =
            JetStreamTransport::with_client(client, options(&server, user, "b")).unwrap();
        let error = transport.subscribe().await.err().unwrap().to_string();
        assert!(error.contains("trial") && error.contains("permissions"), "{user}: {error}");
    }
}

#[tokio::test]
async fn a_cache_whose_acknowledgements_are_denied_says_so_and_receives_nothing() {
    let server = NatsServer::configured(&users(""));
    let peer = cache(transport(&server, "all", "peer"));
    peer.ready().await.unwrap();
    let denied = cache(transport(&server, "unacknowledged", "denied"));
    let log = Log::of(&denied);
    // The first call begins to subscribe.
    denied.set("k", 0).await.unwrap();
    for key in 0..300 {
        peer.delete(&key.to_string()).await.unwrap();
    }
    retry(async || match denied.stats().bus_errors {
        0..4 => Err("too few errors"),
        _ => Ok(()),
    })
    .await;
    assert!(!denied.health().event_bus.unwrap().subscribed);
    let consumer = consumer(&server, "denied").await;
    assert_eq!((consumer.delivered.consumer_sequence, consumer.num_redelivered), (0, 0));
    let events = log.take();
    assert!(events.iter().any(|event| event == "event-bus:subscribe-error"), "{events:?}");
    // Its own messages reach the peer.
    peer.set("k", 1).await.unwrap();
    denied.delete("k").await.unwrap();
    retry(async || peer.get_l1("k").map_or(Ok(()), |_| Err("not deleted"))).await;
}

/// A running subscription, from which the server takes a permission.
#[tokio::test]
async fn a_subscription_ends_when_its_acknowledgements_are_denied_and_resumes_afterwards() {
    let changing = |rights: &str| users(&format!("{{ user: changing, password: pw {rights} }}\n"));
    let server = NatsServer::configured(&changing(""));
    let all = transport(&server, "all", "all");
    let transport = transport(&server, "changing", "a");
    let mut messages = transport.subscribe().await.unwrap().messages;
    publish(&all, 0..1).await;
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    server.reconfigure(&changing(r#", permissions: { publish: { deny: "$JS.ACK.>" } }"#));
    let mut received = 1;
    let ended = async {
        loop {
            publish(&all, received..received + 1).await;
            match next(&mut *messages).await {
                // Some until the server has adopted the change, and none twice.
                Delivery::Message(message) => {
                    assert_eq!(message, received.to_string().into_bytes());
                    received += 1;
                }
                other => return other,
            }
            tokio::time::sleep(ms(10)).await;
        }
    };
    assert_eq!(ended.await, Delivery::Closed);
    let (missed, published) = (received, received + 1);
    let error = transport.subscribe().await.err().unwrap().to_string();
    assert!(error.contains("$JS.ACK."), "{error}");
    server.reconfigure(&changing(""));
    let mut subscribed = retry(async || transport.subscribe().await).await;
    assert!(subscribed.resumed, "nothing was lost");
    assert_eq!(take(&mut *subscribed.messages, 1).await, expected(missed..published));
}

/// The end of an idle subscription, whose last acknowledgement was denied.
#[tokio::test]
async fn the_last_acknowledgement_of_an_idle_subscription_is_watched_too() {
    let changing = |rights: &str| users(&format!("{{ user: changing, password: pw {rights} }}\n"));
    let server = NatsServer::configured(&changing(""));
    let options = options(&server, "changing", "a").ack_wait(Duration::from_secs(30));
    let transport = JetStreamTransport::new(options).unwrap();
    let mut messages = transport.subscribe().await.unwrap().messages;
    server.reconfigure(&changing(r#", permissions: { publish: { deny: "$JS.ACK.>" } }"#));
    retry(async || match self::transport(&server, "changing", "b").subscribe().await {
        Ok(_) => Err("not yet"),
        Err(_) => Ok(()),
    })
    .await;
    publish(&transport, 0..1).await;
    assert_eq!(take(&mut *messages, 1).await, expected(0..1));
    let (end, took) = loss(&mut *messages).await;
    assert_eq!(end, Delivery::Closed);
    assert!(took < TRUST, "{took:?}");
}
