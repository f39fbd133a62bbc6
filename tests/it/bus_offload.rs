//! Values on the bus: large ones are encoded and decoded on blocking threads, messages are applied
//! in the order in which they were received all the same, and a value is encoded once for L2 and
//! the bus.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    BoxError, Codec, EventBusOptions, LazyLayersCache, WireCodec, WireLimits,
    testing::{SharedBus, SharedStore, StoreFault, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Log, ms, settle};

type Cache = LazyLayersCache<String, String>;

const LARGE: usize = 100_000;
/// Far longer than any step of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A `WireCodec` that records its calls.
#[derive(Clone, Default)]
struct Recorded {
    codec: WireCodec,
    calls: Arc<Calls>,
}

#[derive(Default)]
struct Calls {
    encoded: AtomicUsize,
    packed: AtomicUsize,
    /// The threads of the last encoding and of the last decoding.
    threads: Mutex<[Option<ThreadId>; 2]>,
    decoding: AtomicUsize,
    gate: Mutex<Option<Receiver<()>>>,
}

impl Recorded {
    fn shut(&self) -> Sender<()> {
        let (open, gate) = channel();
        *self.calls.gate.lock().unwrap() = Some(gate);
        open
    }

    fn is_here(&self, of: usize) -> bool {
        self.calls.threads.lock().unwrap()[of] == Some(thread::current().id())
    }
}

impl Codec<String> for Recorded {
    fn encode(&self, value: &String) -> Result<Vec<u8>, BoxError> {
        self.calls.encoded.fetch_add(1, Ordering::SeqCst);
        self.codec.encode(value)
    }

    fn decode(&self, bytes: &[u8]) -> Result<String, BoxError> {
        self.calls.threads.lock().unwrap()[1] = Some(thread::current().id());
        self.calls.decoding.fetch_add(1, Ordering::SeqCst);
        let gate = self.calls.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.recv_timeout(PATIENCE)?;
        }
        self.calls.decoding.fetch_sub(1, Ordering::SeqCst);
        self.codec.decode(bytes)
    }

    fn encode_plain(&self, value: &String) -> Result<Vec<u8>, BoxError> {
        self.calls.threads.lock().unwrap()[0] = Some(thread::current().id());
        self.calls.encoded.fetch_add(1, Ordering::SeqCst);
        self.codec.encode_plain(value)
    }

    fn plain_form(&self) -> Option<(&'static str, usize)> {
        Codec::<String>::plain_form(&self.codec)
    }

    fn encode_from_plain(&self, value: &String, plain: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.calls.packed.fetch_add(1, Ordering::SeqCst);
        self.codec.encode_from_plain(value, plain)
    }

    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        Codec::<String>::is_heavy_to_decode(&self.codec, bytes)
    }
}

fn instance(bus: &SharedBus, codec: &Recorded, store: Option<&SharedStore>) -> Cache {
    let mut builder = Cache::builder().name("offload").clock(TokioClock::new());
    if let Some(store) = store {
        builder = builder.l2(store.clone(), codec.clone());
    }
    let options = EventBusOptions::default().trust_timeout(ms(300));
    builder
        .name("test")
        .event_bus(bus.link(), codec.clone())
        .event_bus_options(options)
        .build()
        .unwrap()
}

async fn world() -> (Cache, Recorded, Cache, Recorded) {
    let bus = SharedBus::new(1);
    let (one, other) = (Recorded::default(), Recorded::default());
    let (left, right) = (instance(&bus, &one, None), instance(&bus, &other, None));
    for cache in [&left, &right] {
        cache.ready().await.unwrap();
    }
    // An instance judges values once it is caught up.
    sleep(ms(700)).await;
    // The first values are decoded again by their writers.
    for _ in 0..20 {
        left.set("first", "x".to_owned()).await.unwrap();
        right.set("first", "x".to_owned()).await.unwrap();
    }
    sleep(ms(20)).await;
    (left, one, right, other)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(ms(1)).await;
    }
}

#[tokio::test]
async fn large_values_are_encoded_and_decoded_on_other_threads_and_small_ones_are_not() {
    let (left, one, right, other) = world().await;
    let send = async |key: &str, length: usize| {
        left.set(key, "x".repeat(length)).await.unwrap();
        until("the value arrives", || right.get_l1(key).is_some()).await;
        (one.is_here(0), other.is_here(1))
    };
    assert_eq!(send("small", 100).await, (true, true));
    assert_eq!(send("large", LARGE).await, (true, false), "the first one cannot be predicted");
    assert_eq!(send("larger", LARGE).await, (false, false));
    let load = || async { Ok::<_, std::fmt::Error>("x".repeat(LARGE)) };
    left.get_or_set("loaded", load).await.unwrap();
    until("the value arrives", || right.get_l1("loaded").is_some()).await;
    assert!(!one.is_here(0) && !other.is_here(1));
}

#[tokio::test]
async fn messages_are_applied_in_their_order_while_a_value_is_decoded() {
    let (left, _, right, other) = world().await;
    let open = other.shut();
    left.set("k", "x".repeat(LARGE)).await.unwrap();
    until("the decoding begins", || other.calls.decoding.load(Ordering::SeqCst) == 1).await;
    left.set("later", "x".to_owned()).await.unwrap();
    sleep(ms(50)).await;
    assert_eq!((right.get_l1("k"), right.get_l1("later")), (None, None));
    open.send(()).unwrap();
    until("the later value arrives", || right.get_l1("later").is_some()).await;
    assert!(right.get_l1("k").is_some());
}

#[tokio::test]
async fn a_delete_while_a_value_is_decoded_is_no_older_than_the_value() {
    for of_peer in [true, false] {
        let (left, _, right, other) = world().await;
        let open = other.shut();
        left.set("k", "x".repeat(LARGE)).await.unwrap();
        until("the decoding begins", || other.calls.decoding.load(Ordering::SeqCst) == 1).await;
        if of_peer { &left } else { &right }.delete("k").await.unwrap();
        sleep(ms(20)).await;
        open.send(()).unwrap();
        until("the decoding ends", || other.calls.decoding.load(Ordering::SeqCst) == 0).await;
        sleep(ms(50)).await;
        assert_eq!(right.get_l1("k"), None, "of the peer: {of_peer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_encoded_once_for_l2_and_the_bus() {
    let (bus, store, codec) =
        (SharedBus::new(1), SharedStore::new(TokioClock::new()), Recorded::default());
    let cache = instance(&bus, &codec, Some(&store));
    let peer = instance(&bus, &Recorded::default(), None);
    for cache in [&cache, &peer] {
        cache.ready().await.unwrap();
    }
    sleep(ms(700)).await;
    let calls = || {
        let (encoded, packed) = (&codec.calls.encoded, &codec.calls.packed);
        (encoded.swap(0, Ordering::SeqCst), packed.swap(0, Ordering::SeqCst))
    };
    for length in [10, LARGE] {
        let value = "x".repeat(length);
        cache.set("set", value.clone()).await.unwrap();
        assert_eq!(calls(), (1, 1));
        let load = move || async move { Ok::<_, std::fmt::Error>("x".repeat(length)) };
        cache.get_or_set("loaded", load).refresh().await.unwrap();
        assert_eq!(calls(), (1, 1));
        sleep(ms(50)).await;
        for key in ["set", "loaded"] {
            assert_eq!(peer.get_l1(key).as_deref(), Some(&value), "{key} of {length}");
            let stored = store.peek(key).unwrap();
            assert_eq!(stored, codec.codec.encode(&value).unwrap(), "compressed where long");
        }
    }
}

#[test]
fn a_payload_is_the_same_whether_it_is_made_of_the_value_or_of_its_plain_form() {
    let limits = WireLimits::default().nesting(3);
    let codecs = [
        WireCodec::new(),
        WireCodec::new().json(),
        WireCodec::new().gzip_from(1),
        WireCodec::new().limits(limits),
    ];
    for value in [None, Some(String::new()), Some("x".repeat(LARGE))] {
        let plain = WireCodec::new().encode_plain(&value).unwrap();
        for codec in codecs {
            let encoded = codec.encode_from_plain(&value, &plain).unwrap();
            assert_eq!(encoded, codec.encode(&value).unwrap());
        }
    }
    let form = |codec: &WireCodec| Codec::<String>::plain_form(codec);
    assert_eq!(form(&codecs[0]), form(&codecs[1]));
    assert_ne!(form(&codecs[0]), form(&codecs[3]), "a value may be nested too deeply for one");
}

#[tokio::test(start_paused = true)]
async fn a_set_is_reported_as_broadcast_once_l2_has_answered() {
    let (bus, store) = (SharedBus::new(1), SharedStore::new(TokioClock::new()));
    let cache = instance(&bus, &Recorded::default(), Some(&store));
    cache.ready().await.unwrap();
    sleep(ms(700)).await;
    let log = Log::of(&cache);
    store.set_fault(StoreFault::Hangs);
    {
        let set = cache.set("k", "x".to_owned());
        tokio::select! {
            biased;
            _ = set => panic!("L2 hangs"),
            () = settle() => {}
        }
    }
    assert!(!log.take().contains(&"set:broadcast".to_owned()));
    assert_eq!(cache.stats().values_sent, 0);
    store.set_fault(StoreFault::None);
    cache.set("q", "x".to_owned()).await.unwrap();
    let events: Vec<_> = log.take().into_iter().filter(|event| event.starts_with("set")).collect();
    assert_eq!(events, ["set", "set:broadcast"]);
}
