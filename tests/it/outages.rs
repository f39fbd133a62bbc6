//! Every way in which a broker or the road to it fails, under caches that read and write all the
//! time: nobody reads what is older than is promised, no call takes longer, the loss is noticed,
//! and afterwards everybody is up to date and hears everybody.
//!
//! Short by default; `scripts/faults` runs the same for longer.

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
    transports::no_task_is_left,
};

/// A time that is short by default, and the other with `LAZY_LAYERS_LONG=1`.
fn lasting(short: Duration, long: Duration) -> Duration {
    let is_long = std::env::var_os("LAZY_LAYERS_LONG").is_some_and(|it| it == "1");
    if is_long { long } else { short }
}

/// What every broker can do to its clients.
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
        ("cut", Mode::Refuse, ms(500)),
        ("in a black hole", Mode::Blackhole, ms(4_500)),
        ("hears nothing", Mode::LoseReplies, ms(4_500)),
    ] {
        fleet
            .survives(what, FAR, async {
                fleet.proxy.set(mode);
                sleep(lasting(lasts, lasts * 5)).await;
                fleet.proxy.set(Mode::Pass);
            })
            .await;
    }
    let (events, bytes) = match broker.kind {
        Kind::Redis => {
            broker.redis().config_set("client-output-buffer-limit", "pubsub 4mb 4mb 1");
            (30, 1 << 20)
        }
        // Beyond 64 MiB the server hangs up.
        Kind::Nats => (90, 900 << 10),
        Kind::JetStream | Kind::Passing | Kind::Durable => (20, 500 << 10),
    };
    fleet
        .survives("too slow", FAR, async {
            fleet.proxy.set(Mode::Pause);
            flood(&*broker.transport("flood").0, events, bytes).await;
            sleep(ms(3_000)).await;
            fleet.proxy.set(Mode::Pass);
        })
        .await;
}

/// Large events of another namespace, which are nobody's loss.
async fn flood(by: &dyn Transport, events: usize, bytes: usize) {
    for number in 0..events {
        let event = json!({
            "id": number.to_string(), "type": "set", "source": "them", "ts": 1,
            "namespace": "theirs", "keys": ["k"], "value": "x".repeat(bytes),
        });
        let packed = [b"HC1M".to_vec(), rmp_serde::to_vec(&event).unwrap()].concat();
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
    no_task_is_left().await;
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
async fn rabbitmq_with_passing_queues() {
    suite(Kind::Passing, rabbit).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_with_queues_that_stay() {
    suite(Kind::Durable, rabbit).await;
}

fn rabbit<'a>(broker: &'a Broker, fleet: &'a Fleet) -> Special<'a> {
    let ctl = |arguments: &[&str]| block_in_place(|| broker.rabbit().ctl(arguments));
    Box::pin(async move {
        fleet
            .survives("queues deleted", ALL, async {
                // One by one rabbitmqctl takes seconds, and exclusive ones it alone may delete.
                ctl(&[
                    "eval",
                    "[rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) \
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
