//! The messages that idle instances send and receive.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    Delivery, MessageStream, Prober, Subscribed, Transport, TransportFuture, WireCodec,
    testing::SharedBus,
};
use tokio::time::sleep;

use crate::support::{Cache, ms, on_tokio_time};

/// What an instance sent and received: messages, beacons and probes.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// A transport that counts.
struct Counted<T>(T, Arc<Counts>);

struct CountedStream(Box<dyn MessageStream>, Arc<Counts>);

impl MessageStream for CountedStream {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async {
            let delivery = self.0.next().await;
            self.1.received.fetch_add(1, Ordering::Relaxed);
            delivery
        })
    }
}

struct CountedProber(Box<dyn Prober>, Arc<Counts>);

impl Prober for CountedProber {
    fn send(&self, number: u64) -> TransportFuture<'_, ()> {
        self.1.sent.fetch_add(1, Ordering::Relaxed);
        self.0.send(number)
    }
}

impl<T: Transport> Transport for Counted<T> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn publish<'a>(&'a self, message: &'a [u8]) -> TransportFuture<'a, ()> {
        self.1.sent.fetch_add(1, Ordering::Relaxed);
        self.0.publish(message)
    }

    fn announce<'a>(&'a self, beacon: &'a [u8]) -> TransportFuture<'a, ()> {
        self.1.sent.fetch_add(1, Ordering::Relaxed);
        self.0.announce(beacon)
    }

    fn subscribe(&self) -> TransportFuture<'_, Subscribed> {
        Box::pin(async {
            let Subscribed { messages, prober, resumed } = self.0.subscribe().await?;
            let messages = Box::new(CountedStream(messages, Arc::clone(&self.1)));
            let prober = Box::new(CountedProber(prober, Arc::clone(&self.1)));
            Ok(Subscribed { messages, prober, resumed })
        })
    }

    fn ping(&self) -> TransportFuture<'_, ()> {
        self.0.ping()
    }

    fn disconnect(&self) -> TransportFuture<'_, ()> {
        self.0.disconnect()
    }
}

/// Returns how many messages an instance of an idle fleet sends and receives in a second, after
/// the fleet has been up for a while.
async fn per_second(instances: usize, after: Duration, lasts: Duration) -> (f64, f64) {
    let (bus, counts) = (SharedBus::new(1), Arc::<Counts>::default());
    let instance = |_| {
        let transport = Counted(bus.link(), Arc::clone(&counts));
        on_tokio_time().name("idle").event_bus(transport, WireCodec::new()).build().unwrap()
    };
    let caches: Vec<Cache> = (0..instances).map(instance).collect();
    for cache in &caches {
        cache.ready().await.unwrap();
    }
    sleep(after).await;
    counts.sent.store(0, Ordering::Relaxed);
    counts.received.store(0, Ordering::Relaxed);
    sleep(lasts).await;
    let all = instances as f64 * lasts.as_secs_f64();
    let per_second = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / all;
    (per_second(&counts.sent), per_second(&counts.received))
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_receives_at_most_70_messages_a_second_and_2_among_many() {
    let few = [(1, 2.2), (10, 11.2), (50, 51.2), (64, 65.2)];
    for (instances, most) in few {
        let (sent, received) = per_second(instances, ms(5_000), ms(5_000)).await;
        println!("{instances} instances: each sends {sent:.2} and receives {received:.2} a second");
        assert!(sent <= 2.2 && received <= most, "{instances}: {sent} {received}");
    }
    let (sent, received) = per_second(200, ms(10_000), ms(20_000)).await;
    println!("200 instances: each sends {sent:.2} and receives {received:.2} a second");
    assert!(sent <= 1.1 && received <= 2.0, "200: {sent} {received}");
}
