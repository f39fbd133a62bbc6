//! Large payloads are encoded and decoded on blocking threads, at most one per processor at a time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Waker},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    BoxError, Codec, LazyLayersCache, SystemClock, WireCodec, testing::SharedStore,
};
use serde::{Deserialize, Deserializer, Serialize};

/// A text that records the thread on which it was decoded.
#[derive(Serialize)]
#[serde(transparent)]
struct Text {
    text: String,
    #[serde(skip)]
    decoded_on: ThreadId,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self { text, decoded_on: thread::current().id() })
    }
}

/// Records of a [`Probe`], and the gate at which its decodes wait.
#[derive(Default)]
struct Log {
    encoded_on: Mutex<Vec<ThreadId>>,
    begun: AtomicUsize,
    in_flight: AtomicUsize,
    most: AtomicUsize,
    alive: AtomicUsize,
    gate: Mutex<Option<Receiver<()>>>,
    linger: Mutex<Duration>,
}

/// A codec of plain bytes; more than 1,000 bytes are heavy.
#[derive(Clone, Default)]
struct Probe(Arc<Log>);

/// A value that counts the living values.
struct Counted(Vec<u8>, Arc<Log>);

impl Counted {
    fn new(bytes: Vec<u8>, log: &Arc<Log>) -> Self {
        log.alive.fetch_add(1, Ordering::SeqCst);
        Self(bytes, Arc::clone(log))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

const LARGE: usize = 1_001;
const BAD: u8 = 13;
/// Far longer than any step of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

impl Codec<Counted> for Probe {
    fn encode(&self, value: &Counted) -> Result<Vec<u8>, BoxError> {
        self.0.encoded_on.lock().unwrap().push(thread::current().id());
        Ok(value.0.clone())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Counted, BoxError> {
        assert!(bytes[0] != BAD, "the codec panics, as the test wants");
        let log = &self.0;
        log.begun.fetch_add(1, Ordering::SeqCst);
        let others = log.in_flight.fetch_add(1, Ordering::SeqCst);
        log.most.fetch_max(others + 1, Ordering::SeqCst);
        // A decode without a permit would begin meanwhile.
        thread::sleep(*log.linger.lock().unwrap());
        if let Some(gate) = &*log.gate.lock().unwrap() {
            gate.recv_timeout(PATIENCE)?;
        }
        log.in_flight.fetch_sub(1, Ordering::SeqCst);
        Ok(Counted::new(bytes.to_vec(), log))
    }

    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        bytes.len() >= LARGE
    }
}

type Cache = LazyLayersCache<String, Counted>;

fn world() -> (Probe, SharedStore, Cache) {
    let (probe, store) = (Probe::default(), SharedStore::new(SystemClock));
    let cache = Cache::builder().l2(store.clone(), probe.clone()).build().unwrap();
    (probe, store, cache)
}

fn shut(probe: &Probe) -> Sender<()> {
    let (open, gate) = channel();
    *probe.0.gate.lock().unwrap() = Some(gate);
    open
}

fn permits() -> usize {
    thread::available_parallelism().unwrap().get()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_large_value_is_decoded_on_another_thread_and_a_small_one_is_not() {
    let store = SharedStore::new(SystemClock);
    let instance = || {
        let builder = LazyLayersCache::<String, Text>::builder();
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let here = thread::current().id();
    for (key, length) in [("small", 100), ("large", 100_000)] {
        let text = Text { text: "x".repeat(length), decoded_on: here };
        instance().set(key, text).await.unwrap();
        let got = instance().get(key).await.unwrap();
        let load = || async { Err::<Text, _>(std::fmt::Error) };
        let loaded = instance().get_or_set(key, load).await.unwrap();
        for text in [got, loaded] {
            assert_eq!((text.text.len(), text.decoded_on == here), (length, key == "small"));
        }
    }
}

#[tokio::test]
async fn after_a_large_value_the_next_is_encoded_on_another_thread() {
    let (probe, _, cache) = world();
    let here = thread::current().id();
    let set = async |length: usize| {
        cache.set("k", Counted::new(vec![1; length], &probe.0)).await.unwrap();
        *probe.0.encoded_on.lock().unwrap().last().unwrap() == here
    };
    assert!(set(10).await && set(LARGE).await, "the first large value cannot be predicted");
    assert!(!set(LARGE).await);
    // Small values bring the encoder back to this thread after a while.
    let mut small = 0;
    while !set(10).await {
        small += 1;
    }
    assert!((10..1_000).contains(&small), "{small}");
    assert!(set(10).await);
}

#[tokio::test]
async fn a_slow_decode_blocks_no_other_task() {
    let (probe, store, cache) = world();
    store.insert_raw("k", vec![1; LARGE], PATIENCE);
    let open = shut(&probe);
    let reader = tokio::spawn(async move { cache.get("k").await.is_some() });
    until("the decode begins", || probe.0.in_flight.load(Ordering::SeqCst) == 1).await;
    // The only thread of the runtime has come this far.
    open.send(()).unwrap();
    assert!(reader.await.unwrap());
}

#[tokio::test]
async fn at_most_one_decode_per_processor_runs_at_a_time() {
    let (probe, store, cache) = world();
    *probe.0.linger.lock().unwrap() = Duration::from_millis(20);
    let readers = (0..4 * permits()).map(|number| {
        let (key, cache) = (number.to_string(), cache.clone());
        store.insert_raw(&key, vec![1; LARGE], PATIENCE);
        tokio::spawn(async move { cache.get(&key).await.is_some() })
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
    let most = probe.0.most.load(Ordering::SeqCst);
    assert!((1..=permits()).contains(&most), "{most} decodes at a time");
}

#[tokio::test]
async fn callers_that_drop_their_calls_leave_no_values_and_no_permits() {
    let (probe, store, cache) = world();
    let open = shut(&probe);
    // One more than there are permits, so one reader waits. The gate admits one decode at a time.
    let readers = (0..=permits()).map(|number| {
        let (key, cache) = (number.to_string(), cache.clone());
        store.insert_raw(&key, vec![1; LARGE], PATIENCE);
        tokio::spawn(async move { cache.get(&key).await.is_some() })
    });
    let readers: Vec<_> = readers.collect();
    let begun = || probe.0.begun.load(Ordering::SeqCst);
    until("all permits are taken", || begun() == permits()).await;
    for reader in readers {
        reader.abort();
        assert!(reader.await.unwrap_err().is_cancelled());
    }
    // A decode that has begun runs to its end, and its result is dropped.
    (0..permits()).for_each(|_| open.send(()).unwrap());
    *probe.0.gate.lock().unwrap() = None;
    let alive = || probe.0.alive.load(Ordering::SeqCst);
    // All permits are free again.
    for number in 0..=permits() {
        assert!(cache.get(&number.to_string()).await.is_some());
    }
    until("abandoned results are dropped", || alive() == permits() + 1).await;
    assert_eq!(begun(), permits() + permits() + 1, "the reader that waited never began to decode");
}

#[tokio::test]
async fn a_panic_on_a_blocking_thread_is_a_miss_and_returns_its_permit() {
    let (_, store, cache) = world();
    for number in 0..=permits() {
        let key = number.to_string();
        store.insert_raw(&key, vec![BAD; LARGE], PATIENCE);
        assert!(cache.get(&key).await.is_none());
        assert_eq!(store.peek(&key), None, "bytes that do not decode are deleted");
    }
    assert_eq!(cache.stats().l2_errors, permits() as u64 + 1);
    store.insert_raw("good", vec![1; LARGE], PATIENCE);
    assert!(cache.get("good").await.is_some());
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_holds_no_permit() {
    let (probe, store, cache) = world();
    for number in 0..3 * permits() {
        cache.set(&number.to_string(), Counted::new(vec![1; LARGE], &probe.0)).await.unwrap();
    }
    let other = Cache::builder().without_l1().l2(store, probe.clone()).build().unwrap();
    let open = shut(&probe);
    let begun = probe.0.begun.load(Ordering::SeqCst);
    let running: Vec<_> = (0..permits())
        .map(|number| {
            let other = other.clone();
            tokio::spawn(async move { other.get(&number.to_string()).await.is_some() })
        })
        .collect();
    let taken = || probe.0.begun.load(Ordering::SeqCst) - begun >= permits();
    until("all permits are taken", taken).await;
    // These calls wait for a permit and are not polled again.
    let names: Vec<String> = (permits()..2 * permits()).map(|number| number.to_string()).collect();
    let mut asleep: Vec<_> = names.iter().map(|name| Box::pin(other.get(name))).collect();
    for _ in 0..3 {
        for call in &mut asleep {
            let mut context = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut context).is_pending());
        }
        tokio::task::yield_now().await;
    }
    drop(open);
    *probe.0.gate.lock().unwrap() = None;
    for call in running {
        tokio::time::timeout(PATIENCE, call).await.expect("it ends").unwrap();
    }
    let name = (2 * permits()).to_string();
    let last = tokio::time::timeout(PATIENCE, other.get(&name)).await;
    assert!(last.expect("a permit must be free").is_some());
    drop(asleep);
}
