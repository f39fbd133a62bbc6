//! What a NATS server refuses: size, permission and policy, over NATS core and JetStream. A message
//! that the server drops is never a success.

use std::time::Instant;

use async_nats::{
    ConnectOptions,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy},
    },
};
use lazy_layers_cache::{
    BoxError, Delivery, JetStreamOptions, JetStreamTransport, MessageRefused, NatsConnection,
    NatsOptions, NatsTransport, TlsOptions, Transport, WireCodec,
};

use crate::support::{
    Cache, ms,
    nats::NatsServer,
    transports::{expected, next, publish, retry, take},
};

/// Users, each without one permission.
const USERS: &str = r#"
authorization { users = [
    { user: all, password: pw }
    { user: mute, password: pw, permissions: { publish: { deny: "cache.invalidations" } } }
    { user: deaf, password: pw, permissions: { subscribe: { deny: "cache.invalidations" } } }
    { user: unannounced, password: pw,
      permissions: { publish: { deny: "cache.invalidations.beacons" } } }
    { user: unaware, password: pw,
      permissions: { subscribe: { deny: "cache.invalidations.beacons" } } }
    { user: unanswered, password: pw, permissions: { publish: { deny: "_INBOX.>" } } }
    { user: unmanaged, password: pw, permissions: { publish: { deny: "$JS.API.>" } } }
    { user: inboxless, password: pw, permissions: { subscribe: { deny: "_INBOX.>" } } }
] }
"#;

fn connection(url: String) -> NatsConnection {
    NatsConnection::default().servers([url]).confirm_timeout(ms(2_000))
}

fn core(url: String) -> NatsTransport {
    NatsTransport::new(NatsOptions::default().connection(connection(url))).unwrap()
}

fn jetstream(url: String, name: &str) -> JetStreamTransport {
    JetStreamTransport::new(JetStreamOptions::durable(name).connection(connection(url))).unwrap()
}

fn is_refused(error: &BoxError) -> bool {
    error.is::<MessageRefused>()
}

async fn create(server: &NatsServer, config: Config) -> jetstream::stream::Stream {
    let client = async_nats::connect(server.url()).await.unwrap();
    let config = Config {
        name: "CACHE_INVALIDATIONS".to_owned(),
        subjects: vec!["cache.invalidations".to_owned()],
        ..config
    };
    jetstream::new(client).create_stream(config).await.unwrap()
}

#[tokio::test]
async fn a_message_beyond_the_servers_limit_is_refused() {
    let server = NatsServer::configured("max_payload: 64KB");
    let core = core(server.url());
    let jetstream = jetstream(server.url(), "a");
    let transports: [&dyn Transport; 2] = [&core, &jetstream];
    for (transport, subject) in transports.into_iter().zip(["core", "jetstream"]) {
        let mut messages = transport.subscribe().await.unwrap().messages;
        let error = transport.publish(&vec![b'x'; 64 << 10 | 1]).await.unwrap_err();
        assert!(is_refused(&error), "{subject}: {error}");
        let error = transport.announce(&vec![b'x'; 64 << 10 | 1]).await.unwrap_err();
        assert!(is_refused(&error), "{subject}: {error}");
        let largest = vec![b'x'; 64 << 10];
        transport.publish(&largest).await.unwrap();
        assert_eq!(next(&mut *messages).await, Delivery::Message(largest));
    }
}

#[tokio::test]
async fn a_message_without_permission_is_refused_every_time() {
    let server = NatsServer::configured(USERS);
    let all = core(server.url_of("all"));
    let mut received = all.subscribe().await.unwrap().messages;
    let mute = core(server.url_of("mute"));
    let since = Instant::now();
    for _ in 0..20 {
        let error = mute.publish(b"unsubscribed").await.unwrap_err();
        assert!(is_refused(&error) && error.to_string().contains("cache.invalidations"), "{error}");
    }
    let mut own = mute.subscribe().await.unwrap().messages;
    for _ in 0..20 {
        assert!(is_refused(&mute.publish(b"subscribed").await.unwrap_err()));
    }
    let many = (0..20).map(|_| mute.publish(b"at once"));
    for result in futures_util::future::join_all(many).await {
        assert!(is_refused(&result.unwrap_err()));
    }
    assert!(since.elapsed() < ms(2_000), "nothing waits for a timeout: {:?}", since.elapsed());
    publish(&all, 0..1).await;
    for messages in [&mut received, &mut own] {
        assert_eq!(take(&mut **messages, 1).await, expected(0..1), "it is not disturbed");
    }
    let stored = jetstream(server.url_of("mute"), "a");
    stored.ping().await.unwrap();
    assert!(is_refused(&stored.publish(b"message").await.unwrap_err()));
}

#[tokio::test]
async fn a_client_of_the_application_never_confirms_a_message_without_permission() {
    let server = NatsServer::configured(USERS);
    let user = ConnectOptions::with_user_and_password("mute".to_owned(), "pw".to_owned());
    let client = user.connect(server.url()).await.unwrap();
    let options = connection(server.url()).confirm_timeout(ms(300));
    let options = NatsOptions::default().connection(options);
    let mute = NatsTransport::with_client(client, options).unwrap();
    mute.publish(b"unsubscribed").await.unwrap_err();
    let _messages = mute.subscribe().await.unwrap().messages;
    mute.publish(b"subscribed").await.unwrap_err();
    mute.ping().await.unwrap();
}

#[tokio::test]
async fn a_subscription_without_permission_is_an_error() {
    let server = NatsServer::configured(USERS);
    for (user, subject) in [
        ("deaf", "cache.invalidations"),
        ("unaware", "cache.invalidations.beacons"),
        ("unanswered", "_INBOX."),
        ("inboxless", "_INBOX."),
    ] {
        for _ in 0..5 {
            let since = Instant::now();
            let error = core(server.url_of(user)).subscribe().await.err().unwrap().to_string();
            assert!(error.contains(subject), "{user}: {error}");
            assert!(since.elapsed() < ms(1_000), "{user}: {:?}", since.elapsed());
        }
    }
    // Such an instance cannot see the echo, so it cannot know.
    let _messages = core(server.url_of("all")).subscribe().await.unwrap().messages;
    let error = core(server.url_of("deaf")).publish(b"message").await.unwrap_err();
    assert!(!is_refused(&error), "{error}");
    let error = jetstream(server.url_of("unaware"), "a").subscribe().await.err().unwrap();
    assert!(error.to_string().contains("cache.invalidations.beacons"), "{error}");
    let error = jetstream(server.url_of("unmanaged"), "a").subscribe().await.err().unwrap();
    assert!(error.to_string().contains("$JS.API."), "{error}");
}

#[tokio::test]
async fn a_subscription_beyond_the_servers_number_is_an_error() {
    let server = NatsServer::configured("max_subscriptions: 3");
    for _ in 0..5 {
        let transport = core(server.url());
        transport.publish(b"message").await.unwrap();
        transport.subscribe().await.err().expect("it would receive no probes");
    }
}

#[tokio::test]
async fn a_beacon_without_permission_is_refused_when_the_next_one_is_due() {
    let server = NatsServer::configured(USERS);
    let url = server.url_of("unannounced");
    let (core, jetstream) = (core(url.clone()), jetstream(url, "a"));
    let transports: [&dyn Transport; 2] = [&core, &jetstream];
    for transport in transports {
        let error = retry(async || match transport.announce(b"beacon").await {
            Ok(()) => Err("not yet"),
            Err(error) => Ok(error),
        })
        .await;
        assert!(is_refused(&error), "{error}");
    }
}

#[tokio::test]
async fn a_message_beyond_the_streams_limit_is_refused() {
    let server = NatsServer::start();
    let stream = create(&server, Config { max_message_size: 1_000, ..Config::default() }).await;
    let transport = jetstream(server.url(), "a");
    let error = transport.publish(&[b'x'; 1_001]).await.unwrap_err();
    assert!(is_refused(&error), "{error}");
    transport.publish(&[b'x'; 1_000]).await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn a_full_stream_that_discards_new_messages_refuses_them() {
    let full = [
        Config { max_messages: 2, ..Config::default() },
        Config { max_bytes: 600, ..Config::default() },
    ];
    for config in full {
        let server = NatsServer::start();
        let config = Config { discard: DiscardPolicy::New, ..config };
        let stream = create(&server, config).await;
        let transport = jetstream(server.url(), "a");
        let message = [b'x'; 200];
        let error = loop {
            if let Err(error) = transport.publish(&message).await {
                break error;
            }
        };
        assert!(is_refused(&error), "{error}");
        stream.purge().await.unwrap();
        transport.publish(&message).await.unwrap();
    }
}

#[tokio::test]
async fn a_missing_stream_is_no_refusal() {
    let server = NatsServer::start();
    let options = JetStreamOptions::durable("a").ensure_stream(false);
    let transport = JetStreamTransport::new(options.connection(connection(server.url()))).unwrap();
    let error = transport.publish(b"message").await.unwrap_err();
    assert!(!is_refused(&error), "somebody may create it: {error}");
    create(&server, Config::default()).await;
    transport.publish(b"message").await.unwrap();
}

#[tokio::test]
async fn users_and_tokens_in_urls_log_in() {
    let server = NatsServer::configured(
        r#"authorization { users = [ { user: "o'n@il", password: "p:/%w" } ] }"#,
    );
    let address = server.url().replace("nats://", "");
    core(format!("nats://o'n%40il:p%3A%2F%25w@{address}")).ping().await.unwrap();
    core(format!("nats://o'n%40il:wrong@{address}")).ping().await.unwrap_err();
    core(server.url()).ping().await.unwrap_err();

    let server = NatsServer::configured("authorization { token: secret }");
    let address = server.url().replace("nats://", "");
    jetstream(format!("nats://secret@{address}"), "a").ping().await.unwrap();
    jetstream(format!("nats://wrong@{address}"), "a").ping().await.unwrap_err();
    // Both servers of a list are logged in to alike.
    let dead = "nats://secret@127.0.0.1:1".to_owned();
    let both = NatsConnection::default().servers([dead, format!("nats://secret@{address}")]);
    let options = NatsOptions::default().connection(both);
    let transport = NatsTransport::new(options).unwrap();
    retry(async || transport.ping().await).await;
}

#[tokio::test]
async fn a_named_certificate_requires_tls() {
    let tls = NatsServer::start_with_tls();
    let plain = NatsServer::start();
    let trusting = TlsOptions::default().ca_file(tls.authority());
    let connection = connection(plain.url()).connect_timeout(ms(500)).tls(trusting);
    let transport = NatsTransport::new(NatsOptions::default().connection(connection)).unwrap();
    transport.ping().await.unwrap_err();
}

/// Thousands of deletes wait while the server pauses, and are too large for one message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_that_are_too_large_together_reach_the_peer() {
    let server = NatsServer::configured("max_payload: 16KB");
    for kind in ["core", "jetstream"] {
        let build = |name: &str| {
            let builder = Cache::builder().ttl(ms(600_000)).name("test");
            let builder = match kind {
                "core" => builder.name("test").event_bus(core(server.url()), WireCodec::new()),
                _ => {
                    builder.name("test").event_bus(jetstream(server.url(), name), WireCodec::new())
                }
            };
            builder.build().unwrap()
        };
        let (writer, peer) = (build("writer"), build("peer"));
        for cache in [&writer, &peer] {
            cache.ready().await.unwrap();
        }
        let keys: Vec<String> = (0..2_000).map(|key| format!("{key:060}")).collect();
        for key in &keys {
            peer.set(key, 1).await.unwrap();
        }
        server.freeze();
        for key in &keys {
            writer.delete(key).await.unwrap();
        }
        server.thaw();
        retry(async || {
            let left = keys.iter().filter(|key| peer.get_l1(*key).is_some()).count();
            let waiting = writer.health().event_bus.unwrap().waiting;
            if left + waiting == 0 { Ok(()) } else { Err(format!("{kind}: {left}, {waiting}")) }
        })
        .await;
        assert!(writer.stats().bus_refused > 0, "{kind}");
        writer.close().await;
        peer.close().await;
    }
}
