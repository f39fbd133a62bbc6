//! The promises of a subscription that begins (`joining.rs`), on real brokers.

use std::sync::atomic::{AtomicBool, Ordering};

use lazy_layers_cache::{
    Delivery, Transport, WireCodec,
    testing::{SharedStore, StoreFault, TokioClock},
};
use tokio::time::sleep;

use crate::{
    joining::{Gated, check_beginning, ended, on},
    support::{
        Cache, Gate, Origin,
        broker::{Broker, Kind},
        ms,
        transports::{next, publish},
    },
};

/// An instance, with an L2 of its own, and the keys that it stored after `ready()`.
struct Joined {
    cache: Cache,
    l2: SharedStore,
    keys: [String; 3],
}

impl Joined {
    async fn new(broker: &Broker, number: usize) -> Self {
        let l2 = SharedStore::new(TokioClock::new());
        let keys = ["set", "loaded", "promoted"].map(|key| format!("{number}:{key}"));
        let [set, loaded, promoted] = &keys;
        let in_l2 = Cache::builder().name("joining").l2(l2.clone(), WireCodec::new());
        in_l2.build().unwrap().set(promoted, 1).await.unwrap();
        let transport = broker.transport(&format!("joined-{number}"));
        let cache = on(transport).l2(l2.clone(), WireCodec::new()).build().unwrap();
        cache.ready().await.unwrap();
        cache.set(set, 1).await.unwrap();
        cache.get_or_set(loaded, Origin::default().load(Gate::Ok)).await.unwrap();
        assert!(cache.get(promoted).await.is_some());
        Self { cache, l2, keys }
    }

    /// L1 answers: L2 fails, and the loader does not run.
    async fn check_kept(&self) {
        self.l2.set_fault(StoreFault::Fails);
        let origin = Origin::default();
        for key in &self.keys {
            assert!(self.cache.get_l1(key).is_some(), "{key}");
            self.cache.get_or_set(key, origin.load(Gate::Err)).await.unwrap();
        }
        assert_eq!(origin.loads(), 0);
        self.l2.set_fault(StoreFault::None);
    }
}

/// What several instances stored after `ready()` stays, past `trust_timeout`.
async fn check_joining(broker: &Broker, peer: &Cache) {
    let publishing = tokio::spawn({
        let peer = peer.clone();
        async move {
            for number in 0u32.. {
                peer.delete(&number.to_string()).await.unwrap();
                sleep(ms(5)).await;
            }
        }
    });
    let mut all = Vec::new();
    for number in 0..4 {
        all.push(Joined::new(broker, number).await);
    }
    for _ in 0..80 {
        sleep(ms(50)).await;
        for joined in &all {
            joined.check_kept().await;
        }
    }
    publishing.abort();
    for joined in all {
        assert_eq!(joined.cache.stats().bus_gaps, 0, "nothing was lost");
        joined.cache.close().await;
    }
}

/// What an instance had before a disconnect is kept if its subscription resumes, but for what a
/// peer deleted meanwhile.
async fn check_resuming(cache: &Cache, link: &Gated, other: &Cache) {
    for key in ["kept", "deleted"] {
        cache.set(key, 1u32).await.unwrap();
    }
    link.disconnect().await.unwrap();
    ended(cache).await;
    let report = other.delete("deleted").await.unwrap();
    assert!(report.settled(ms(10_000)).await);
    link.begin().await;
    cache.ready().await.unwrap();
    assert_eq!(cache.get_l1("deleted"), None, "deleted by a peer while it was disconnected");
    assert!(cache.get_l1("kept").is_some(), "nothing was missed");
}

/// A beacon says which messages were published. One that arrives before its subscription receives
/// messages would make the next ones look lost.
async fn check_beacons_come_last(broker: &Broker) {
    let by = broker.transport("beacons");
    for round in 0..10 {
        let is_over = AtomicBool::new(false);
        let publishing = async {
            for number in 0.. {
                publish(&by, number..number + 1).await;
                by.announce(format!("beacon {}", number + 1).as_bytes()).await.unwrap();
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        let subscribing = async {
            let transport = broker.transport(&format!("beacons-{round}"));
            let mut messages = transport.subscribe().await.unwrap().messages;
            let (mut first, mut announced) = (None, None);
            while first.is_none() || announced.is_none() {
                let Delivery::Message(message) = next(&mut *messages).await else { continue };
                let text = String::from_utf8(message).unwrap();
                let number = |text: &str| text.parse::<usize>().unwrap();
                match text.strip_prefix("beacon ") {
                    Some(beacon) => announced = announced.or(Some(number(beacon))),
                    None => first = first.or(Some(number(&text))),
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(first <= announced, "the first beacon announces {announced:?}, not {first:?}");
        };
        tokio::join!(publishing, subscribing);
    }
}

async fn check(kind: Kind) {
    let broker = tokio::task::block_in_place(|| Broker::start(kind));
    check_beacons_come_last(&broker).await;
    let other = on(broker.transport("other")).build().unwrap();
    other.ready().await.unwrap();
    other.delete("x").await.unwrap();
    sleep(ms(1_000)).await;
    let link = Gated::new(broker.transport("gated"));
    let cache = on(link.clone()).build().unwrap();
    check_beginning(&cache, &link, &other).await;
    if kind.keeps() {
        check_resuming(&cache, &link, &other).await;
    } else {
        sleep(ms(1_000)).await;
        link.disconnect().await.unwrap();
        ended(&cache).await;
        check_beginning(&cache, &link, &other).await;
    }
    check_joining(&broker, &other).await;
    cache.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    check(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats() {
    check(Kind::Nats).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream() {
    check(Kind::JetStream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_transient() {
    check(Kind::Transient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_durable() {
    check(Kind::Durable).await;
}
