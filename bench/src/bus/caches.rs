//! Fifty caches of a manager beside one: what they cost a process, and the propagation of a delete.

use std::time::{Duration, Instant};

use lazy_layers_cache::{
    CacheManager, EventBus, JetStreamOptions, JetStreamTransport, LazyLayersCache, NatsConnection,
    NatsOptions, NatsTransport, RabbitMqOptions, RabbitMqTransport, RedisStore, RedisTransport,
    Transport, testing::SharedBus,
};
use tokio::runtime::Handle;

use super::{
    propagation::{Pair, quantile},
    servers::{nats::NatsServer, rabbitmq::RabbitServer, redis::RedisServer},
};
use crate::{
    drop_probe::Watched,
    measure::{block_on, in_a_process, resident, workers},
    report::{AtMost, Report},
};

/// The measure of a child process: an empty cache. Its argument is the URL of a Redis.
pub(crate) const EMPTY: &str = "--empty-cache";

const MANY: usize = 50;
const SAMPLES: usize = 2_000;
const WARM_UP: usize = 400;

pub(crate) fn run(report: &mut Report) {
    report.title("fifty caches of a manager beside one");
    let redis = RedisServer::start();
    for caches in [1, MANY] {
        let started = block_on(start(&redis.url(), caches));
        report.line(&format!("{caches:>2} caches start in {started:?}, with Redis and a bus"));
        if caches == MANY {
            report.check("at most 50 ms", started <= Duration::from_millis(50));
        }
    }
    let bytes = in_a_process(EMPTY, &redis.url())[0];
    report.line(&format!("{:.1} KiB of memory for an empty cache", bytes / 1024.0));
    report.check("at most 64 KiB", bytes <= 64.0 * 1024.0);
    let [one, many] = [1, MANY].map(|caches| block_on(idle_messages(caches)));
    report
        .line(&format!("two idle instances: {one:.1} messages/s with 1 cache, {many:.1} with 50"));
    report.check("as many, within one a second", (one - many).abs() <= 1.0);
    report.end();

    report.title("a delete with 50 caches of a manager, beside one with 1; 2 workers");
    let runtime = workers(2);
    let table = runtime.spawn(async {
        let nats = NatsServer::start_without_jetstream();
        let stream = NatsServer::start();
        let rabbit = RabbitServer::start();
        let redis = RedisServer::start();
        let connection = |server: &NatsServer| NatsConnection::default().servers([server.url()]);
        let jetstream = |caches: usize, side: &str| {
            let options = JetStreamOptions::durable(format!("{side}-{caches}"));
            let options = options.subject(format!("bench-{caches}"));
            let options = options.stream(format!("BENCH_{caches}"));
            JetStreamTransport::new(options.connection(connection(&stream)))
        };
        let core = |caches: usize| {
            let options = NatsOptions::default().subject(format!("bench-{caches}"));
            NatsTransport::new(options.connection(connection(&nats))).expect("valid options")
        };
        let pubsub = |caches: usize| {
            let built = RedisTransport::at(redis.url()).channel(format!("bench-{caches}")).build();
            built.expect("valid options")
        };
        let rabbitmq = |caches: usize| {
            let options = RabbitMqOptions::new(rabbit.url()).exchange(format!("bench-{caches}"));
            RabbitMqTransport::new(options).expect("valid options")
        };
        [
            ("Redis Pub/Sub", measure(redis.port(), |caches, _| pubsub(caches)).await),
            ("NATS core", measure(nats.port(), |caches, _| core(caches)).await),
            (
                "NATS JetStream",
                measure(stream.port(), |caches, side| {
                    jetstream(caches, side).expect("valid options")
                })
                .await,
            ),
            ("RabbitMQ", measure(rabbit.port(), |caches, _| rabbitmq(caches)).await),
        ]
    });
    for (name, [one, many]) in runtime.block_on(table).expect("it is measured") {
        report.line(&format!(
            "{name}: {} connections and {} tasks with 1 cache, {} and {} with 50",
            one.connections, one.tasks, many.connections, many.tasks
        ));
        let is_equal = (one.connections, one.tasks) == (many.connections, many.tasks);
        report.check("as many connections and tasks", is_equal);
        for (of_all, what, limit) in
            [(0.5, "p50", None), (0.99, "p99", Some(AtMost { limit: 1.1, of: "one cache" }))]
        {
            let [base, ours] = [&one, &many].map(|it| quantile(&it.seconds, of_all) * 1e6);
            let row = format!("{name}, {what} ({base:.1} µs with 1)");
            report.row(&row, ours, "µs", ours / base, limit.as_ref());
        }
    }
    report.end();
}

/// The time to build a manager and its caches. Nothing of it waits for a server.
async fn start(redis: &str, caches: usize) -> Duration {
    let begun = Instant::now();
    let built = manager(redis);
    let built: Vec<LazyLayersCache<u64, String>> = (0..caches)
        .map(|number| built.cache(&format!("cache-{number}")).build().expect("valid options"))
        .collect();
    let took = begun.elapsed();
    drop(built);
    took
}

fn manager(redis: &str) -> CacheManager {
    let bus = RedisTransport::at(redis).build().expect("valid options");
    let built = CacheManager::builder().redis(RedisStore::at(redis));
    built.event_bus(EventBus::new(bus)).build().expect("valid options")
}

/// Bytes of memory of a cache with L2 and a bus and without entries.
pub(crate) fn empty(redis: &str) -> Vec<f64> {
    vec![block_on(memory(redis))]
}

async fn memory(redis: &str) -> f64 {
    const CACHES: usize = 1_000;
    let manager = manager(redis);
    let build = |number: usize| -> LazyLayersCache<u64, String> {
        manager.cache(&format!("cache-{number}")).build().expect("valid options")
    };
    let _first = build(CACHES);
    let before = resident();
    let caches: Vec<_> = (0..CACHES).map(build).collect();
    (resident() - before) / caches.len() as f64
}

/// Messages per second of two instances that are idle.
async fn idle_messages(caches: usize) -> f64 {
    const WATCHED: Duration = Duration::from_secs(10);
    let bus = SharedBus::new(1);
    let instance = || {
        let built = CacheManager::builder().event_bus(EventBus::new(bus.link())).build();
        let manager = built.expect("valid options");
        let caches: Vec<LazyLayersCache<u64, String>> = (0..caches)
            .map(|number| manager.cache(&format!("cache-{number}")).build().expect("valid options"))
            .collect();
        (manager, caches)
    };
    let instances = [instance(), instance()];
    for (manager, caches) in &instances {
        manager.ready().await.expect("it listens");
        caches[0].delete(&1).await.expect("it is open");
    }
    // Waits until the frequent beacons after a publication are over.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let before = bus.published();
    tokio::time::sleep(WATCHED).await;
    (bus.published() - before) as f64 / WATCHED.as_secs_f64()
}

/// What the caches of two managers cost.
struct Measured {
    connections: usize,
    tasks: usize,
    /// Of each delete, in turns over the caches.
    seconds: Vec<f64>,
}

/// Measures pairs of managers with one cache and with fifty, in turns.
async fn measure<T: Transport>(port: u16, transport: impl Fn(usize, &str) -> T) -> [Measured; 2] {
    let mut measured = Vec::new();
    let mut fleets = Vec::new();
    for caches in [1, MANY] {
        let (connections, tasks) = (connections_to(port), settled_tasks().await);
        let manager = |side: &str| {
            let bus = EventBus::new(transport(caches, side));
            CacheManager::builder().event_bus(bus).build().expect("valid options")
        };
        let [deletes, hears] = ["deletes", "hears"].map(manager);
        let build = |manager: &CacheManager, number: usize| -> LazyLayersCache<String, Watched> {
            let cache = manager.cache(&format!("cache-{number}")).broadcast_set(false);
            cache.build().expect("valid options")
        };
        let pairs: Vec<Pair> = (0..caches)
            .map(|number| Pair::of(build(&deletes, number), build(&hears, number)))
            .collect();
        for manager in [&deletes, &hears] {
            manager.ready().await.expect("it listens");
        }
        // Starts the tasks that publish.
        for pair in &pairs {
            pair.deletes.delete("other").await.expect("it is open");
        }
        measured.push(Measured {
            connections: connections_to(port) - connections,
            tasks: settled_tasks().await - tasks,
            seconds: Vec::with_capacity(SAMPLES),
        });
        fleets.push((pairs, [deletes, hears]));
    }
    for number in 0..WARM_UP + SAMPLES {
        for ((pairs, _), measured) in fleets.iter_mut().zip(&mut measured) {
            let at = number % pairs.len();
            let pair = &mut pairs[at];
            pair.fill().await;
            let seconds = pair.sample().await;
            if number >= WARM_UP {
                measured.seconds.push(seconds);
            }
        }
    }
    for (_, managers) in fleets {
        for manager in managers {
            manager.close().await;
        }
    }
    let Ok(measured) = measured.try_into() else { unreachable!("two were measured") };
    measured
}

/// The least of the counts of a second: a message on its way has a task for a moment, and so has a
/// client that was just closed.
async fn settled_tasks() -> usize {
    let mut least = usize::MAX;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        least = least.min(Handle::current().metrics().num_alive_tasks());
    }
    least
}

/// The connections of this machine to a local port.
fn connections_to(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let to_port = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        let remote = words.next().and_then(|remote| remote.split(':').nth(1));
        remote == Some(&*format!("{port:04X}")) && words.next() == Some(ESTABLISHED)
    };
    all.lines().filter(to_port).count()
}
