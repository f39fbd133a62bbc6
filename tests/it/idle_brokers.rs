//! Two idle instances on each real broker: both stay current, so that L1 answers, and the broker
//! stores nothing for them.

use std::{sync::Arc, time::Duration};

use lazy_layers_cache::{
    RabbitMqOptions, WireCodec,
    testing::{SharedStore, StoreFault, TokioClock},
};
use tokio::{
    task::{block_in_place, spawn_blocking},
    time::{Instant, sleep},
};

use crate::support::{
    Cache, Gate, Origin,
    broker::{Broker, BrokerTransport, Kind},
    ms, on_tokio_time,
    process::wait_for,
    rabbit_place::transport,
    rabbitmq::RabbitServer,
    transports::{PATIENCE, retry},
};

/// More than twice the time for which an instance trusts its L1 without a probe.
const IDLE: Duration = ms(7_000);

struct Fleet {
    caches: [Cache; 2],
    l2: SharedStore,
}

impl Fleet {
    async fn new(transports: [BrokerTransport; 2]) -> Self {
        let l2 = SharedStore::new(TokioClock::new());
        let caches = transports.map(|transport| {
            let builder = on_tokio_time().name("idle").ttl(ms(600_000));
            let builder = builder.event_bus(transport, WireCodec::new());
            builder.l2(l2.clone(), WireCodec::new()).build().unwrap()
        });
        for cache in &caches {
            cache.ready().await.unwrap();
        }
        Self { caches, l2 }
    }

    /// Stores keys in the L1 of both, and waits until the messages of that have arrived.
    async fn fill(&self) {
        let [one, other] = &self.caches;
        one.set("set", 1).await.unwrap();
        other.get_or_set("loaded", Origin::default().load(Gate::Ok)).await.unwrap();
        other.delete("deleted").await.unwrap();
        retry(async || {
            let waiting = [one, other].map(|cache| cache.health().event_bus.unwrap().waiting);
            let received = [one, other].map(|cache| cache.stats().events_received);
            let is_done = waiting == [0; 2] && received.iter().all(|received| *received > 0);
            if is_done { Ok(()) } else { Err(format!("{waiting:?} wait, {received:?} received")) }
        })
        .await;
        for cache in [one, other] {
            for key in ["set", "loaded"] {
                assert!(cache.get(key).await.is_some());
            }
        }
    }

    /// Both serve L1 all the time: without L2, which fails, and without the loader.
    async fn stays_current(&self) {
        let (origin, since) = (Origin::default(), Instant::now());
        self.l2.set_fault(StoreFault::Fails);
        while since.elapsed() < IDLE {
            for cache in &self.caches {
                for key in ["set", "loaded"] {
                    cache.get_or_set(key, origin.load(Gate::Err)).await.unwrap();
                }
                assert!(cache.health().event_bus.unwrap().trusted);
            }
            sleep(ms(20)).await;
        }
        assert_eq!(origin.loads(), 0, "after {:?}", since.elapsed());
        self.l2.set_fault(StoreFault::None);
        for cache in &self.caches {
            assert_eq!((cache.stats().bus_gaps, cache.stats().l2_errors), (0, 0));
        }
    }
}

async fn on_broker(kind: Kind) -> (Broker, Fleet) {
    let broker = block_in_place(|| Broker::start(kind));
    let fleet = Fleet::new(["one", "other"].map(|instance| broker.transport(instance))).await;
    (broker, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    let (_broker, fleet) = on_broker(Kind::Redis).await;
    fleet.fill().await;
    fleet.stays_current().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats() {
    let (_broker, fleet) = on_broker(Kind::Nats).await;
    fleet.fill().await;
    fleet.stays_current().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_stores_nothing() {
    let (broker, fleet) = on_broker(Kind::JetStream).await;
    let client = async_nats::connect(format!("nats://127.0.0.1:{}", broker.port())).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream("CACHE_INVALIDATIONS").await.unwrap();
    let stored = async || {
        let state = stream.get_info().await.unwrap().state;
        (state.messages, state.bytes, state.last_sequence)
    };
    sleep(IDLE / 2).await;
    assert_eq!(stored().await, (0, 0, 0));
    fleet.fill().await;
    let before = stored().await;
    fleet.stays_current().await;
    assert_eq!(stored().await, before);
}

/// With transient and with durable queues, on a broker with no other queues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_stores_nothing() {
    let server = Arc::new(block_in_place(RabbitServer::start));
    for is_durable in [false, true] {
        let options = RabbitMqOptions::new(server.url());
        let fleet = Fleet::new(["one", "other"].map(|instance| {
            let options = options.clone().exchange(format!("idle-{is_durable}"));
            let durable = || options.clone().durable_queue(instance);
            BrokerTransport(Box::new(transport(if is_durable { durable() } else { options })))
        }))
        .await;
        fleet.fill().await;
        let checking = spawn_blocking({
            let (server, since) = (Arc::clone(&server), Instant::now());
            move || {
                while since.elapsed() < IDLE {
                    check_queues(&server);
                }
            }
        });
        fleet.stays_current().await;
        checking.await.unwrap();
    }
}

/// A queue has at most what its instance is about to receive, and that never on disk: a probe, or
/// one beacon of each instance.
fn check_queues(server: &RabbitServer) {
    let columns = ["list_queues", "name", "messages", "message_bytes", "messages_persistent"];
    wait_for("empty queues", PATIENCE, || {
        let rows = server.ctl(&columns);
        let mut waiting = 0;
        for row in rows.lines() {
            let columns: Vec<&str> = row.split('\t').collect();
            let number = |at: usize| columns[at].parse::<u64>().unwrap();
            let (messages, bytes, persistent) = (number(1), number(2), number(3));
            let is_probe = messages <= 1 && bytes < 100;
            let are_beacons = messages <= 2 && (100 * messages..200 * messages).contains(&bytes);
            assert!((is_probe || are_beacons) && persistent == 0, "{rows}");
            waiting += messages;
        }
        assert!(!rows.is_empty());
        (waiting == 0).then_some(())
    });
}
