//! Propagation: the time from the call of delete on one instance until the value is gone from L1 of
//! another, in turns with the transport's own client and the same confirmations.
//!
//! The value's `Drop` reports the time: L1 held the last reference.
//!
//! One table has one delete after another, as in a busy service. Another has a pause of a
//! millisecond before each, so that the processor's caches are cold and the workers sleep. There
//! the ratio depends on the amount of code that is fetched, so it has no limit.

use std::{
    io,
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    JetStreamOptions, JetStreamTransport, LazyLayersCache, LocalTransport, NatsConnection,
    NatsOptions, NatsTransport, RabbitMqOptions, RabbitMqTransport, RedisTransport, Transport,
    WireCodec,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    bare::Bare,
    servers::{nats::NatsServer, rabbitmq::RabbitServer, redis::RedisServer},
};
use crate::{
    drop_probe::Watched,
    measure::workers,
    report::{AtMost, Report},
};

const SAMPLES: usize = 2_000;
const WARM_UP: usize = 200;
const KEY: &str = "product:00000007";
const REST: Duration = Duration::from_millis(1);

/// Two instances.
pub(super) struct Pair {
    pub(super) deletes: LazyLayersCache<String, Watched>,
    hears: LazyLayersCache<String, Watched>,
    sender: UnboundedSender<Instant>,
    gone: UnboundedReceiver<Instant>,
}

/// Seconds of each sample.
#[derive(Default)]
struct Samples {
    ours: Vec<f64>,
    bare: Vec<f64>,
}

/// The result of one transport.
struct Measured {
    busy: Samples,
    rested: Samples,
}

pub(crate) fn run(report: &mut Report) {
    report.title("a delete, from its call to a peer's memory, beside the bare client; 2 workers");
    let runtime = workers(2);
    // On a worker thread, as all other work: the thread that blocks on the runtime is none.
    let table = runtime.spawn(async {
        [
            ("local", local().await),
            ("Redis Pub/Sub", redis().await),
            ("NATS core", nats().await),
            ("NATS JetStream", jetstream().await),
            ("RabbitMQ", rabbitmq().await),
        ]
    });
    for (name, measured) in runtime.block_on(table).expect("it is measured") {
        measured.tell(report, name);
    }
    report.note(
        "The local transport alone is a channel within the process; ours also encodes the message, \
         decodes it and applies it.",
    );
    report.end();
}

async fn local() -> Measured {
    let transport = LocalTransport::new();
    measure(Pair::over(transport.clone(), transport).await, Bare::local().await).await
}

async fn redis() -> Measured {
    let server = RedisServer::start();
    let transport = || RedisTransport::at(server.url()).build().expect("valid options");
    measure(Pair::over(transport(), transport()).await, Bare::redis(&server).await).await
}

async fn nats() -> Measured {
    let server = NatsServer::start_without_jetstream();
    let connection = NatsConnection::default().servers([server.url()]);
    let options = NatsOptions::default().connection(connection);
    let transport = || NatsTransport::new(options.clone()).expect("valid options");
    measure(Pair::over(transport(), transport()).await, Bare::nats(&server).await).await
}

async fn jetstream() -> Measured {
    let server = NatsServer::start();
    let transport = |name| {
        let connection = NatsConnection::default().servers([server.url()]);
        let options = JetStreamOptions::durable(name).connection(connection);
        JetStreamTransport::new(options).expect("valid options")
    };
    measure(Pair::over(transport("a"), transport("b")).await, Bare::jetstream(&server).await).await
}

async fn rabbitmq() -> Measured {
    let server = RabbitServer::start();
    let transport = || {
        let options = RabbitMqOptions::new(server.url());
        RabbitMqTransport::new(options).expect("valid options")
    };
    measure(Pair::over(transport(), transport()).await, Bare::rabbitmq(&server).await).await
}

async fn measure(mut pair: Pair, mut bare: Bare) -> Measured {
    let busy = sample(&mut pair, &mut bare, None).await;
    let rested = sample(&mut pair, &mut bare, Some(REST)).await;
    let Pair { deletes, hears, .. } = pair;
    assert_eq!((hears.stats().bus_gaps, deletes.stats().bus_errors), (0, 0), "nothing was lost");
    deletes.close().await;
    hears.close().await;
    Measured { busy, rested }
}

/// In turns.
async fn sample(pair: &mut Pair, bare: &mut Bare, rest: Option<Duration>) -> Samples {
    let mut samples = Samples::default();
    for round in 0..WARM_UP + SAMPLES {
        pair.fill().await;
        for is_ours in [false, true] {
            if let Some(rest) = rest {
                tokio::time::sleep(rest).await;
            }
            let took = if is_ours { pair.sample().await } else { bare.sample().await };
            if round >= WARM_UP {
                let samples = if is_ours { &mut samples.ours } else { &mut samples.bare };
                samples.push(took);
            }
        }
    }
    samples
}

impl Pair {
    async fn over(one: impl Transport, other: impl Transport) -> Self {
        let (deletes, hears) = (build(one), build(other));
        for cache in [&deletes, &hears] {
            cache.ready().await.expect("it listens");
        }
        Self::of(deletes, hears)
    }

    pub(super) fn of(
        deletes: LazyLayersCache<String, Watched>,
        hears: LazyLayersCache<String, Watched>,
    ) -> Self {
        let (sender, gone) = unbounded_channel();
        Self { deletes, hears, sender, gone }
    }

    /// Puts the value into the peer's L1.
    pub(super) async fn fill(&self) {
        let watched = Watched { gone: Some(self.sender.clone()) };
        let loader = || async { Ok::<_, io::Error>(watched) };
        drop(self.hears.get_or_set(KEY, loader).await.expect("it is loaded"));
    }

    /// Seconds from the call of delete to the removal from the peer's L1.
    pub(super) async fn sample(&mut self) -> f64 {
        let begun = Instant::now();
        self.deletes.delete(KEY).await.expect("it is open");
        let gone = self.gone.recv().await.expect("it goes");
        assert!(self.hears.get_l1(KEY).is_none(), "it was deleted");
        gone.duration_since(begun).as_secs_f64()
    }
}

/// An instance without broadcasts: a deleted value was in the L1 of one instance only.
fn build(transport: impl Transport) -> LazyLayersCache<String, Watched> {
    let built = LazyLayersCache::builder().broadcast_set(false);
    let built = built
        .name("bench")
        .event_bus(lazy_layers_cache::EventBus::new(transport), WireCodec::new());
    built.build().expect("valid options")
}

impl Measured {
    fn tell(self, report: &mut Report, name: &str) {
        let limit = AtMost { limit: 1.5, of: "its client" };
        self.busy.tell(report, &format!("{name}, p50"), 0.5, None);
        self.busy.tell(report, &format!("{name}, p99"), 0.99, Some(&limit));
        self.rested.tell(report, &format!("{name}, rested, p50"), 0.5, None);
    }
}

impl Samples {
    fn tell(&self, report: &mut Report, name: &str, of_all: f64, limit: Option<&AtMost>) {
        const MICROS: f64 = 1e6;
        let (ours, bare) = (quantile(&self.ours, of_all), quantile(&self.bare, of_all));
        let name = format!("{name} ({:.1} µs alone)", bare * MICROS);
        report.row(&name, ours * MICROS, "µs", ours / bare, limit);
    }
}

pub(super) fn quantile(samples: &[f64], of_all: f64) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * of_all) as usize]
}
