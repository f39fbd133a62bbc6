//! The permissions that the manual prints suffice: each test gives a server exactly these rules,
//! and uses all of the library as the user that has them.

use lazy_layers_cache::{
    DistributedLock, FailSafe, JetStreamOptions, JetStreamTransport, NatsConnection, NatsOptions,
    NatsTransport, NegativeCache, RabbitMqOptions, RedisStore, RedisStoreBuilder, RedisTransport,
    RedisTransportBuilder, Store, WireCodec,
    testing::{check_store, check_transport},
};
use redis::cmd;

use crate::support::{
    Cache, cluster::Cluster, ms, nats::NatsServer, rabbit_place::transport, rabbitmq::RabbitServer,
    redis::RedisServer,
};

const REDIS: &str = include_str!("../../docs/redis.md");
const SECURITY: &str = include_str!("../../docs/security.md");

/// The lines of a page that begin so.
fn lines<'a>(page: &'a str, start: &str) -> Vec<&'a str> {
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with(start)).collect();
    assert!(!found.is_empty(), "no line begins with {start}");
    found
}

/// The code block of a page that contains a text.
fn block<'a>(page: &'a str, text: &str) -> &'a str {
    let mut blocks = page.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains(text)).expect(text);
    block.split_once('\n').unwrap().1
}

/// Gives a server the users of the manual.
fn add_users(server: &RedisServer, for_a_cluster: bool) {
    for line in lines(REDIS, "ACL SETUSER ") {
        if line.contains("cluster") && !for_a_cluster {
            continue;
        }
        let mut words = line.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>()).exec(&mut server.connect()).unwrap();
    }
}

fn url_of(url: &str, user: &str) -> String {
    url.replace("redis://", &format!("redis://{user}:change-me@"))
}

/// What the server has denied to its users. The client tells servers its name and version, which
/// versions before 7.2 do not know.
fn denied(server: &RedisServer) -> Vec<String> {
    let log: Vec<redis::Value> = cmd("ACL").arg("LOG").query(&mut server.connect()).unwrap();
    let entries = log.iter().map(|entry| format!("{entry:?}"));
    entries.filter(|entry| !entry.contains("client|setinfo")).collect()
}

async fn is_used(store: RedisStoreBuilder, bus: RedisTransportBuilder) {
    let builder = Cache::builder().name("users").l2(store.build().unwrap(), WireCodec::new());
    let builder = builder.fail_safe(FailSafe::enabled()).negative_cache(NegativeCache::enabled());
    let builder = builder.distributed_lock(DistributedLock::enabled()).without_l1();
    let cache = builder.event_bus(bus.build().unwrap(), WireCodec::new()).build().unwrap();
    cache.ready().await.unwrap();
    let keys = || (0..200).map(|number| format!("user:{}", number % 20));
    for _ in 0..3 {
        // Concurrent reads, most of them hits, use other commands.
        let reads = keys().map(|key| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let loaded = (key != "user:3").then_some(7);
                let load = move || async move { Ok::<_, std::io::Error>(loaded) };
                cache.get_or_set(&key, load).await.unwrap();
            })
        });
        for read in reads.collect::<Vec<_>>() {
            read.await.unwrap();
        }
    }
    assert!(cache.set("a", 1).await.unwrap().settled(ms(5_000)).await);
    assert!(cache.delete("user:7").await.unwrap().settled(ms(5_000)).await);
    assert!(cache.size().await > 0);
    assert!(cache.delete_by_pattern("user:1*").await.unwrap().settled(ms(5_000)).await);
    assert!(cache.clear().await.unwrap().settled(ms(5_000)).await);
    assert_eq!((cache.size().await, cache.stats().l2_errors), (0, 0));
    cache.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_for_redis_suffice() {
    let server = RedisServer::start();
    add_users(&server, false);
    let of = |user| url_of(&server.url(), user);
    let store = || RedisStore::at(of("users-l2"));
    check_store(&store().prefix("users:cache:").build().unwrap()).await;
    for store in [store(), store().use_index(false), store().max_entries(1)] {
        is_used(store, RedisTransport::at(of("users-bus"))).await;
    }
    // As after a restart of Redis, with an index and without one.
    for use_index in [true, false] {
        let run = cmd("SET").arg("users:cache:__run").arg("another").to_owned();
        run.exec(&mut server.connect()).unwrap();
        let restarted = store().prefix("users:cache:").use_index(use_index).build().unwrap();
        assert!(restarted.get("k", false).await.unwrap().is_none());
        assert_eq!(restarted.times_emptied(), 1);
    }
    assert_eq!(denied(&server), [""; 0]);
    let bus = || RedisTransport::at(of("users-bus")).build().unwrap();
    check_transport(&bus(), &bus()).await;
    assert_eq!(denied(&server), [""; 0]);
    let other = RedisStore::at(of("users-l2")).prefix("mails:cache:").build().unwrap();
    other.get("k", false).await.unwrap_err();
    assert_ne!(denied(&server), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_for_a_cluster_suffice() {
    let cluster = Cluster::start();
    let nodes = || (0..3).map(|index| cluster.node(index));
    nodes().for_each(|node| add_users(node, true));
    let of = |user: &'static str| cluster.urls().into_iter().map(move |url| url_of(&url, user));
    let store = || RedisStore::cluster(of("users-l2"));
    check_store(&store().prefix("users:cache:").build().unwrap()).await;
    is_used(store(), RedisTransport::cluster(of("users-bus"))).await;
    nodes().for_each(|node| assert_eq!(denied(node), [""; 0]));
}

#[tokio::test]
async fn the_permissions_for_nats_suffice() {
    let config = block(SECURITY, "authorization {").replace("change-me", "pw");
    let server = NatsServer::configured(&config);
    let connection = |user| NatsConnection::default().servers([server.url_of(user)]);
    let core = || NatsOptions::default().connection(connection("users-core"));
    let [one, other] = [core(), core()].map(|options| NatsTransport::new(options).unwrap());
    check_transport(&one, &other).await;
    let durable = |name| JetStreamOptions::durable(name).connection(connection("users-jetstream"));
    let [one, other] =
        ["shop-1-cache", "shop-2-cache"].map(|it| JetStreamTransport::new(durable(it)).unwrap());
    check_transport(&one, &other).await;
}

#[tokio::test]
async fn the_permissions_for_rabbitmq_suffice() {
    let server = RabbitServer::shared();
    for line in lines(SECURITY, "rabbitmqctl ") {
        let words = line.split(' ').skip(1).map(|word| word.trim_matches('\''));
        server.ctl(&words.collect::<Vec<_>>());
    }
    let url = server.url().replace("guest:guest", "users-cache:change-me");
    // One exchange for both kinds of queues.
    let options = || RabbitMqOptions::new(&url).durable(true);
    check_transport(&transport(options()), &transport(options())).await;
    let durable = |name| transport(options().durable_queue(name));
    check_transport(&durable("shop-1-cache"), &durable("shop-2-cache")).await;
}
