//! Faults of each broker and of the network, under caches that read and write all the time. No read
//! is staler and no call slower than promised, each loss is noticed, and afterwards every instance
//! is up to date and receives the messages of every other.
//!
//! Short by default; `scripts/faults` runs the same tests for longer.

use std::{future::Future, pin::Pin, time::Duration};

use lazy_layers_cache::Transport;
use serde_json::json;
use tokio::{task::block_in_place, time::sleep};

use crate::support::{
    broker::{Broker, Kind},
    fleet::{ALL, FAR, Fleet},
    ms,
    proxy::Mode,
    storm::storm,
    transports::assert_no_task_is_left,
};

/// Returns `long` if `LAZY_LAYERS_LONG=1` is set, else `short`.
fn lasting(short: Duration, long: Duration) -> Duration {
    let is_long = std::env::var_os("LAZY_LAYERS_LONG").is_some_and(|it| it == "1");
    if is_long { long } else { short }
}

/// The faults that every broker can have.
async fn common(broker: &mut Broker, fleet: &Fleet) {
    let outage = lasting(ms(1_500), ms(60_000));
    fleet
        .survives("killed", ALL, async {
            block_in_place(|| broker.kill());
            sleep(outage).await;
            block_in_place(|| broker.restart());
        })
        .await;
    fleet
        .survives("frozen", ALL, async {
            block_in_place(|| broker.freeze());
            sleep(lasting(ms(5_000), ms(10_000))).await;
            broker.thaw();
        })
        .await;
    for (what, mode, lasts) in [
        ("refuses connections", Mode::Refuse, ms(500)),
        ("in a black hole", Mode::Blackhole, ms(4_500)),
        ("loses replies", Mode::LoseReplies, ms(4_500)),
    ] {
        fleet
            .survives(what, FAR, async {
                fleet.proxy.set(mode);
                sleep(lasting(lasts, lasts * 5)).await;
                fleet.proxy.set(Mode::Pass);
            })
            .await;
    }
    let (messages, bytes) = match broker.kind {
        Kind::Redis => {
            broker.redis().config_set("client-output-buffer-limit", "pubsub 4mb 4mb 1");
            (30, 1 << 20)
        }
        // The server disconnects a client with more than 64 MiB pending.
        Kind::Nats => (90, 900 << 10),
        Kind::JetStream | Kind::Transient | Kind::Durable => (20, 500 << 10),
    };
    fleet
        .survives("too slow", FAR, async {
            fleet.proxy.set(Mode::Pause);
            flood(&*broker.transport("flood").0, messages, bytes).await;
            sleep(ms(3_000)).await;
            fleet.proxy.set(Mode::Pass);
        })
        .await;
}

/// Publishes large messages of another namespace, which no cache of the test needs.
async fn flood(by: &dyn Transport, messages: usize, bytes: usize) {
    for number in 0..messages {
        let message = json!({
            "id": number.to_string(), "type": "set", "source": "them", "ts": 1,
            "namespace": "theirs", "keys": ["k"], "value": "x".repeat(bytes),
        });
        let packed = [b"HC1M".to_vec(), rmp_serde::to_vec(&message).unwrap()].concat();
        by.publish(&packed).await.unwrap();
    }
}

type Special<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

async fn suite(kind: Kind, special: impl for<'a> FnOnce(&'a Broker, &'a Fleet) -> Special<'a>) {
    let mut broker = block_in_place(|| Broker::start(kind));
    let fleet = Fleet::on(&broker).await;
    special(&broker, &fleet).await;
    common(&mut broker, &fleet).await;
    fleet.close().await;
    storm(&mut broker, lasting(ms(1_000), ms(10_000))).await;
    assert_no_task_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    suite(Kind::Redis, |broker, fleet| {
        Box::pin(async move {
            fleet
                .survives("subscribers killed again and again", ALL, async {
                    let mut redis = broker.redis().connect();
                    for _ in 0..lasting(ms(3_000), ms(60_000)).as_millis() / 200 {
                        let mut kill = redis::cmd("CLIENT");
                        kill.arg("KILL").arg("TYPE").arg("pubsub");
                        let _: u64 = block_in_place(|| kill.query(&mut redis)).unwrap();
                        sleep(ms(200)).await;
                    }
                })
                .await;
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats() {
    suite(Kind::Nats, |_, _| Box::pin(async {})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream() {
    suite(Kind::JetStream, |broker, fleet| {
        Box::pin(async move {
            let url = format!("nats://127.0.0.1:{}", broker.port());
            let admin = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
            fleet
                .survives("consumer deleted", &[0], async {
                    let stream = admin.get_stream("CACHE_INVALIDATIONS").await.unwrap();
                    stream.delete_consumer("fleet-0").await.unwrap();
                    sleep(ms(2_500)).await;
                })
                .await;
            fleet
                .survives("stream deleted", ALL, async {
                    admin.delete_stream("CACHE_INVALIDATIONS").await.unwrap();
                    sleep(ms(2_500)).await;
                })
                .await;
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_transient() {
    suite(Kind::Transient, rabbit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_durable() {
    suite(Kind::Durable, rabbit).await;
}

fn rabbit<'a>(broker: &'a Broker, fleet: &'a Fleet) -> Special<'a> {
    let ctl = |arguments: &[&str]| block_in_place(|| broker.rabbit().ctl(arguments));
    Box::pin(async move {
        fleet
            .survives("queues deleted", ALL, async {
                // `eval` deletes all queues in one call, exclusive ones included. A queue that is
                // gone by then makes an exception, which `catch` ignores.
                ctl(&[
                    "eval",
                    "[catch rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) \
                     || Q <- rabbit_amqqueue:list()].",
                ]);
                fleet.was_struck();
            })
            .await;
        fleet
            .survives("out of memory", ALL, async {
                ctl(&["set_vm_memory_high_watermark", "0.0001"]);
                fleet.was_struck();
                sleep(lasting(ms(4_000), ms(60_000))).await;
                ctl(&["set_vm_memory_high_watermark", "0.4"]);
            })
            .await;
    })
}
