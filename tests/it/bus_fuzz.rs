//! Fuzzes the bus: a subscriber receives messages of real instances and of the TypeScript package
//! with bytes changed, cut, doubled and joined at random. Each run uses the same messages; the
//! targets under fuzz/ run for longer.

use lazy_layers_cache::{
    Codec, Delivery, EventBusOptions, EventDedupe, FailSafe, L2Options, LazyLayersCache, Transport,
    WireCodec,
    testing::{SharedBus, SharedStore, TokioClock},
};
use serde_json::{Value, json};
use tokio::{runtime::Builder, time::sleep};

use crate::{support::ms, wire::vectors};

type Cache = LazyLayersCache<String, Value>;

const INPUTS: usize = 15_000;
/// Bytes that one message may allocate: its lists of keys, its decompressed body, and a little.
const MAX_BYTES: u64 = 4 << 20;

fn instance(bus: &SharedBus) -> Cache {
    let clock = TokioClock::new();
    Cache::builder()
        .clock(clock.clone())
        .ttl(ms(600_000))
        .fail_safe(FailSafe::enabled())
        .l2(SharedStore::new(clock), WireCodec::new())
        .l2_options(L2Options::default().versioning(true))
        .name("test")
        .event_bus(bus.link(), WireCodec::new())
        .event_bus_options(EventBusOptions::default().accept_unnamed(true))
        // A changed message whose id is unchanged must be decoded too.
        .event_dedupe(EventDedupe::default().max_entries(1))
        .build()
        .unwrap()
}

/// Records all kinds of messages that two instances publish to each other.
async fn corpus() -> Vec<Vec<u8>> {
    let bus = SharedBus::new(1);
    let mut subscribed = bus.link().subscribe().await.unwrap();
    let (left, right) = (instance(&bus), instance(&bus));
    for cache in [&left, &right] {
        cache.ready().await.unwrap();
    }
    sleep(ms(4_000)).await;
    for (key, value) in [("k", json!(null)), ("j", json!({"id": 1, "tags": ["a", 2.5]}))] {
        left.set(key, value.clone()).await.unwrap();
        right.delete(key).await.unwrap();
        let load = || async move { Ok::<_, std::io::Error>(value) };
        left.get_or_set(key, load).await.unwrap();
        sleep(ms(300)).await;
    }
    left.delete_by_pattern("user:[0-9]*").await.unwrap();
    right.clear().await.unwrap();
    for cache in [&left, &right] {
        cache.close().await;
    }
    let mut messages = Vec::new();
    loop {
        tokio::select! {
            biased;
            delivery = subscribed.messages.next() => match delivery {
                Delivery::Message(message) => messages.push(message),
                other => panic!("{other:?}"),
            },
            () = sleep(ms(10)) => break,
        }
    }
    assert!(messages.len() > 12, "{}", messages.len());
    let several = json!({
        "id": "x", "type": "del", "source": "node", "ts": 1_700_000_000_123.5, "generation": 7,
        "keys": ["k", "user:1", "é"], "keyTypes": ["string", "number", "string"], "more": [[]],
    });
    let set = json!({
        "id": "y", "type": "set", "source": "node", "ts": 1, "generation": 1, "keys": ["k"],
        "value": {"at": 1}, "ttlMs": 60_000.5, "seen": ["a", 1, "b", 2],
    });
    for message in [several, set] {
        messages.push([&b"HC1J"[..], message.to_string().as_bytes()].concat());
        messages.push(WireCodec::new().encode(&message).unwrap());
        messages.push(rmp_serde::to_vec_named(&message).unwrap());
    }
    messages
}

fn mutate(messages: &[Vec<u8>], others: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let from = if random.u8(..10) == 0 { others } else { messages };
    let mut bytes = from[random.usize(..from.len())].clone();
    for _ in 0..random.usize(0..3) {
        let at = random.usize(..=bytes.len());
        match random.u8(..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            2 => {
                let other = &messages[random.usize(..messages.len())];
                bytes.splice(at.., other.iter().skip(random.usize(..=other.len())).copied());
            }
            // A marker of a type that has a length.
            3 if at < bytes.len() => bytes[at] = random.u8(0xc0..0xe0),
            // A wrong length where the value of a field begins.
            4 => {
                let name = random.choice(["keys", "keys", "value", "seen", "source"]).unwrap();
                let found = bytes.windows(name.len()).position(|it| it == name.as_bytes());
                let at = found.map_or(at, |found| found + name.len());
                let marker = random.choice([0xc6, 0xdb, 0xdd, 0xdd, 0xdf]).unwrap();
                let length = (u32::MAX >> random.u32(..16)).to_be_bytes();
                drop(bytes.splice(at..at, [&[marker][..], &length].concat()));
            }
            5 if at < bytes.len() => bytes[at] = random.u8(..),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn no_mutated_message_does_harm() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let messages = runtime.block_on(corpus());
    let others = vectors().into_iter().map(|it| it.bytes).filter(|bytes| bytes.len() < 4_096);
    let others: Vec<_> = others.collect();
    let bus = SharedBus::new(2);
    let (victim, witness) = runtime.block_on(async {
        let (victim, witness) = (instance(&bus), instance(&bus));
        victim.ready().await.unwrap();
        witness.ready().await.unwrap();
        (victim, witness)
    });
    let mut random = fastrand::Rng::with_seed(23);
    for input in 0..INPUTS {
        let message = mutate(&messages, &others, &mut random);
        let used = allocation_counter::measure(|| {
            runtime.block_on(async {
                bus.inject(&message);
                sleep(ms(1)).await;
            });
        });
        assert!(used.bytes_max < MAX_BYTES, "{used:?} for {message:x?}");
        if input % 100 == 0 {
            runtime.block_on(async {
                victim.set("own", json!(input)).await.unwrap();
                victim.delete("own").await.unwrap();
                assert_eq!(victim.get("own").await, None, "after {message:x?}");
            });
        }
    }
    runtime.block_on(async {
        let stats = victim.stats();
        // Neither all nor none were refused at the first byte.
        assert!(stats.events_received > INPUTS as u64 / 20, "{stats:?}");
        assert!(stats.events_refused > INPUTS as u64 / 20, "{stats:?}");
        // The subscription still works. L1 is trusted again once the publishers of the messages,
        // which promised more and are silent, are forgotten.
        sleep(ms(70_000)).await;
        assert!(victim.health().event_bus.unwrap().trusted);
        let load = || async { Ok::<_, std::io::Error>(json!(1)) };
        victim.get_or_set("last", load).await.unwrap();
        assert!(victim.get_l1("last").is_some());
        witness.delete("last").await.unwrap();
        sleep(ms(20)).await;
        assert!(victim.get_l1("last").is_none());
    });
}
