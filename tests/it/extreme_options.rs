//! The largest numbers and durations of every adapter: `build()` refuses them by name, or they work
//! on a real server. "No limit" is often written so.

use std::time::Duration;

use lazy_layers_cache::{
    BuildError, CacheOptions, CircuitBreaker, Coalescing, DistributedLock, EventBusOptions,
    EventDedupe, FailSafe, JetStreamOptions, JetStreamTransport, L1Options, L2Options, L2Timeouts,
    LazyLayersCache, LeaseRequest, LeaseResponse, LockResponse, NatsConnection, NatsOptions,
    NatsTransport, NegativeCache, Publication, RabbitMqOptions, RabbitMqTransport, RedisOptions,
    RedisStore, RedisTransport, Store, Timeouts, Transport, WireCodec,
    testing::{check_store, check_transport},
};
use tokio::time::timeout;

use crate::support::{
    REFRESH,
    broker::{Broker, Kind},
    fake_sentinel::FakeSentinel,
    ms, publication,
    redis::RedisServer,
};

/// The largest duration that adapters accept.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn refused<T>(built: Result<T, BuildError>, option: &str) {
    let Err(error) = built else { panic!("{option} is not refused") };
    assert_eq!(error.option(), option);
    let text = format!("{option} is longer than 365 days; write at most 365 days");
    assert!(error.to_string().starts_with(&text), "{error}");
}

#[test]
fn each_duration_of_an_adapter_has_a_maximum() {
    for longer in [YEAR + Duration::from_nanos(1), Duration::MAX] {
        let store = || RedisStore::at("redis://127.0.0.1/");
        let with = |set: fn(RedisOptions, Duration) -> RedisOptions| {
            store().options(set(RedisOptions::default(), longer)).build()
        };
        refused(with(RedisOptions::connect_timeout), "redis.connect_timeout");
        refused(with(RedisOptions::check_interval), "redis.check_interval");
        let sentinel = RedisStore::sentinel(["redis://127.0.0.1/"], "redis://main/");
        let options = RedisOptions::default().connect_timeout(longer);
        refused(sentinel.options(options).build(), "redis.connect_timeout");

        let bus = || RedisTransport::at("redis://127.0.0.1/");
        refused(bus().connect_timeout(longer).build(), "connect_timeout");
        refused(bus().confirm_timeout(longer).build(), "confirm_timeout");
        refused(bus().heartbeat(longer).build(), "heartbeat");

        for (option, set) in [
            ("connection.connect_timeout", NatsConnection::connect_timeout as fn(_, _) -> _),
            ("connection.confirm_timeout", NatsConnection::confirm_timeout),
            ("connection.heartbeat", NatsConnection::heartbeat),
        ] {
            let connection: NatsConnection = set(NatsConnection::default(), longer);
            let nats = NatsOptions::default().connection(connection.clone());
            refused(NatsTransport::new(nats), option);
            let jetstream = JetStreamOptions::durable("a").connection(connection);
            refused(JetStreamTransport::new(jetstream), option);
        }
        for (option, set) in [
            ("max_age", JetStreamOptions::max_age as fn(_, _) -> _),
            ("ack_wait", JetStreamOptions::ack_wait),
            ("inactive_threshold", JetStreamOptions::inactive_threshold),
        ] {
            refused(JetStreamTransport::new(set(JetStreamOptions::durable("a"), longer)), option);
        }

        let rabbit = || RabbitMqOptions::new("amqp://127.0.0.1:5672/%2f");
        for (option, set) in [
            ("connect_timeout", RabbitMqOptions::connect_timeout as fn(_, _) -> _),
            ("confirm_timeout", RabbitMqOptions::confirm_timeout),
            ("heartbeat", RabbitMqOptions::heartbeat),
        ] {
            refused(RabbitMqTransport::new(set(rabbit(), longer)), option);
        }
        let url = format!("amqp://127.0.0.1/%2f?connection_timeout={}", u64::MAX);
        let error = RabbitMqTransport::new(RabbitMqOptions::new(url)).unwrap_err();
        let text = "url has a value of `connection_timeout` that is not valid";
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

/// Everything at its maximum.
fn extreme_options() -> RedisOptions {
    let options = RedisOptions::default().scan_count(usize::MAX).batch_size(usize::MAX);
    options.max_payload_bytes(usize::MAX).connect_timeout(YEAR).check_interval(YEAR)
}

#[tokio::test]
async fn a_store_with_the_largest_options_works() {
    let server = RedisServer::start();
    for (prefix, options) in [
        ("a:", extreme_options().max_entries(usize::MAX)),
        ("b:", extreme_options().use_index(false)),
    ] {
        let store = RedisStore::at(server.url()).options(options.prefix(prefix)).build().unwrap();
        check_store(&store).await;
    }
}

/// The longest ttls and leases; a copy; a read alone and reads at once, also plain ones.
#[tokio::test]
async fn values_leases_and_locks_of_the_longest_time_work() {
    let server = RedisServer::start();
    let store = RedisStore::at(server.url()).options(extreme_options()).build().unwrap();
    let forever = Duration::MAX;
    let request = LeaseRequest { lease_for: forever, ..REFRESH };
    let lease = match store.get_or_lease("k", request).await.unwrap() {
        LeaseResponse::Load { lease: Some(lease), .. } => lease,
        other => panic!("{other:?}"),
    };
    assert!(store.extend_lease("k", &lease, forever).await.unwrap());
    assert!(store.publish("k", &lease, publication("1", forever)).await.unwrap());
    let lease = store.acquire_write_lease("l", forever).await.unwrap().unwrap();
    assert!(store.publish("l", &lease, publication("2", forever)).await.unwrap());

    let lease = store.acquire_write_lease("copied", forever).await.unwrap().unwrap();
    let value = Publication::Value { value: b"3".to_vec(), ttl: forever, stale_for: forever };
    assert!(store.publish("copied", &lease, value).await.unwrap());
    let copied = store.get("copied", true).await.unwrap().unwrap();
    assert!(copied.stale_for > YEAR && copied.ttl.unwrap() > YEAR, "{copied:?}");
    let lease = store.acquire_write_lease("absent", forever).await.unwrap().unwrap();
    assert!(store.publish("absent", &lease, Publication::Missing { ttl: forever }).await.unwrap());
    let with_missing = LeaseRequest { refresh: false, with_missing: true, ..REFRESH };
    let absent = store.get_or_lease("absent", with_missing).await.unwrap();
    assert!(matches!(absent, LeaseResponse::Missing(ttl) if ttl > YEAR), "{absent:?}");

    for _ in 0..100 {
        let read = store.get("k", true).await.unwrap().unwrap();
        assert_eq!(read.value, b"1");
        // At once, so that both are in one batch.
        let fresh = LeaseRequest { refresh: false, ..REFRESH };
        let (one, other) =
            tokio::join!(store.get_or_lease("k", fresh), store.get_or_lease("l", fresh));
        for read in [one, other] {
            assert!(matches!(read.unwrap(), LeaseResponse::Fresh(_)));
        }
        let (one, other) = tokio::join!(store.get("k", false), store.get("l", false));
        assert!(one.unwrap().is_some() && other.unwrap().is_some());
    }
    assert_eq!(store.lock("k", "me", forever, None).await.unwrap(), LockResponse::Acquired);
    assert!(store.extend("k", "me", forever).await.unwrap());
    store.unlock("k", "me", None).await.unwrap();
}

/// Many keys, so that a step of a scan and a request of a delete are as large as they get.
#[tokio::test]
async fn all_keys_are_counted_and_deleted_with_the_largest_steps() {
    const KEYS: usize = 30_000;
    let server = RedisServer::start();
    for use_index in [true, false] {
        let options = extreme_options().use_index(use_index);
        let store = RedisStore::at(server.url()).options(options).build().unwrap();
        assert!(store.get("k", false).await.unwrap().is_none());
        let mut values = redis::pipe();
        for key in 0..KEYS {
            values.cmd("SET").arg(format!("cache:{key}")).arg("v").ignore();
            values.cmd("ZADD").arg("cache:__index").arg(1).arg(format!("cache:{key}")).ignore();
        }
        values.exec(&mut server.connect()).unwrap();
        assert_eq!(store.size().await.unwrap(), KEYS as u64);
        store.delete_matching("*").await.unwrap();
        assert_eq!(store.size().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_master_is_found_with_the_longest_timeouts() {
    let server = RedisServer::start();
    let sentinel = FakeSentinel::naming(server.port(), 1);
    let store = RedisStore::sentinel([sentinel.url()], "redis://main/").options(extreme_options());
    assert!(store.build().unwrap().get("k", false).await.unwrap().is_none());
}

/// Every number and duration of a cache at its maximum.
fn extreme_cache() -> CacheOptions {
    let (forever, all) = (Duration::MAX, usize::MAX);
    let breaker = || CircuitBreaker::default().cooldown(forever);
    let bus = EventBusOptions::default().trust_timeout(forever).publish_timeout(forever);
    CacheOptions::default()
        .name("users")
        .ttl(forever)
        .ttl_jitter(0.5)
        .close_timeout(forever)
        .l1(L1Options::default().max_entries(all).ttl(forever))
        .l2(L2Options::default().ttl(forever).max_key_bytes(all))
        .l2_timeouts(L2Timeouts::default().read(forever).write(forever).pattern(forever))
        .l2_circuit_breaker(breaker())
        .event_bus_circuit_breaker(breaker())
        .inflight(Coalescing::default().ttl(forever).max_entries(all).max_followers(all))
        .distributed_lock(
            DistributedLock::enabled().ttl(forever).wait_timeout(forever).poll(forever),
        )
        .negative_cache(NegativeCache::enabled().ttl(forever).max_entries(all))
        .fail_safe(FailSafe::enabled().stale_ttl(forever).throttle(forever))
        .timeouts(Timeouts::none().soft(forever).hard(forever))
        .event_dedupe(EventDedupe::default().max_entries(all).ttl(forever))
        .event_bus(bus.outbox_max_entries(all).outbox_max_bytes(all))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_with_the_largest_options_works() {
    let server = RedisServer::start();
    let instance = || {
        let store = RedisStore::at(server.url()).options(extreme_options()).build().unwrap();
        let bus = RedisTransport::at(server.url()).build().unwrap();
        LazyLayersCache::<String, u32>::builder()
            .options(extreme_cache())
            .l2(store, WireCodec::new())
            .event_bus(bus, WireCodec::new())
            .build()
            .unwrap()
    };
    let (one, other) = (instance(), instance());
    let use_both = async {
        one.ready().await.unwrap();
        other.ready().await.unwrap();
        for key in ["a", "b", "c"] {
            let load = || async { Ok::<_, std::io::Error>(1_u32) };
            assert_eq!(*one.get_or_set(key, load).await.unwrap(), 1);
            assert_eq!(*other.get(key).await.unwrap(), 1);
        }
        let absent = || async { Ok::<_, std::io::Error>(None::<u32>) };
        assert!(one.get_or_set("none", absent).await.unwrap().is_none());
        assert!(other.get_or_set("none", absent).await.unwrap().is_none());
        assert!(one.set("a", 2).await.unwrap().is_complete());
        assert!(one.delete("b").await.unwrap().is_complete());
        assert!(one.delete_by_pattern("c*").await.unwrap().is_complete());
        while other.get("a").await.as_deref() != Some(&2) || other.has("b").await {
            tokio::time::sleep(ms(5)).await;
        }
        while other.has("c").await {
            tokio::time::sleep(ms(5)).await;
        }
        let fails = || async { Err::<u32, _>(std::io::Error::other("down")) };
        other.get_or_set("d", fails).await.unwrap_err();
        let _ = (one.stats(), one.health(), one.explain("a").await, one.size().await);
        one.close().await;
        other.close().await;
    };
    timeout(Duration::from_secs(60), use_both).await.unwrap();
}

/// A transport with every duration and size at its maximum.
fn extreme_transport(broker: &Broker, instance: &str) -> Box<dyn Transport> {
    let port = broker.port();
    let connection = NatsConnection::default()
        .servers([format!("nats://127.0.0.1:{port}")])
        .connect_timeout(YEAR)
        .confirm_timeout(YEAR)
        .heartbeat(YEAR);
    let rabbit = RabbitMqOptions::new(format!("amqp://guest:guest@127.0.0.1:{port}/%2f"))
        .connect_timeout(YEAR)
        .confirm_timeout(YEAR)
        .heartbeat(YEAR)
        .prefetch(u16::MAX)
        .queue_max_bytes(usize::MAX);
    match broker.kind {
        Kind::Redis => {
            let bus = RedisTransport::at(format!("redis://127.0.0.1:{port}/"))
                .connect_timeout(YEAR)
                .confirm_timeout(YEAR)
                .heartbeat(YEAR)
                .queue_capacity(usize::MAX)
                .queue_max_bytes(usize::MAX);
            Box::new(bus.build().unwrap())
        }
        Kind::Nats => {
            let options = NatsOptions::default()
                .connection(connection)
                .queue_capacity(usize::MAX)
                .queue_max_bytes(usize::MAX);
            Box::new(NatsTransport::new(options).unwrap())
        }
        Kind::JetStream => {
            let options = JetStreamOptions::durable(instance)
                .connection(connection)
                .max_age(YEAR)
                .max_messages(i64::MAX as u64)
                .ack_wait(YEAR)
                .max_deliver(u32::MAX)
                .prefetch(u16::MAX)
                .queue_max_bytes(usize::MAX)
                .inactive_threshold(YEAR);
            Box::new(JetStreamTransport::new(options).unwrap())
        }
        Kind::Transient => Box::new(RabbitMqTransport::new(rabbit).unwrap()),
        Kind::Durable => {
            let expires = Duration::from_secs(49 * 86_400);
            let durable = rabbit.durable_queue(instance).queue_expires(expires);
            Box::new(RabbitMqTransport::new(durable).unwrap())
        }
    }
}

async fn works_with_the_largest_options(kind: Kind) {
    let broker = Broker::start(kind);
    let [one, other] = ["one", "other"].map(|instance| extreme_transport(&broker, instance));
    // A limit of the test, since the transports have none.
    let checked = timeout(Duration::from_secs(240), check_transport(&*one, &*other)).await;
    assert!(checked.is_ok(), "{kind:?} does not answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_works_with_the_largest_options() {
    works_with_the_largest_options(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_works_with_the_largest_options() {
    works_with_the_largest_options(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_works_with_the_largest_options() {
    works_with_the_largest_options(Kind::JetStream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_works_with_the_largest_options() {
    works_with_the_largest_options(Kind::Transient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_with_durable_queues_works_with_the_largest_options() {
    works_with_the_largest_options(Kind::Durable).await;
}
